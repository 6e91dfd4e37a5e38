"""Application scheduling: tasks are placed on workers, and on others when a worker is lost.

The machine places each task on the worker with most room. A worker claims what was placed on it;
its claims and heartbeats keep it alive. What a silent worker had is placed anew, and if that worker
comes back and reports a result, it is told that the task is not its own any more.

    python -m examples.machines.scheduling [--engine native|pysyncobj|local]
"""

from __future__ import annotations

import asyncio

from consensus import Handle, Node, Refused
from examples.machines.group import run
from statemachines import Scheduler

TTL_MS = 1000
TASKS = ("fetch", "resize", "upload", "index")


async def worker(node: Node, name: str) -> None:
    """Claim tasks and do them, until all are done."""
    scheduler = Handle(node, Scheduler)
    await scheduler.join(worker=name, capacity=2, ttl_ms=TTL_MS)
    while (await scheduler.totals())["done"] < len(TASKS):
        for work in await scheduler.claim(worker=name):
            task, attempt = work["task"], work["attempt"]
            await scheduler.complete(
                worker=name, task=task, attempt=attempt, result=work["payload"] ** 2
            )
            print(f"{name}: did {task}, attempt {attempt}")
        await asyncio.sleep(TTL_MS / 5000)


async def main(nodes: list[Node]) -> None:
    """Application scheduling on a replicated scheduler."""
    scheduler = Handle(nodes[0], Scheduler)
    await scheduler.join(worker="lost worker", capacity=2, ttl_ms=TTL_MS)
    for number, task in enumerate(TASKS):
        placed = await scheduler.submit(task=task, payload=number)
        print(f"{task}: {placed['state']}, worker: {placed['worker']}")
    lost = await scheduler.claim(worker="lost worker")
    print("lost worker: claims", ", ".join(work["task"] for work in lost), "and falls silent")

    await asyncio.gather(*(worker(node, f"worker on {node.engine.node_id}") for node in nodes[1:]))

    try:
        await scheduler.complete(worker="lost worker", task="fetch", attempt=1, result="late")
    except Refused as refusal:
        print(f"lost worker: wakes up and hears: {refusal}")
    for task in TASKS:
        status = await scheduler.status(task=task)
        print(f"{task}: {status['state']}, attempt {status['attempt']}: {status['result']}")


if __name__ == "__main__":
    run(Scheduler, main)
