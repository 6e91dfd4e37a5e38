"""Raft's promises as checks on what is observed, whoever observes it.

The numbers are those of ``docs/INVARIANTS.md``; each check names the property in the paper's words
(figure 3) where it has one.
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
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._terms: dict[str, int] = {}
        self._commits: dict[tuple[str, int], int] = {}

    @property
    def highest_acknowledged(self) -> int:
        """The greatest index that a caller was told about."""
        return max(self.acknowledged.values(), default=0)

    def applied(self, node: str, item: Committed) -> None:
        """State machine safety: no two members apply different entries at one index."""
        entry = (item.term, item.proposal.command)
        known = self.canonical.setdefault(item.index, entry)
        require(
            known == entry,
            f"state machine safety: {node} applied {entry} at {item.index}, others {known}",
        )
        place = self.canonical_of.setdefault(item.proposal.id, item.index)
        require(
            place == item.index,
            f"{item.proposal.id} was applied at {place} and again at {item.index}",
        )
        require(
            item.proposal.id not in self.surely_dropped,
            f"{item.proposal.id} was applied after its caller was told that it never would be",
        )

    def told_dropped(self, proposal: ProposalId) -> None:
        """A caller was told "certainly not applied"."""
        require(
            proposal not in self.canonical_of,
            f"{proposal} was called dropped, but it was applied",
        )
        self.surely_dropped.add(proposal)

    def observe_core(self, node: str, incarnation: int, core: Core) -> None:
        """Election safety, and what only ever grows."""
        if core.role is Role.LEADER:
            leader = self._leaders.setdefault(core.term, node)
            require(
                leader == node,
                f"election safety: {leader} and {node} both led term {core.term}",
            )
        require(
            core.term >= self._terms.get(node, 0),
            f"{node} went back from term {self._terms.get(node)} to {core.term}",
        )
        commit = self._commits.get((node, incarnation), 0)
        require(
            core.commit_index >= commit,
            f"{node} moved its commit index back from {commit} to {core.commit_index}",
        )
        require(
            core.applied_index <= core.commit_index,
            f"{node} applied {core.applied_index} but committed only {core.commit_index}",
        )
        self._commits[node, incarnation] = core.commit_index

    def observe_sent(self, message: AnyMessage) -> None:
        """A message left: a vote is cast once a term, also across restarts; terms are durable."""
        if isinstance(message, RequestVoteResponse) and message.granted:
            candidate = self._votes.setdefault((message.sender, message.term), message.receiver)
            require(
                candidate == message.receiver,
                f"{message.sender} voted in term {message.term} for {candidate} "
                f"and for {message.receiver}",
            )
            self._terms[message.sender] = max(self._terms.get(message.sender, 0), message.term)

    def read_allowed(self, index: int, needed: int, node: str) -> None:
        """A linearizable read sees everything acknowledged before it began."""
        require(
            index >= needed,
            f"stale read: {node} may read at {index}, but {needed} was acknowledged before",
        )
