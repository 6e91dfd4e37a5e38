"""A distributed lock with a fencing token.

Three workers raise a number by reading and then writing it, which loses updates unless they take
turns. Each write says "only if I still hold the lock": a worker that was paused until its lease ran
out, and wakes up believing that it holds, is refused by the server.

    python -m examples.kvstore.distributed_lock [HOST:PORT,...]
"""

from __future__ import annotations

import asyncio

from examples.kvstore.connect import run
from kvstore.client import AsyncClient, Lock, Put

LOCK = "/examples/lock"
NUMBER = "/examples/number"
ROUNDS = 3


async def raise_number(client: AsyncClient, lock: Lock) -> bool:
    """Read, add one, write; true if the lock was still held when the write arrived."""
    before = await client.get(NUMBER)
    number = int(before.value) if before else 0
    result = await client.txn(when=[lock.held()], then=[Put(NUMBER, str(number + 1))])
    return result.succeeded


async def worker(client: AsyncClient, name: str) -> None:
    """Take turns with the others."""
    for _ in range(ROUNDS):
        async with client.lock(LOCK, value=name, ttl_s=5) as lock:
            await raise_number(client, lock)
            print(f"{name}: held the lock, fencing token {lock.fencing_token}")


async def main(client: AsyncClient) -> None:
    """A distributed lock on kvstore."""
    await client.delete(NUMBER)
    await asyncio.gather(*(worker(client, f"worker {number}") for number in (1, 2, 3)))
    number = await client.get(NUMBER)
    assert number is not None
    print(f"the number is {number.value.decode()} after {3 * ROUNDS} turns")

    async with client.lock(LOCK, ttl_s=5) as paused:
        print(f"a worker holds the lock, token {paused.fencing_token}, and is paused")
        await client.lease_revoke(paused.lease.id)  # what the server does when time is up
        async with client.lock(LOCK, ttl_s=5) as other:
            print(f"another holds it now, token {other.fencing_token}")
            written = await raise_number(client, paused)
            print(f"the paused one wakes up and writes: {'written' if written else 'refused'}")
    await client.delete(NUMBER)


if __name__ == "__main__":
    run(main)
