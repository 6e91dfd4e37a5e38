"""Raft's promises as checks on what is observed, whoever observes it.

Each check names the property in the paper's words (figure 3) where it has one. They know nothing
of how a run is made; ``audit`` has those that read the disks.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from consensus.raft.configuration import Configuration
from consensus.raft.core import Core
from consensus.types import Committed, NodeId, Position, Role


class Violation(Exception):
    """A promise was broken."""


def require(condition: bool, message: str) -> None:
    """Raise ``Violation`` unless ``condition`` holds."""
    if not condition:
        raise Violation(message)


@attrs.frozen(slots=True)
class Vote:
    """What a member's disk must say: the term it is in, and whom it voted for in it."""

    term: int
    voted_for: NodeId | None


@attrs.define(slots=True)
class _Seen:
    """What was last observed of one member."""

    term: int = 0
    incarnation: int = 0
    commit_index: int = 0
    led_term: int = 0
    last_index: int = 0
    last_term: int = 0


class Promises:
    """Everything that was ever promised in one run, and whether it still holds.

    ``canonical`` has, for command number ``i + 1``, its term and the command; ``clocks_ms`` the
    log's clock there.
    """

    def __init__(self) -> None:
        self.canonical: list[tuple[int, bytes]] = []
        self.clocks_ms: list[int] = []
        self.number_of: dict[bytes, int] = {}
        self.acknowledged = 0
        self.highest_acknowledged = 0
        self.configuration: tuple[int, Configuration] = (0, Configuration())
        self.once_member: set[NodeId] = set()
        self.leaders: dict[int, NodeId] = {}
        self._dropped: set[bytes] = set()
        self._votes: dict[tuple[NodeId, int], NodeId] = {}
        self._terms_at: dict[int, int] = {}
        self._committed_last = (0, 0, 0)
        self._seen: dict[NodeId, _Seen] = {}

    # -- machines -----------------------------------------------------------------------------

    def applied(self, node: NodeId, batch: Sequence[Committed]) -> None:
        """State machine safety: no two members apply different entries at one index.

        Also exactly once: a command is applied at one index only, and never after its caller was
        told that it was dropped.
        """
        canonical = self.canonical
        for term, first, _, _, _, clocks_ms, commands in batch:
            for index, command in enumerate(commands, first):
                if index <= len(canonical):
                    known = canonical[index - 1]
                    if known[1] != command or known[0] != term:
                        raise Violation(
                            f"state machine safety: {node} applied {_short(command)} of term "
                            f"{term} at {index}, others {_short(known[1])} of {known[0]}"
                        )
                else:
                    self._first(node, index, term, command, clocks_ms[index - first])

    def _first(self, node: NodeId, index: int, term: int, command: bytes, clock_ms: int) -> None:
        if index != len(self.canonical) + 1:
            raise Violation(f"{node} applied {index}, but nobody has applied what is before it")
        place = self.number_of.setdefault(command, index)
        if place != index:
            raise Violation(f"{_short(command)} was applied at {place} and again at {index}")
        if command in self._dropped:
            raise Violation(f"{_short(command)} was applied; its caller was told it was dropped")
        self.canonical.append((term, command))
        self.clocks_ms.append(max(clock_ms, self.clocks_ms[-1] if self.clocks_ms else 0))

    def restored(self, node: NodeId, position: Position, commands: Sequence[bytes]) -> None:
        """A snapshot holds exactly what was applied up to its place, with the log's clock there."""
        index = position.index
        if index > len(self.canonical):
            raise Violation(f"{node} got a snapshot at {index}, which nobody has applied")
        expected = [command for _, command in self.canonical[:index]]
        if list(commands) != expected or position.term != self.canonical[index - 1][0]:
            raise Violation(f"{node} got a snapshot at {index} that differs from what was applied")
        if position.clock_ms != self.clocks_ms[index - 1]:
            raise Violation(
                f"{node} got a snapshot at {index} with clock {position.clock_ms} ms; the log's "
                f"clock there is {self.clocks_ms[index - 1]} ms"
            )

    # -- callers ------------------------------------------------------------------------------

    def told_applied(self, index: int) -> None:
        """A caller was told that its proposal was applied at ``index``."""
        self.acknowledged += 1
        if index > self.highest_acknowledged:
            self.highest_acknowledged = index

    def told_dropped(self, command: bytes) -> None:
        """A caller was told "certainly not applied"."""
        if command in self.number_of:
            raise Violation(f"{_short(command)} was called dropped, but it was applied")
        self._dropped.add(command)

    def read_allowed(self, index: int, needed: int, node: NodeId) -> None:
        """A linearizable read sees everything acknowledged before it began."""
        if index < needed:
            raise Violation(
                f"stale read: {node} may read at {index}, but {needed} was acknowledged before"
            )

    # -- cores --------------------------------------------------------------------------------

    def observe_core(self, node: NodeId, incarnation: int, core: Core) -> None:
        """Check a core whose term, role or commit index changed."""
        seen = self._seen.get(node)
        if seen is None:
            seen = self._seen[node] = _Seen()
        if core.term < seen.term:
            raise Violation(f"{node} went back from term {seen.term} to {core.term}")
        if incarnation != seen.incarnation:
            seen.commit_index = 0
            seen.led_term = 0
        if core.commit_index < seen.commit_index:
            raise Violation(
                f"{node} moved its commit index from {seen.commit_index} to {core.commit_index}"
            )
        if core.applied_index > core.commit_index:
            raise Violation(f"{node} applied {core.applied_index}, committed {core.commit_index}")
        if core.role is Role.LEADER:
            self._observe_leader(node, core, seen)
        if core.commit_index > seen.commit_index:
            self._observe_commit(node, core)
        seen.term, seen.incarnation = core.term, incarnation
        seen.commit_index = core.commit_index

    def _observe_leader(self, node: NodeId, core: Core, seen: _Seen) -> None:
        log = core.log
        if seen.led_term != core.term:
            leader = self.leaders.setdefault(core.term, node)
            if leader != node:
                raise Violation(f"election safety: {leader} and {node} both led term {core.term}")
            index, term, committed_in = self._committed_last
            if core.term > committed_in and index > log.snapshot.index and not log.has(index, term):
                raise Violation(
                    f"leader completeness: {node} leads term {core.term} without the committed "
                    f"entry at {index} of term {term}"
                )
            seen.led_term = core.term
        elif seen.last_index > log.snapshot.index and not log.has(seen.last_index, seen.last_term):
            raise Violation(
                f"leader append-only: {node} led term {core.term} and changed its own entry at "
                f"{seen.last_index}"
            )
        if len(core.configurations) > 1:
            # A new leader may not know yet that what it inherited is committed.
            committed = max(core.commit_index, self._committed_last[0])
            open_changes = sum(at > committed for at, _ in core.configurations)
            if open_changes > 1:
                raise Violation(f"{node} leads with {open_changes} uncommitted changes of members")
        seen.last_index, seen.last_term = log.last_index, log.last_term

    def _observe_commit(self, node: NodeId, core: Core) -> None:
        """Committed entries are the same everywhere, by place and term."""
        index = core.commit_index
        term = core.log.term_at(index)
        if term is None:
            raise Violation(f"{node} committed {index}, which its log does not have")
        known = self._terms_at.setdefault(index, term)
        if known != term:
            raise Violation(
                f"committed entries differ: at {index} {node} has term {term}, others {known}"
            )
        if index > self._committed_last[0]:
            self._committed_last = (index, term, core.term)
        newest = core.configurations[-1]
        if newest[0] > self.configuration[0] or not self.once_member:
            self._observe_configuration(core)

    def _observe_configuration(self, core: Core) -> None:
        for at, configuration in core.configurations:
            if at <= core.commit_index and configuration.voters:
                self.once_member.update(configuration.members)
                if at >= self.configuration[0]:
                    self.configuration = (at, configuration)

    def observe_vote(self, voter: NodeId, term: int, candidate: NodeId) -> None:
        """A vote is cast once a term, also across restarts."""
        known = self._votes.setdefault((voter, term), candidate)
        if known != candidate:
            raise Violation(f"{voter} voted in term {term} for {known} and for {candidate}")

    def observe_restart(self, node: NodeId, core: Core, before: Vote) -> None:
        """What a member promised survives its crash: its term and its vote.

        One that no longer knows its vote comes back with a vote for itself: it gives no other.
        """
        if core.term < before.term or (
            core.term == before.term
            and before.voted_for is not None
            and core.voted_for not in (before.voted_for, node)
        ):
            raise Violation(
                f"{node} came back in term {core.term} with a vote for {core.voted_for}; it had "
                f"promised term {before.term} and a vote for {before.voted_for}"
            )


def _short(command: bytes) -> str:
    return command[:20].decode(errors="replace")
