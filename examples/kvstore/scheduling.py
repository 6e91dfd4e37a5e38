"""Application scheduling: each task runs on one worker, and on another if that one is lost.

A worker takes a task by creating its "taken" key, attached to the worker's lease, if nobody has. If
the worker is lost its lease runs out, the key goes, and a worker that watches takes the task. Done
means: in one step, only if the task is still mine, the task and the claim go and the result is
written.

    python -m examples.kvstore.scheduling [HOST:PORT,...]
"""

from __future__ import annotations

import asyncio

from examples.kvstore.connect import run
from kvstore.client import AsyncClient, Delete, EventType, Put, create_revision, value

ROOT = "/examples/tasks/"
TODO, TAKEN, DONE = ROOT + "todo/", ROOT + "taken/", ROOT + "done/"
TASKS = ("fetch", "resize", "upload")


async def take(client: AsyncClient, worker: str, task: str, lease: int) -> bool:
    """Take ``task`` if it is still to do and nobody has it."""
    result = await client.txn(
        when=[create_revision(TODO + task) > 0, create_revision(TAKEN + task) == 0],
        then=[Put(TAKEN + task, worker, lease=lease)],
    )
    if result.succeeded:
        print(f"{worker}: takes {task}")
    return result.succeeded


async def finish(client: AsyncClient, worker: str, task: str) -> None:
    """Record ``task`` as done, if it is still this worker's."""
    result = await client.txn(
        when=[value(TAKEN + task) == worker],
        then=[Put(DONE + task, worker), Delete(TODO + task), Delete(TAKEN + task)],
    )
    print(f"{worker}: {task} {'is done' if result.succeeded else 'was given to another'}")


async def work(client: AsyncClient, worker: str) -> None:
    """Take and do tasks until none is left to do."""
    async with client.lease(ttl_s=5) as lease:
        while left := await client.range(TODO, prefix=True):
            if not left.kvs:
                return
            for kv in left.kvs:
                task = kv.key.decode().removeprefix(TODO)
                if await take(client, worker, task, lease.id):
                    await finish(client, worker, task)
                    break
            else:  # all are taken: wait until one is given back or done
                after = left.header.revision + 1
                async with client.watch(
                    TAKEN, prefix=True, start_revision=after, skip=[EventType.PUT]
                ) as watch:
                    await anext(watch)


async def main(client: AsyncClient) -> None:
    """Application scheduling on kvstore."""
    await client.delete_prefix(ROOT)
    for task in TASKS:
        await client.put(TODO + task)
    lease = await client.lease_grant(2)  # a worker that takes a task and is lost
    await take(client, "lost worker", "fetch", lease.id)

    await asyncio.gather(work(client, "worker 1"), work(client, "worker 2"))
    await finish(client, "lost worker", "fetch")
    done = await client.get_prefix(DONE)
    print("done:", ", ".join(kv.key.decode().removeprefix(DONE) for kv in done))
    await client.delete_prefix(ROOT)


if __name__ == "__main__":
    run(main)
