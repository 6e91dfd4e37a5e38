"""Leader election: of several programs one leads, and the next takes over when it falls silent.

The leader keeps its office by heartbeats. Its term goes with everything it writes, and whoever
stores that refuses a smaller term than the largest it has seen: so a leader that was only paused,
and does not know yet that it was replaced, does no harm.

    python -m examples.machines.leader_election [--engine native|pysyncobj|local]
"""

from __future__ import annotations

import asyncio

from consensus import Handle, Node, Refused
from examples.machines.group import run
from statemachines import Elections

TTL_MS = 1000


class Store:
    """What the leader writes to: anything that can remember one number."""

    largest_term = 0

    def write(self, who: str, term: int) -> None:
        """Take a write of the newest leader, refuse those of older ones."""
        taken = term >= self.largest_term
        self.largest_term = max(term, self.largest_term)
        print(f"store: {who}, term {term}: {'written' if taken else 'refused, an older term'}")


async def candidate(node: Node, name: str, store: Store, beats: int) -> int:
    """Stand for election; as the leader write and send ``beats`` heartbeats, then fall silent."""
    elections = Handle(node, Elections)
    while True:
        office = await elections.campaign(election="billing", candidate=name, ttl_ms=TTL_MS)
        if office["leads"]:
            break
        await asyncio.sleep(TTL_MS / 10_000)
    print(f"{name}: leads in term {office['term']}")
    store.write(name, office["term"])
    for _ in range(beats):
        await asyncio.sleep(TTL_MS / 4000)
        await elections.heartbeat(election="billing", term=office["term"])
    print(f"{name}: is paused and sends no more heartbeats")
    return int(office["term"])


async def main(nodes: list[Node]) -> None:
    """Leader election on a replicated machine."""
    store = Store()
    first = asyncio.create_task(candidate(nodes[0], "host-1", store, beats=2))
    second = asyncio.create_task(candidate(nodes[1], "host-2", store, beats=2))
    terms = await asyncio.gather(first, second)

    early = min(range(2), key=lambda number: terms[number])
    print(f"host-{early + 1}: wakes up and believes that it still leads")
    store.write(f"host-{early + 1}", terms[early])
    try:
        await Handle(nodes[2], Elections).heartbeat(election="billing", term=terms[early])
    except Refused as refusal:
        print(f"host-{early + 1}: hears: {refusal}")


if __name__ == "__main__":
    run(Elections, main)
