"""One member of a small world: a real core, what its disk holds, and what one event makes of it.

A step is a function of a member's state and one event, so it is worked out once and remembered:
worlds of a million states share some ten thousand steps. The disk is the shortest one there is:
what a ``Ready`` asks to be synced is on it, nothing else is. An event may end in a crash before
the sync: what promises nothing has left then, and the rest is as if it had never been.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from chaos.sim.exhaustive.values import canonical, clone
from chaos.sim.invariants import Violation, require
from consensus.errors import NotLeader, ProposalDropped
from consensus.raft.config import CoreConfig
from consensus.raft.core import Core
from consensus.raft.log import RaftLog
from consensus.raft.messages import (
    AnyMessage,
    AppendEntriesResponse,
    LogEntry,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
)
from consensus.raft.ready import HardState, Ready
from consensus.types import NodeId, Role

ELECTION_TIMEOUT_TICKS: Final = 2
READIES_MAX: Final = 50
"""Readies after one event. More means that something goes round in circles."""
_LEFT_OUT: Final = frozenset({"config", "prng", "_ready_number"})
"""Fields of a core that are the same in every state, or that only count."""


class _NoChance:
    """In the place of randomness: a member may campaign after one timeout and a tick."""

    def randrange(self, stop: int) -> int:
        """Return the least delay that lets a member vote before it campaigns itself."""
        return min(1, stop - 1)


_PRNG: Any = _NoChance()


@attrs.frozen(slots=True)
class Event:
    """Something that happens to one member.

    Args:
        kind: "tick", "deliver", "propose", "read" or "crash".
        message: what is delivered.
        crash: the member dies before it syncs what this event made it write.
    """

    kind: str
    message: AnyMessage | None = None
    crash: bool = False


@attrs.frozen(slots=True, eq=False)
class Node:
    """A member's state. Nothing here is changed once it is made.

    Args:
        core: the real core.
        disk: what a restart would find: the hard state, and the log.
        key: the canonical form of all of it.
    """

    core: Core
    disk: tuple[HardState, tuple[LogEntry, ...]]
    key: Any


@attrs.frozen(slots=True)
class Step:
    """What one event came to: the next state, what was sent, the indexes of reads confirmed."""

    node: Node
    sent: tuple[AnyMessage, ...]
    reads: tuple[int, ...]


def started(
    name: NodeId,
    base: SnapshotMeta,
    disk: tuple[HardState, tuple[LogEntry, ...]],
    *,
    pre_vote: bool,
) -> Node:
    """Return a member that starts from what is on its disk."""
    hard_state, entries = disk
    config = CoreConfig(
        node_id=name,
        election_timeout_ticks=ELECTION_TIMEOUT_TICKS,
        heartbeat_ticks=1,
        pre_vote=pre_vote,
        inflight_messages_max=2,
    )
    core = Core(config, RaftLog(base, entries), hard_state, _PRNG)
    return _settled(core, disk)


def _restarted(
    node: Node, base: SnapshotMeta, disk: tuple[HardState, tuple[LogEntry, ...]]
) -> Node:
    config = node.core.config
    return started(config.node_id, base, disk, pre_vote=config.pre_vote)


def _settled(core: Core, disk: tuple[HardState, tuple[LogEntry, ...]]) -> Node:
    """Forget what only counts time, and take the state's canonical form."""
    core.now_ticks = min(core.now_ticks, ELECTION_TIMEOUT_TICKS)
    core.read_queue.lease_until_tick = 0
    core._ready_number = 0
    state = {name: value for name, value in vars(core).items() if name not in _LEFT_OUT}
    return Node(core, disk, canonical((state, disk)))


