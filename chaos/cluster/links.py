"""Names of the links of a cluster, and which of them a partition cuts.

Every ordered pair of members has its own link, so that any partition can be made, one-way and
partial ones too; each member also has a link from the clients of the workload.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations


def peer_link(source: str, target: str) -> str:
    """The link on which ``source`` dials ``target``."""
    return f"{source}-to-{target}"


def client_link(member: str) -> str:
    """The link on which the workload's clients dial ``member``."""
    return f"client-to-{member}"


def peer_links(members: Sequence[str]) -> list[tuple[str, str]]:
    """Every ordered pair (source, target)."""
    return list(permutations(members, 2))


def links_between(groups: Iterable[Sequence[str]]) -> list[str]:
    """The links, both ways, that join members of different groups."""
    sides = [list(group) for group in groups]
    return [
        peer_link(source, target)
        for one, other in permutations(sides, 2)
        for source in one
        for target in other
    ]
