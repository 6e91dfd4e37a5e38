"""The running part of the engine: PySyncObj and what surrounds it, ticked by the event loop.

A tick is PySyncObj's ``doTick(0)``: it commits, applies, sends, and then reads what its sockets
have. What it read takes effect at the next tick, so ticks follow one another until nothing was
read. Everything runs on the loop; nothing here blocks or spins.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from consensus.engine import EngineHost
from consensus.engines.pysyncobj.codec import (
    COMMAND_BYTES_MAX,
    Frame,
    FrameKey,
    decode_frame,
    encode_frame,
    split_proposals,
)
from consensus.engines.pysyncobj.delivery import DELIVER_QUEUE_MAX, Delivery
from consensus.engines.pysyncobj.dump import DUMP_NAME, DumpReader
from consensus.engines.pysyncobj.journal import SegmentJournal
from consensus.engines.pysyncobj.matching import Message
from consensus.engines.pysyncobj.outstanding import Outstanding
from consensus.engines.pysyncobj.poller import EpollPoller
from consensus.engines.pysyncobj.questions import ANSWER, ASK, Questions
from consensus.engines.pysyncobj.raft import (
    Consumer,
    PeerNode,
    Raft,
    reason_error,
    settings,
)
from consensus.engines.pysyncobj.setup import GROUP_ID, Setup
from consensus.engines.pysyncobj.snapshots import LOG_KEEP_ENTRIES, Snapshots
from consensus.engines.pysyncobj.transport import PeerTransport
from consensus.engines.pysyncobj.view import GroupView
from consensus.errors import (
    NotLeader,
    OutcomeUnknown,
    ProposalDropped,
    ReadFailed,
    StorageError,
)
from consensus.statemachine import StateSnapshot
from consensus.storage.directory import DataDirectory
from consensus.types import Position, Proposal

log = structlog.get_logger(__name__)

PROPOSE: Final = "raftyard_propose"
REFUSE: Final = "raftyard_refuse"

TICK_S: Final = 0.025
"""Between ticks when nothing happens, in seconds: how exact election and heartbeat timers are."""
TICKS_PER_TURN_MAX: Final = 8
TURN_S: Final = 0.005
"""Ticks follow one another for this long, in seconds, before other work gets its turn."""
STALL_S: Final = 0.05
"""A gap this long between ticks: what peers sent meanwhile is read before timers are judged."""
TICK_FAILURES_MAX: Final = 20
"""So many failed ticks in a row, and the engine stops instead of trying again."""
LOG_BYTES_MAX: Final = 256 * 1024 * 1024
"""PySyncObj holds its log in memory; beyond this a snapshot is made whatever its size."""
LOG_ENTRIES_FACTOR: Final = 20
"""Barriers of reads are entries too; this many entries for each command that a snapshot may wait
for make one due."""


def _resolver(future: asyncio.Future[int]) -> Callable[[int], None]:
    def reached(index: int) -> None:
        if not future.done():
            future.set_result(index)

    return reached


class Driver:
    """One member, taking part from construction to ``stop``.

    Args:
        setup: the configuration.
        host: the node.
        directory: locked and ours.
        journal: the log, beginning with the snapshot's last entries where there is a snapshot.
        delivery: stands where the machine stands.
        changed: called when the status may have changed.

    Raises:
        ConfigError: the address cannot be bound.
    """

    def __init__(
        self,
        setup: Setup,
        host: EngineHost,
        directory: DataDirectory,
        journal: SegmentJournal,
        delivery: Delivery,
        changed: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._setup = setup
        self._host = host
        self._delivery = delivery
        self._journal = journal
        self._changed = changed
        self._member = int.from_bytes(hashlib.sha256(setup.me.name.encode()).digest()[:8], "big")
        self._incarnation = secrets.randbits(64)
        self._number = 0
        self._failure = ""
        self._failures = 0
        self._stopped = False
        self._held = False
        self._compact_wanted = False
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._pumping: asyncio.Handle | None = None
        self._last_tick = 0.0
        self._knew_leader = False
        self._last_seen: object = None
        self.outstanding = Outstanding(host.dropped)
        self.snapshots = Snapshots(
            directory.path / DUMP_NAME,
            setup.names,
            self,
            keep_entries=min(LOG_KEEP_ENTRIES, setup.snapshot_entries),
        )
        self.questions = Questions(self, host.answer, 2 * setup.timing.election_max_s)
        self._poller = EpollPoller()
        self.transport: PeerTransport
        try:
            self.raft = self._build(directory)
        except BaseException:
            self._poller.close()
            raise
        self.view = GroupView(setup, self.raft, self.transport)

    def _build(self, directory: DataDirectory) -> Raft:
        setup = self._setup
        conf = settings(
            setup.timing,
            setup.listen,
            self._poller,
            self._journal,
            str(directory.path / DUMP_NAME),
            setup.password,
        )

        def transport(raft: Raft, me: PeerNode, others: set[PeerNode]) -> PeerTransport:
            self.transport = PeerTransport(
                raft,
                me,
                others,
                owner=self,
                poller=self._poller,
                journal=self._journal,
                cluster=setup.cluster,
                ping_s=setup.timing.election_s / 2,
            )
            return self.transport

        return Raft(
            setup.me, list(setup.others), conf, Consumer(self._on_frame), self.snapshots, transport
        )

    # -- ticking ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to tick."""
        timing = self._setup.timing
        if not self._setup.others:
            self.raft.postpone_election(at_least_s=1e-6)
        else:
            self.raft.postpone_election(timing.election_max_s)
        self._last_tick = self._loop.time()
        self._watch()
        self.tick_soon()
        self._on_timer()

    def tick_soon(self) -> None:
        """Tick in the next turn of the loop."""
        if self._soon is None and not self._stopped:
            self._soon = self._loop.call_soon(self._on_soon)

    def _watch(self) -> None:
        self._loop.add_reader(self._poller.fileno(), self._tick)

    def _on_soon(self) -> None:
        self._soon = None
        self._tick()

    def _on_timer(self) -> None:
        if not self._stopped:
            self._timer = self._loop.call_later(TICK_S, self._on_timer)
            self._tick()

    def _tick(self) -> None:
        if self._stopped or self._held:
            return
        if self._failure:
            self._shut()
            return
        now = self._loop.time()
        stalled, self._last_tick = now - self._last_tick > STALL_S, now
        try:
            if stalled:
                self._poller.poll(0.0)
            for _ in range(TICKS_PER_TURN_MAX):
                self._want_compaction()
                self.raft.doTick(0.0)
                if self._failure or not self._poller.dispatched:
                    break
                if self._loop.time() - now > TURN_S:
                    self.tick_soon()
                    break
            else:
                self.tick_soon()
            self._failures = 0
        except OSError as error:
            self._fail(f"the log cannot be written: {error}")
        except Exception as error:
            self._failures += 1
            log.exception("PySyncObj failed in a tick", in_a_row=self._failures)
            if self._failures >= TICK_FAILURES_MAX:
                self._fail(f"PySyncObj keeps failing: {type(error).__name__}: {error}")
        self._after_tick()

    def _after_tick(self) -> None:
        if not self._failure:
            self.outstanding.applied_term(self.raft.applied_term)
            self._pump()
            if self.transport.wants_tick:
                self.tick_soon()
            self._first_election()
            seen = self.view.visible()
            if seen != self._last_seen:
                self._last_seen = seen
                self._changed()
        if self._failure or self._host.is_halted():
            self._shut()

    def _first_election(self) -> None:
        """Elect soon after the first start of a group, not only after a whole timeout.

        As soon as a quorum is linked the deadline moves to a few heartbeats from now: a leader that
        exists has spoken by then.
        """
        if self._knew_leader or self.raft.leader is not None:
            self._knew_leader = True
            return
        if self._setup.others and self.view.is_linked_to_majority():
            self._knew_leader = True
            heartbeat_s = self._setup.timing.heartbeat_s
            self.raft.postpone_election(heartbeat_s * (3 + 4 * secrets.randbelow(1000) / 1000))

    def _want_compaction(self) -> None:
        """Have PySyncObj compact its log when it has grown enough, and all of it is delivered.

        A snapshot is only worth its writing when the log has grown by as many bytes: a machine with
        a large state is not dumped again and again for a few commands.
        """
        if self._delivery.waiting or self._delivery.skipping or not self.snapshots.idle:
            return
        covered = self.snapshots.covered
        commands_max = self._setup.snapshot_entries
        log_bytes = self._journal.bytes
        grown = self._delivery.index - covered.index > commands_max and log_bytes > covered.bytes
        entries = self.applied_index() - covered.raft_index
        if (
            self._compact_wanted
            or grown
            or log_bytes > LOG_BYTES_MAX
            or entries > LOG_ENTRIES_FACTOR * commands_max
        ):
            self._compact_wanted = False
            self.raft.forceLogCompaction()

    def compact(self) -> None:
        """Make a snapshot as soon as nothing is waiting to be applied."""
        self._compact_wanted = True
        self.tick_soon()

    # -- committed frames ---------------------------------------------------------------------

    def _on_frame(self, text: str) -> None:
        """PySyncObj commits a frame. Nothing may be raised here."""
        if self._failure or self._host.is_halted():
            return
        try:
            frame = decode_frame(text)
            if frame.group_id != GROUP_ID:
                raise StorageError(f"a frame of group {frame.group_id}")
            self._delivery.frame(frame, self.raft.applying_term)
            sent = self.outstanding.seen(frame.key)
            if sent is not None and sent.barrier is not None:
                self._delivery.barrier(_resolver(sent.barrier))
        except Exception as error:
            self._fail(f"log entry {self.raft.raftLastApplied + 1} cannot be delivered: {error}")

    def _pump(self) -> None:
        """Deliver for a slice; go on in a later turn when something is left."""
        if self._pumping is None and self._delivery.pump():
            self._pumping = self._loop.call_soon(self._on_pump)
        if self._delivery.waiting > DELIVER_QUEUE_MAX and not self._held:
            self._held = True
            self._loop.remove_reader(self._poller.fileno())

    def _on_pump(self) -> None:
        self._pumping = None
        if self._stopped:
            return
        self._pump()
        if self._held and self._delivery.waiting < DELIVER_QUEUE_MAX // 2:
            self._held = False
            self._watch()
            self.tick_soon()
        if self._host.is_halted():
            self._shut()

    # -- sending frames -----------------------------------------------------------------------

    def propose(self, proposals: Sequence[Proposal]) -> None:
        """Send proposals to the log, as few frames as their size allows."""
        taken = []
        for proposal in proposals:
            if len(proposal.command) > COMMAND_BYTES_MAX:
                size = len(proposal.command)
                self._host.dropped(
                    proposal.id,
                    ProposalDropped(f"a command of {size} bytes; {COMMAND_BYTES_MAX} are allowed"),
                )
            else:
                taken.append(proposal)
        for group in split_proposals(taken):
            self.send_frame(group, None)

    def send_frame(
        self, proposals: tuple[Proposal, ...], barrier: asyncio.Future[int] | None
    ) -> None:
        """Send one frame to the leader, once. Its end is told through ``outstanding``."""
        self._number += 1
        key = FrameKey(self._member, self._incarnation, self._number)
        raft = self.raft
        self.outstanding.add(key, raft.term, proposals, barrier)
        leader = self.leader()
        if leader is None or self._stopped:
            self.outstanding.fail(key, NotLeader(None))
            return
        text = encode_frame(Frame(key, GROUP_ID, proposals))
        if raft.leads:
            self._append(key, text)
            return
        if not self.transport.has_room(leader):
            self.outstanding.fail(key, NotLeader(None, f"no link to the leader {leader.name}"))
            return
        self.transport.send(
            leader, {"type": PROPOSE, "term": raft.term, "number": self._number, "frame": text}
        )

    def _append(self, key: FrameKey | None, text: str) -> None:
        def failed(reason: int) -> None:
            if key is not None:
                self.outstanding.fail(key, reason_error(reason))

        try:
            self.raft.append(text, failed)
        except OSError as error:
            self._fail(f"the log cannot be written: {error}")
        if not self._setup.others:
            self.tick_soon()  # no peer's answer will wake us

    # -- what the transport tells (transport.Owner) -------------------------------------------

    def peer_message(self, node: PeerNode, message: Message) -> None:
        """One of our own messages has arrived."""
        kind = message["type"]
        if kind == PROPOSE:
            if self.raft.leads and self.raft.term == message["term"]:
                self._append(None, message["frame"])
            else:
                self.transport.send(node, {"type": REFUSE, "number": message["number"]})
        elif kind == REFUSE:
            key = FrameKey(self._member, self._incarnation, message["number"])
            self.outstanding.fail(key, NotLeader(None))
        elif kind in (ASK, ANSWER):
            self.questions.message(node, message)

    def link_up(self, node: PeerNode) -> None:
        """A peer is connected."""
        log.info("peer connected", peer=node.name, address=node.address)

    def link_down(self, node: PeerNode) -> None:
        """A peer is gone. What was forwarded to it stays undecided until a later term."""
        log.info("peer disconnected", peer=node.name, address=node.address)
        self.snapshots.peer_lost(node)
        self.questions.link_down(node)

    def log_diverged(self, index: int) -> None:
        """The leader has another entry where this member has applied one."""
        self._fail(
            f"the leader's log differs at entry {index}, which is applied here: the group has lost "
            "acknowledged commands. Remove this member's data and let it join again"
        )

    # -- what snapshots need (snapshots.Owner) ------------------------------------------------

    def freeze(self) -> tuple[Position, StateSnapshot] | None:
        """Apply what is queued and freeze the machine."""
        self._delivery.drain()
        if self._failure or self._host.is_halted():
            return None
        position, state = self._host.snapshot()
        if position.index != self._delivery.index:
            state.release()
            return None
        return position, state

    def applied_index(self) -> int:
        """PySyncObj's applied index."""
        return int(self.raft.raftLastApplied)

    def is_linked(self, node: PeerNode) -> bool:
        """Whether a peer is connected."""
        return self.transport.is_linked(node)

    def log_bytes(self) -> int:
        """Bytes that the log holds."""
        return self._journal.bytes

    def install(self, reader: DumpReader) -> None:
        """A leader's snapshot takes the place of the machine."""
        log.info("snapshot received", index=reader.head.position.index)
        self.outstanding.fail_all(OutcomeUnknown("a snapshot took the place of the log around it"))
        self._delivery.install(reader)

    # -- what it knows (questions.Links, and the engine's status) -----------------------------

    def leads(self) -> bool:
        """Whether this member leads, as far as it knows."""
        return not self._stopped and self.raft.leads

    def term(self) -> int:
        """The current term."""
        return self.raft.term

    def leader(self) -> PeerNode | None:
        """Who leads, as far as known; nobody once this member has stopped."""
        return None if self._stopped else self.view.leader()

    @property
    def committed_index(self) -> int:
        """Index of the last command known to be committed."""
        return max(self._delivery.index, self._delivery.delivered_index)

    @property
    def delivered_index(self) -> int:
        """Index of the last command that the host has."""
        return self._delivery.delivered_index

    async def barrier(self, timeout_s: float) -> int:
        """Commit a barrier and wait until it has been delivered here; tried once."""
        future: asyncio.Future[int] = self._loop.create_future()
        self.send_frame((), future)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise ReadFailed(f"no quorum confirmed the leader in {timeout_s:g} s") from None
        except OutcomeUnknown as error:
            raise ReadFailed(str(error)) from None
        except ProposalDropped as error:
            raise NotLeader(None, str(error)) from None

    def details(self) -> dict[str, int]:
        """Figures for a person: PySyncObj's own indexes, and the state of the log."""
        return {
            "raft_commit_index": int(self.raft.raftCommitIndex),
            "raft_applied_index": self.applied_index(),
            "log_entries": len(self._journal),
            "log_bytes": self._journal.bytes,
            "snapshot_index": self.snapshots.covered.index,
            "waiting_to_apply": self._delivery.waiting,
            "linked_peers": self.transport.linked,
        }

    def send(self, node: PeerNode, message: Message) -> bool:
        """Send a message of ours to a peer."""
        return self.transport.has_room(node) and self.transport.send(node, message)

    # -- end ----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether this member still takes part."""
        return not self._stopped

    def _fail(self, reason: str) -> None:
        """Stop for good; the sockets are closed once PySyncObj is out of its tick."""
        if not self._failure:
            self._failure = reason
            self._host.halt(reason)
            self.tick_soon()

    def _shut(self) -> None:
        """Leave the group at once: nothing is sent, applied or answered any more."""
        if self._stopped:
            return
        self._stopped = True
        for handle in (self._timer, self._soon, self._pumping):
            if handle is not None:
                handle.cancel()
        self._loop.remove_reader(self._poller.fileno())
        with contextlib.suppress(OSError):
            self.raft.close()
        self._poller.close()
        self.outstanding.fail_all(OutcomeUnknown("the engine was stopped"))
        self._changed()

    async def stop(self) -> None:
        """Leave the group and release everything."""
        self._shut()
        await self.questions.close()
        await self.snapshots.close()
        self._delivery.close()