def step(node: Node, base: SnapshotMeta, event: Event) -> Step:
    """Return what an event makes of a member.

    Raises:
        Violation: what the member says is not on its disk, or it went back on what it promised.
    """
    name = node.core.node_id
    if event.kind == "crash":
        return Step(_restarted(node, base, node.disk), (), ())
    core = _copy(node.core)
    _feed(core, event)
    disk = node.disk
    sent: list[AnyMessage] = []
    reads: list[int] = []
    for _ in range(READIES_MAX):
        if not core.has_ready:
            _compare(node, core)
            return Step(_settled(core, disk), tuple(sent), tuple(reads))
        ready = core.take_ready()
        _say(name, ready.messages, disk, sent)
        if event.crash and ready.must_sync:
            return Step(_restarted(node, base, disk), tuple(sent), ())
        disk = _written(disk, ready)
        if ready.must_sync:
            core.persisted(ready.number)
        _say(name, ready.messages_after_persist, disk, sent)
        if ready.committed:
            core.applied(ready.committed[-1].index)
        reads.extend(read.index for read in ready.reads if read.index is not None)
    raise Violation(f"{name} has something to do without end after {event.kind}")


def _copy(core: Core) -> Core:
    copy = Core.__new__(Core)
    for name, value in vars(core).items():
        setattr(copy, name, value if name in _LEFT_OUT else clone(value))
    return copy


def _feed(core: Core, event: Event) -> None:
    if event.message is not None:
        core.step(event.message)
    elif event.kind == "propose":
        try:
            core.propose([b"%d" % core.term])
        except (NotLeader, ProposalDropped):
            return
    elif event.kind == "read":
        core.read_index(0)
    else:
        core.tick()
        if not core.is_leader and core.election_elapsed == 1:
            core.tick()  # of the ticks of a follower only those matter after which it acts


def _written(
    disk: tuple[HardState, tuple[LogEntry, ...]], ready: Ready
) -> tuple[HardState, tuple[LogEntry, ...]]:
    """Return the disk after a ``Ready`` is synced; a commit index alone is not."""
    hard_state, entries = disk
    if ready.entries:
        kept = [entry for entry in entries if entry.index < ready.entries[0].index]
        entries = (*kept, *ready.entries)
    if ready.must_sync and ready.hard_state is not None:
        hard_state = ready.hard_state
    return hard_state, entries


def _say(
    name: NodeId,
    messages: tuple[AnyMessage, ...],
    disk: tuple[HardState, tuple[LogEntry, ...]],
    sent: list[AnyMessage],
) -> None:
    """Let messages leave; what they promise must be on this disk now."""
    hard_state, entries = disk
    for message in messages:
        if isinstance(message, AppendEntriesResponse) and message.success:
            require(
                message.match_index <= (entries[-1].index if entries else 0),
                f"{name} acknowledges entry {message.match_index}, which is not on its disk",
            )
        elif isinstance(message, RequestVote) or (
            isinstance(message, RequestVoteResponse) and message.granted
        ):
            candidate = name if isinstance(message, RequestVote) else message.receiver
            require(
                hard_state.term > message.term
                or (hard_state.term, hard_state.voted_for) == (message.term, candidate),
                f"{name} votes for {candidate} in term {message.term}; its disk says term "
                f"{hard_state.term}, vote for {hard_state.voted_for}",
            )
        sent.append(message)


def _compare(before: Node, core: Core) -> None:
    """What never goes back within a life: term, vote, commit index, a leader's own log."""
    was, name = before.core, core.node_id
    require(core.term >= was.term, f"{name} went back from term {was.term} to {core.term}")
    if core.term == was.term and was.voted_for is not None:
        require(
            core.voted_for == was.voted_for,
            f"{name} voted in term {core.term} for {was.voted_for} and for {core.voted_for}",
        )
    require(
        core.commit_index >= was.commit_index,
        f"{name} moved its commit index from {was.commit_index} to {core.commit_index}",
    )
    if core.term == was.term and was.role is Role.LEADER is core.role:
        require(
            core.log.has(was.log.last_index, was.log.last_term),
            f"leader append-only: {name} changed its own entry at {was.log.last_index}",
        )
