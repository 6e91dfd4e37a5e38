"""Linearizable reads without a log entry (thesis, section 6.4).

A leader notes its commit index, sends one round of heartbeats, and serves the reads of that round
once a majority has answered it: then nobody else led when the index was noted. Reads that come up
while a round is under way share the next one, which goes out when that is answered, or with the
next heartbeat. Before it has committed an entry of its own term a leader does not know what is
committed, so reads wait.

Lease reads skip the round: a majority that answered a round sent at tick ``t`` helps nobody else
to lead before ``t + election_timeout_ticks``, if clocks run at about the same speed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import attrs

from consensus.raft.messages import Heartbeat, ReadIndex, ReadIndexResponse
from consensus.raft.quorum import committed_index
from consensus.types import NodeId

if TYPE_CHECKING:
    from consensus.raft.core import Core

READS_PENDING_MAX: Final = 100_000
"""Reads that wait on one leader. More are refused by failing at once."""


@attrs.frozen(slots=True)
class _Read:
    requester: NodeId
    request: int


@attrs.define(slots=True)
class _Round:
    number: int
    index: int
    sent_tick: int
    reads: list[_Read]


class ReadQueue:
    """The reads that a leader has not answered yet."""

    def __init__(self) -> None:
        self.round = 0
        self.unsent: list[_Read] = []
        self.too_early: list[_Read] = []
        self.rounds: deque[_Round] = deque()
        self.lease_until_tick = 0
        self.wants_round = False

    @property
    def round_due(self) -> bool:
        """Whether a round is to be sent now: a heartbeat, or reads wait and none is under way."""
        return self.wants_round or bool(self.unsent and not self.rounds)

    @property
    def size(self) -> int:
        """How many reads wait."""
        return len(self.unsent) + len(self.too_early) + sum(len(r.reads) for r in self.rounds)


def request(core: Core, number: int) -> bool:
    """This node's driver wants to read."""
    if core.is_leader:
        _enqueue(core, _Read(core.node_id, number))
        return True
    if core.leader is None:
        return False
    core.send(ReadIndex(sender=core.node_id, receiver=core.leader, term=core.term, request=number))
    return True


def handle_read_index(core: Core, message: ReadIndex) -> None:
    """A follower wants to read. Not leading: silence, and it asks again."""
    if core.is_leader:
        _enqueue(core, _Read(message.sender, message.request))


def reset(core: Core) -> None:
    """Begin a leadership: no round was sent, no lease is held."""
    core.read_queue = ReadQueue()


def fail_all(core: Core) -> None:
    """Leadership is lost: this node's own reads fail now, others' by their own deadline."""
    queue = core.read_queue
    waiting = [*queue.too_early, *queue.unsent]
    for pending in queue.rounds:
        waiting.extend(pending.reads)
    for read in waiting:
        if read.requester == core.node_id:
            core.resolve_read(read.request, None)
    core.read_queue = ReadQueue()


def committed(core: Core) -> None:
    """The commit index moved; with the first entry of this term, reads that waited may go."""
    queue = core.read_queue
    if queue.too_early and _own_term_committed(core):
        queue.unsent.extend(queue.too_early)
        queue.too_early = []


def begin_round(core: Core) -> None:
    """A heartbeat is due: the next ``take_ready`` sends a round, reads or not."""
    core.read_queue.wants_round = True
    send_round(core)


def send_round(core: Core) -> None:
    """Send a round of heartbeats, if one is due."""
    queue = core.read_queue
    if not queue.round_due:
        return
    queue.wants_round = False
    queue.round += 1
    reads, queue.unsent = queue.unsent, []
    queue.rounds.append(_Round(queue.round, core.commit_index, core.now_ticks, reads))
    for peer in core.peers:
        core.send(
            Heartbeat(
                sender=core.node_id,
                receiver=peer,
                term=core.term,
                # Not beyond what this member is known to have: its tail may be another leader's.
                leader_commit=min(core.commit_index, core.progress[peer].match_index),
                round=queue.round,
            )
        )
    round_acknowledged(core)


def round_acknowledged(core: Core) -> None:
    """Answer the reads of every round that a majority has answered."""
    queue = core.read_queue
    if not queue.rounds:
        return
    answered = {peer: progress.heartbeat_round for peer, progress in core.progress.items()}
    answered[core.node_id] = queue.round
    confirmed = committed_index(core.configuration, answered)
    while queue.rounds and queue.rounds[0].number <= confirmed:
        done = queue.rounds.popleft()
        queue.lease_until_tick = done.sent_tick + core.config.election_timeout_ticks
        for read in done.reads:
            if read.requester == core.node_id:
                core.resolve_read(read.request, done.index)
            else:
                core.send(
                    ReadIndexResponse(
                        sender=core.node_id,
                        receiver=read.requester,
                        term=core.term,
                        request=read.request,
                        index=done.index,
                    )
                )


def lease_valid(core: Core, drift_ticks: int = 1) -> bool:
    """Whether a leader may answer from its own state without a round.

    Check it *after* the read, not before: time passes between the two. Never valid again in a term
    in which leadership was offered to another: a successor need not wait, and the word to take over
    may still be under way after the hand-over was given up.
    """
    return (
        core.is_leader
        and not core.config.early_elections
        and not core.lease_forfeited
        and _own_term_committed(core)
        and core.now_ticks + drift_ticks < core.read_queue.lease_until_tick
    )


def _own_term_committed(core: Core) -> bool:
    return core.log.has(core.commit_index, core.term)


def _enqueue(core: Core, read: _Read) -> None:
    queue = core.read_queue
    if queue.size >= READS_PENDING_MAX:
        if read.requester == core.node_id:
            core.resolve_read(read.request, None)
        return
    if _own_term_committed(core):
        queue.unsent.append(read)
    else:
        queue.too_early.append(read)
