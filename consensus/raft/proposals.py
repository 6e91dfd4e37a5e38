"""Which forwarded proposals a leader has seen: each is appended at most once.

Numbers of one sender grow, but may come out of order. The newest ``REMEMBERED_MAX`` are remembered
one by one; anything older than those counts as seen.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from consensus.types import NodeId

REMEMBERED_MAX: Final = 4_096
"""Forwarded proposals remembered per sender."""


class SeenProposals:
    """The forwarded proposals of one leadership."""

    def __init__(self) -> None:
        self._recent: dict[NodeId, deque[int]] = {}
        self._numbers: dict[NodeId, set[int]] = {}
        self._floor: dict[NodeId, int] = {}

    def add(self, sender: NodeId, request: int) -> bool:
        """Remember a proposal. False: it was seen before, or is too old to tell."""
        numbers = self._numbers.setdefault(sender, set())
        if request in numbers or request <= self._floor.get(sender, -1):
            return False
        recent = self._recent.setdefault(sender, deque())
        numbers.add(request)
        recent.append(request)
        if len(recent) > REMEMBERED_MAX:
            oldest = recent.popleft()
            numbers.discard(oldest)
            self._floor[sender] = max(self._floor.get(sender, -1), oldest)
        return True
