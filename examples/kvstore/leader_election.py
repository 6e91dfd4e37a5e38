"""Leader election: of several programs one leads, and another takes over when it stops.

Each candidate waits in line; the first leads until it leaves or its lease runs out. A leader that
was paused may not know that it was replaced, so what it writes says "only if I still lead": the
server compares and writes in one step, and refuses a leader of yesterday.

    python -m examples.kvstore.leader_election [HOST:PORT,...]
"""

from __future__ import annotations

import asyncio

from examples.kvstore.connect import run
from kvstore.client import AsyncClient, Leadership, Put

ELECTION = "/examples/election"
RESULT = "/examples/result"
NAMES = ("host-1", "host-2", "host-3")


async def write(client: AsyncClient, name: str, leadership: Leadership) -> None:
    """Write as the leader, if it still is one."""
    answer = await client.txn(when=[leadership.held()], then=[Put(RESULT, f"by {name}")])
    print(f"{name}: {'writes' if answer.succeeded else 'may not write: it leads no longer'}")


async def candidate(client: AsyncClient, name: str, seen: asyncio.Event) -> Leadership:
    """Wait for office, hold it until somebody has seen a leader, and hand over."""
    async with client.campaign(ELECTION, name, ttl_s=5) as leadership:
        print(f"{name}: leads, term {leadership.fencing_token}")
        await write(client, name, leadership)
        await seen.wait()
    print(f"{name}: resigned")
    return leadership


async def observer(client: AsyncClient, seen: asyncio.Event) -> None:
    """Say who leads. It may miss a short reign, and never sees an older one after a newer."""
    async for leader in client.observe(ELECTION):
        print(f"observer: the leader is {leader.value.decode()}")
        seen.set()


async def main(client: AsyncClient) -> None:
    """Leader election on kvstore."""
    seen = asyncio.Event()
    watching = asyncio.create_task(observer(client, seen))
    reigns = await asyncio.gather(*(candidate(client, name, seen) for name in NAMES))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    await write(client, f"{NAMES[0]}, back from a long pause", reigns[0])
    terms = sorted(reign.fencing_token for reign in reigns)
    print(f"{len(set(terms))} terms, each larger than the last")
    await client.delete(RESULT)


if __name__ == "__main__":
    run(main)
