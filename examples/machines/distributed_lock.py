"""A distributed lock with fencing tokens.

Workers take turns at a store that loses updates when two use it at once. One of them is paused
while it holds the lock, for longer than its time to live; the next gets the lock with a larger
token, and the store, which has seen that token, refuses the paused one when it wakes up.

    python -m examples.machines.distributed_lock [--engine native|pysyncobj|local]
"""

from __future__ import annotations

import asyncio
from typing import Any

from consensus import Handle, Node
from examples.machines.group import run
from statemachines import Locks

ROUNDS = 3


class Store:
    """A number that is read, then written; each write carries its writer's fencing token."""

    number = 0
    largest_token = 0

    def write(self, number: int, token: int) -> bool:
        """Take the write unless a later holder was here already."""
        if token < self.largest_token:
            return False
        self.number, self.largest_token = number, token
        return True


async def hold(locks: Handle, owner: str, ttl_ms: int) -> dict[str, Any]:
    """Wait in line for the lock and return the grant."""
    while True:
        grant = await locks.acquire(name="store", owner=owner, ttl_ms=ttl_ms, wait_ms=30_000)
        if grant["held"]:
            print(f"{owner}: holds the lock, token {grant['token']}")
            return dict(grant)
        await asyncio.sleep(0.02)


async def worker(node: Node, name: str, store: Store) -> None:
    """Take turns with the others at raising the number."""
    locks = Handle(node, Locks)
    for _ in range(ROUNDS):
        grant = await hold(locks, name, ttl_ms=10_000)
        number = store.number
        await asyncio.sleep(0)  # others run here: without the lock this would lose updates
        store.write(number + 1, grant["token"])
        await locks.release(name="store", token=grant["token"])


async def main(nodes: list[Node]) -> None:
    """A distributed lock on a replicated machine."""
    store = Store()
    await asyncio.gather(*(worker(node, f"on {node.engine.node_id}", store) for node in nodes))
    print(f"the number is {store.number} after {ROUNDS * len(nodes)} turns")

    paused = await hold(Handle(nodes[0], Locks), "paused", ttl_ms=300)
    number = store.number
    other = await hold(Handle(nodes[1], Locks), "other", ttl_ms=10_000)
    store.write(store.number + 1, other["token"])
    written = store.write(number + 1, paused["token"])
    print(f"paused: wakes up and writes: {'written' if written else 'refused by the store'}")
    print(f"the number is {store.number}")


if __name__ == "__main__":
    run(Locks, main)
