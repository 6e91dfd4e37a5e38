"""What was promised on the way to a state: part of the state, because promises last.

Two ways that lead to the same members with different promises are different states: one of them
may be about to break what the other never said.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from chaos.sim.exhaustive.node import Node, Step
from chaos.sim.invariants import require
from consensus.raft.log import RaftLog
from consensus.raft.messages import LogEntry


@attrs.frozen(slots=True)
class Promised:
    """A committed entry, and the least term of a member that called it so."""

    entry: LogEntry
    term: int


@attrs.frozen(slots=True, cache_hash=True)
class History:
    """The promises of one way through a world.

    Args:
        leaders: of each term so far, by place of the member.
        committed: every entry that a member ever called committed, from index 1.
        read_from: what was committed when the one read of this world was asked for.
    """

    leaders: tuple[tuple[int, int], ...] = ()
    committed: tuple[Promised, ...] = ()
    read_from: int = 0
    begun: bool = False

    def after(self, place: int, done: Step, nodes: Sequence[Node], *, asked: bool) -> History:
        """Return the promises once the member at ``place`` has made a step.

        Raises:
            Violation: a promise is broken in the new state.
        """
        core = done.node.core
        name, log = core.node_id, core.log
        for index in done.reads:
            require(
                index >= self.read_from,
                f"stale read: {name} may read at {index}, but {self.read_from} was committed "
                "before it asked",
            )
        leaders = self.leaders
        if core.is_leader and (core.term, place) not in leaders:
            leaders = self._with_leader(place, core.term, name)
            self._check_complete(name, core.term, log)
        committed = self._with_committed(name, core.term, core.commit_index, log)
        for other, node in enumerate(nodes):
            if other != place:
                check_matching(name, log, node)
        if len(committed) > len(self.committed):
            check_durable(committed, nodes)
        elif committed:
            check_held(name, committed, nodes)
        read_from = len(self.committed) if asked else self.read_from
        if (
            leaders == self.leaders
            and committed == self.committed
            and read_from == self.read_from
            and self.begun
        ):
            return self
        return History(leaders, committed, read_from, True)

    def _with_leader(self, place: int, term: int, name: str) -> tuple[tuple[int, int], ...]:
        for led, other in self.leaders:
            require(
                led != term or other == place,
                f"election safety: another member led term {term} before {name}",
            )
        return tuple(sorted((*self.leaders, (term, place))))

    def _check_complete(self, name: str, term: int, log: RaftLog) -> None:
        for promised in self.committed:
            require(
                term <= promised.term or log.has(promised.entry.index, promised.entry.term),
                f"leader completeness: {name} leads term {term} without the committed entry at "
                f"{promised.entry.index} of term {promised.entry.term}",
            )

    def _with_committed(
        self, name: str, term: int, commit_index: int, log: RaftLog
    ) -> tuple[Promised, ...]:
        known = self.committed
        for index in range(1, min(commit_index, len(known)) + 1):
            require(
                log.entry(index) == known[index - 1].entry,
                f"state machine safety: {name} committed {log.entry(index)}, others "
                f"{known[index - 1].entry}",
            )
        if commit_index <= len(known):
            return known
        require(commit_index <= log.last_index, f"{name} committed what its log does not have")
        news = log.slice(len(known) + 1, commit_index + 1)
        return (*known, *(Promised(entry, term) for entry in news))


def check_matching(name: str, log: RaftLog, other: Node) -> None:
    """Log matching: where two logs agree on an index and its term, all before it is the same."""
    ours = log.slice(log.first_index, log.last_index + 1)
    theirs = other.core.log.slice(other.core.log.first_index, other.core.log.last_index + 1)
    if ours == theirs:
        return
    agree = min(len(ours), len(theirs))
    while agree and ours[agree - 1].term != theirs[agree - 1].term:
        agree -= 1
    require(
        ours[:agree] == theirs[:agree],
        f"log matching: {name} and {other.core.node_id} agree at {agree} and differ before it",
    )


def check_durable(committed: Sequence[Promised], nodes: Sequence[Node]) -> None:
    """Every committed entry is on the disks of a majority, now and ever after."""
    for promised in committed:
        entry = promised.entry
        having = sum(
            len(node.disk[1]) >= entry.index and node.disk[1][entry.index - 1] == entry
            for node in nodes
        )
        require(
            having > len(nodes) // 2,
            f"entry {entry.index} of term {entry.term} is committed and on {having} of "
            f"{len(nodes)} disks",
        )


def check_held(name: str, committed: Sequence[Promised], nodes: Sequence[Node]) -> None:
    """What was committed stays on a majority's disks whatever one member does to its own."""
    if not all(
        len(node.disk[1]) >= len(committed)
        and node.disk[1][len(committed) - 1] == committed[-1].entry
        for node in nodes
    ):
        check_durable(committed, nodes)
