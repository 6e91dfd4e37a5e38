"""Raft's promises as checks on what is observed, whoever observes it.

Each check names the property in the paper's words (figure 3) where it has one.
"""

from __future__ import annotations

from consensus.raft.core import Core
from consensus.raft.messages import AnyMessage, RequestVoteResponse
from consensus.types import Committed, ProposalId, Role


class Violation(Exception):
    """A promise was broken."""


def require(condition: bool, message: str) -> None:
    """Raise ``Violation`` unless ``condition`` holds."""
    if not condition:
        raise Violation(message)


class Promises:
    """Everything that was ever promised in one run, and whether it still holds."""

    def __init__(self) -> None:
        self.canonical: dict[int, tuple[int, bytes]] = {}
        self.canonical_of: dict[ProposalId, int] = {}
        self.acknowledged: dict[ProposalId, int] = {}
        self.surely_dropped: set[ProposalId] = set()
        self._highest = 0
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._terms: dict[str, int] = {}
        self._commits: dict[tuple[str, int], int] = {}

    @property
    def highest_acknowledged(self) -> int:
        """The greatest index that a caller was told about."""
        return self._highest

    def applied(self, node: str, item: Committed) -> None:
        """State machine safety: no two members apply different entries at one index."""
        entry = (item.term, item.proposal.command)
        known = self.canonical.setdefault(item.index, entry)
        identity = item.proposal.id
        if known != entry:
            raise Violation(
                f"state machine safety: {node} applied {entry} at {item.index}, others {known}"
            )
        place = self.canonical_of.setdefault(identity, item.index)
        if place != item.index:
            raise Violation(f"{identity} was applied at {place} and again at {item.index}")
        if identity in self.surely_dropped:
            raise Violation(f"{identity} was applied, but its caller was told that it was dropped")

    def told_applied(self, proposal: ProposalId, index: int) -> None:
        """A caller was told that its proposal was applied at ``index``."""
        self.acknowledged[proposal] = index
        self._highest = max(self._highest, index)

    def told_dropped(self, proposal: ProposalId) -> None:
        """A caller was told "certainly not applied"."""
        if proposal in self.canonical_of:
            raise Violation(f"{proposal} was called dropped, but it was applied")
        self.surely_dropped.add(proposal)

    def observe_core(self, node: str, incarnation: int, core: Core) -> None:
        """Election safety, and what only ever grows."""
        if core.role is Role.LEADER:
            leader = self._leaders.setdefault(core.term, node)
            if leader != node:
                raise Violation(f"election safety: {leader} and {node} both led term {core.term}")
        term = self._terms.get(node, 0)
        if core.term < term:
            raise Violation(f"{node} went back from term {term} to {core.term}")
        commit = self._commits.get((node, incarnation), 0)
        if core.commit_index < commit:
            raise Violation(f"{node} moved its commit index from {commit} to {core.commit_index}")
        if core.applied_index > core.commit_index:
            raise Violation(f"{node} applied {core.applied_index}, committed {core.commit_index}")
        self._commits[node, incarnation] = core.commit_index

    def observe_sent(self, message: AnyMessage) -> None:
        """A message left: a vote is cast once a term, also across restarts; terms are durable."""
        if isinstance(message, RequestVoteResponse) and message.granted:
            candidate = self._votes.setdefault((message.sender, message.term), message.receiver)
            if candidate != message.receiver:
                raise Violation(
                    f"{message.sender} voted in term {message.term} for {candidate} "
                    f"and for {message.receiver}"
                )
            self._terms[message.sender] = max(self._terms.get(message.sender, 0), message.term)

    def read_allowed(self, index: int, needed: int, node: str) -> None:
        """A linearizable read sees everything acknowledged before it began."""
        if index < needed:
            raise Violation(
                f"stale read: {node} may read at {index}, but {needed} was acknowledged before"
            )
