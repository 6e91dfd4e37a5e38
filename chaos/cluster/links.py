"""Names of the links of a cluster, what a cut makes of them, and cuts that overlap.

Every ordered pair of members has its own link, so that any partition can be made, one-way and
partial ones too; each member also has a link from the clients of the workload.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Final


def peer_link(source: str, target: str) -> str:
    """The link on which ``source`` dials ``target``."""
    return f"{source}-to-{target}"


def client_link(member: str) -> str:
    """The link on which the workload's clients dial ``member``."""
    return f"client-to-{member}"


def peer_links(members: Sequence[str]) -> list[tuple[str, str]]:
    """Every ordered pair (source, target)."""
    return list(permutations(members, 2))


Flow = tuple[str, str]
"""What one member sends to another, whoever dialled."""


class LinkState(enum.Enum):
    """What a link can be; the values are those of toxid's ``POST /partition``."""

    OPEN = "open"
    STALLED_UPSTREAM = "stalled-upstream"
    STALLED_DOWNSTREAM = "stalled-downstream"
    STALLED = "stalled"
    CLOSED = "closed"


def flows_between(groups: Iterable[Sequence[str]]) -> list[Flow]:
    """The flows, both ways, between members of different groups."""
    sides = [list(group) for group in groups]
    return [
        (source, target)
        for one, other in permutations(sides, 2)
        for source in one
        for target in other
    ]


def states_of(flows: Iterable[Flow], mode: str) -> dict[str, LinkState]:
    """What cutting these flows makes of links.

    A flow from A to B is upstream on the link that A dials and downstream on the one that B dials.
    Where both flows of a pair are cut their links close (mode "close") or stall; a single one can
    only be stalled.
    """
    cut = set(flows)
    whole = LinkState.CLOSED if mode == "close" else LinkState.STALLED
    states = {}
    for source, target in cut:
        if (target, source) in cut:
            states[peer_link(source, target)] = whole
        else:
            states[peer_link(source, target)] = LinkState.STALLED_UPSTREAM
            states[peer_link(target, source)] = LinkState.STALLED_DOWNSTREAM
    return states


_HALVES: Final = frozenset({LinkState.STALLED_UPSTREAM, LinkState.STALLED_DOWNSTREAM})


class Cuts:
    """Cuts of several owners on the same links: each link has the sum of what they ask for."""

    def __init__(self) -> None:
        self._by_owner: dict[object, dict[str, LinkState]] = {}

    def cut(self, owner: object, states: Mapping[str, LinkState]) -> dict[str, LinkState]:
        """Add (or replace) an owner's cuts; return the new state of every link concerned."""
        before = self._by_owner.get(owner, {})
        self._by_owner[owner] = dict(states)
        return {link: self._sum(link) for link in {**before, **states}}

    def heal(self, owner: object) -> dict[str, LinkState]:
        """Take an owner's cuts away; return the new state of every link concerned."""
        return {link: self._sum(link) for link in self._by_owner.pop(owner, {})}

    def heal_all(self) -> dict[str, LinkState]:
        """Take everything away."""
        links = {link for states in self._by_owner.values() for link in states}
        self._by_owner.clear()
        return dict.fromkeys(links, LinkState.OPEN)

    def _sum(self, link: str) -> LinkState:
        asked = {states[link] for states in self._by_owner.values() if link in states}
        if LinkState.CLOSED in asked:
            return LinkState.CLOSED
        if LinkState.STALLED in asked or asked >= _HALVES:
            return LinkState.STALLED
        halves = asked & _HALVES
        return halves.pop() if halves else LinkState.OPEN
