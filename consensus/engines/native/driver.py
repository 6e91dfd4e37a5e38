"""The driver: one member's core, log and machine, tied together, without a clock or a socket.

The engine's asyncio shell (and the simulator) calls ``tick``, ``receive``, ``propose`` and so on,
and then ``pump``, which does all that the core asks for in the order that ``Ready`` prescribes:
send what promises nothing, write and sync the log, send what promises, apply what is committed.

The sync is done inline. That costs the loop a fraction of a millisecond a batch, and a disk that
stalls stops this member's heartbeats by itself, so that another can lead.

Start-up (see ``Engine.start`` for the rule). What is on disk is some of: a log with a base, a
snapshot file, a machine with a position. The machine may go on if the log confirms its position;
otherwise it is rebuilt from the snapshot file and the log.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import attrs

from consensus import failpoints
from consensus.engine import EngineHost
from consensus.engines.native.commands import CommandIndex
from consensus.engines.native.incoming import IncomingSnapshots
from consensus.engines.native.outgoing import KEPT_ELECTION_TIMEOUTS, OutgoingSnapshots
from consensus.engines.native.repair import abstain, from_nothing, open_log
from consensus.engines.native.restore import HELD_APPLIED, Restore
from consensus.errors import (
    ConsensusError,
    DataDamaged,
    NotLeader,
    OutcomeUnknown,
    ProposalDropped,
    ReadFailed,
    StorageError,
)
from consensus.raft.config import CoreConfig
from consensus.raft.configuration import Configuration, InvalidConfiguration
from consensus.raft.core import Core
from consensus.raft.log import RaftLog
from consensus.raft.membership import configuration_at, stand_alone
from consensus.raft.messages import AnyMessage, EntryKind, InstallSnapshot, LogEntry, SnapshotMeta
from consensus.raft.ready import HardState, Ready
from consensus.statemachine import StateSnapshot
from consensus.storage.files import FileSystem
from consensus.storage.records import Base, Record
from consensus.storage.recovery import Recovered
from consensus.storage.snapshots import SnapshotStore, SnapshotWriter, StoredMeta
from consensus.storage.wal import SEGMENT_BYTES, WriteAheadLog
from consensus.types import Committed, Position, Proposal, ProposalId

_PROPOSAL: Final = struct.Struct("<QQQQ")
_new: Final = tuple.__new__
"""Makes a named tuple from its fields in a quarter of the time of a call."""

CATCH_UP_ENTRIES: Final = 5_000
"""Entries kept behind a snapshot, so that a member that was briefly away needs no snapshot."""

FORWARDS_PENDING_MAX: Final = 10_000
"""Forwarded batches that wait for their entries. The oldest is given up as unknown beyond this."""

FORWARD_TIMEOUTS_MAX: Final = 4
"""Election timeouts after which a forwarded batch is given up as unknown: the message that carried
it may be lost while its leader goes on leading."""

ReadDone = Callable[[int | None], None]


def encode_proposal(proposal: Proposal) -> bytes:
    """Return the data of a COMMAND entry: who proposed it, when, and the command."""
    identity = proposal.id
    return (
        _PROPOSAL.pack(identity.member, identity.incarnation, identity.sequence, proposal.clock_ms)
        + proposal.command
    )


def decode_proposal(data: bytes) -> Proposal:
    """Read what ``encode_proposal`` wrote."""
    *identity, clock_ms = _PROPOSAL.unpack_from(data)
    return _new(Proposal, (_new(ProposalId, identity), clock_ms, data[_PROPOSAL.size :]))


@attrs.define(slots=True)
class _Placed:
    """A proposal of this node that it appended as the leader."""

    id: ProposalId
    index: int
    term: int


@attrs.define(slots=True)
class _Forward:
    """Proposals of this node that went to the leader of a term together, by sequence; and when."""

    ids: dict[int, ProposalId]
    term: int
    sent_tick: int


class Driver:
    """One member, synchronous.

    Args:
        config: the core's settings.
        log_files: where the write-ahead log lives.
        snapshot_files: where snapshot files live.
        host: the node.
        bootstrap: the group's first configuration, for a member with an empty disk; empty for one
            that joins a group which is there already.
        prng: the source of election timeouts.
        send: called with each message, in order, never blocks.
        flush: called when what was sent should be on its way: before a sync, and at the end.
        group_id: the group's number.
        incarnation: grows with each start of this member; 31 bits.
        distrust: why the machine must be rebuilt from the other members; empty: it need not be.
        alone: go on as the only member of the group (see ``membership.stand_alone``).

    ``damage`` says what was found damaged at the start and is being repaired; empty: nothing.

    Raises:
        DataDamaged: what is on disk cannot be used, and the other members cannot help.
        StorageError: the disk failed.
    """

    def __init__(
        self,
        config: CoreConfig,
        log_files: FileSystem,
        snapshot_files: FileSystem,
        host: EngineHost,
        bootstrap: Configuration,
        prng: random.Random,
        send: Callable[[AnyMessage], None],
        *,
        flush: Callable[[], None] = lambda: None,
        group_id: int = 0,
        snapshot_entries: int = 10_000,
        segment_bytes: int = SEGMENT_BYTES,
        catch_up_entries: int = CATCH_UP_ENTRIES,
        incarnation: int = 0,
        distrust: str = "",
        alone: bool = False,
    ) -> None:
        self._host = host
        self._send = send
        self._flush = flush
        self._group_id = group_id
        self._snapshot_entries = snapshot_entries
        self._catch_up_entries = catch_up_entries
        self._wal = WriteAheadLog(log_files, group_id=group_id, segment_bytes=segment_bytes)
        self.snapshots = SnapshotStore(snapshot_files, group_id=group_id)
        self.snapshots.open()
        self.damage = distrust
        try:
            self.core = self._recover(config, bootstrap, prng)
            if alone:
                self._stand_alone(config, prng)
        except InvalidConfiguration as error:
            self._wal.close()
            raise StorageError(str(error)) from error
        except BaseException:
            self._wal.close()
            raise
        self._clock_ms = self._delivered.clock_ms
        self._pumping = False
        self._placed: list[_Placed] = []
        self._forwarded: dict[int, _Forward] = {}
        self._request_of: dict[int, int] = {}
        self._forward_ticks_max = FORWARD_TIMEOUTS_MAX * config.election_timeout_ticks
        self._proposer = ProposalId(0, 0, 0)
        # Numbers of an earlier life must not come again: the leader may remember them.
        self._request = int(incarnation) << 32
        self._reads: dict[int, ReadDone] = {}
        self._confirmed_reads: list[tuple[int, ReadDone]] = []
        self._received: StoredMeta | None = None
        self._restore: Restore | None = None
        self.incoming = IncomingSnapshots(self.snapshots, self.core, self.receive_snapshot)
        self.outgoing = OutgoingSnapshots(
            self.core,
            str(incarnation),
            self._freeze,
            KEPT_ELECTION_TIMEOUTS * config.election_timeout_ticks,
        )

    # -- inputs -------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one tick of time pass."""
        self.core.tick()
        self.outgoing.tick()
        self.incoming.discard_covered()
        if self._forwarded:
            self._forget_old_forwards()

    def receive(self, message: AnyMessage) -> None:
        """Take in a message of another member."""
        if isinstance(message, InstallSnapshot):
            raise TypeError("a snapshot comes through receive_snapshot, with its data")
        self.core.step(message)

    def receive_snapshot(self, message: InstallSnapshot, stored: StoredMeta) -> None:
        """Take in a snapshot whose data is in the snapshot store already."""
        self._received = stored
        self.core.step(message)

    def propose(self, proposals: Sequence[Proposal]) -> None:
        """Append proposals, or forward them to the leader, or say that neither can be."""
        if not proposals:
            return
        data = [encode_proposal(proposal) for proposal in proposals]
        if self.core.is_leader:
            try:
                index = self.core.propose(data)
            except ProposalDropped as error:
                self._drop(proposals, error)
                return
            term = self.core.term
            self._placed.extend(
                _Placed(proposal.id, index + number, term)
                for number, proposal in enumerate(proposals)
            )
            return
        self._request += 1
        if self.core.forward(self._request, data):
            ids = {proposal.id.sequence: proposal.id for proposal in proposals}
            self._forwarded[self._request] = _Forward(ids, self.core.term, self.core.now_ticks)
            self._request_of.update(dict.fromkeys(ids, self._request))
            self._proposer = proposals[0].id
            if len(self._forwarded) > FORWARDS_PENDING_MAX:
                self._forget_forward(next(iter(self._forwarded)))
        else:
            self._drop(proposals, NotLeader(None, "no leader is known"))

    def read_index(self, done: ReadDone) -> None:
        """Call ``done`` with an applied index that is safe to read at, or None if it failed."""
        self._request += 1
        self._reads[self._request] = done
        if not self.core.read_index(self._request):
            del self._reads[self._request]
            done(None)

    def forget_read(self, done: ReadDone) -> None:
        """A reader gave up."""
        self._reads = {key: value for key, value in self._reads.items() if value is not done}

    def pump(self) -> None:
        """Do everything that the core asks for, until it asks for nothing more.

        Raises:
            StorageError: the disk failed. The node must stop; nothing was promised from it.
        """
        if self._pumping:
            return  # the host called back into us: the outer call goes on
        self._pumping = True
        try:
            while self.core.has_ready:
                self._handle(self.core.take_ready())
        finally:
            self._pumping = False

    def close(self) -> None:
        """Close the log; forget snapshots that are half sent or half received."""
        self.outgoing.close()
        self.incoming.discard()
        self._wal.close()

    # -- snapshots and compaction -------------------------------------------------------------

    @property
    def commit_index(self) -> int:
        """Number of the last command that is known to be committed."""
        return self._numbers.command_at(self.core.commit_index)

    @property
    def log_index(self) -> int:
        """Number of the last command in the log on disk."""
        return self._numbers.command_at(self.core.log.persisted_index)

    @property
    def log_entries(self) -> int:
        """How many applied entries the log still holds."""
        return self.core.applied_index - self.core.log.snapshot.index

    @property
    def wants_compaction(self) -> bool:
        """Whether the log has grown past its bound."""
        limit = self._snapshot_entries + self._catch_up_entries + self.outgoing.held_entries
        return self.log_entries >= limit and not self.restoring

    def take_snapshot(self) -> Iterator[None]:
        """Write a snapshot file of the machine in steps, then shorten the log."""
        position, frozen = self._host.snapshot()
        if position.index <= self._numbers.command_at(self.core.log.snapshot.index):
            frozen.release()
            return
        meta = self._meta_at(position)
        writer: SnapshotWriter | None = None
        finished = False
        try:
            writer = self.snapshots.writer(meta)
            for chunk in frozen.chunks():
                writer.write(chunk)
                yield
            writer.finish()
            finished = True
        except OSError as error:
            raise StorageError(f"writing a snapshot failed: {error}") from error
        finally:
            frozen.release()
            if writer is not None and not finished:
                writer.abort()
        self.shorten_to_command(position.index)

    def shorten_to_command(self, covered_command: int) -> None:
        """Drop entries that neither this member's machine nor others' will need."""
        held = self._catch_up_entries + self.outgoing.held_entries
        keep_from = self._delivered.index - held
        command = min(covered_command, keep_from)
        if command <= self._numbers.command_at(self.core.log.snapshot.index):
            return
        place = self._numbers.place_of(command)
        covered_place = self._numbers.place_of(covered_command)
        meta = self.core.compact(place)
        self._numbers.rebase(place)
        self._wal.append([_base_of(meta, command), self.core.hard_state])
        self._wal.release_before(place)
        self.snapshots.remove_before(covered_place)

    @property
    def restoring(self) -> bool:
        """Whether a received snapshot is on its way into the machine: see ``restore_slice``."""
        return self._restore is not None

    def restore_slice(self) -> bool:
        """Do a few milliseconds' worth of restoring; return whether more is left.

        The log has made way for the snapshot already and is replicated as ever. What is committed
        meanwhile is held back, and applied in slices too.

        Raises:
            StorageError: the snapshot or the disk failed. The node must stop.
        """
        restore = self._restore
        if restore is None:
            return False
        if restore.step():
            return True
        if restore.position is not None:
            self._delivered, restore.position = restore.position, None
            self._clock_ms = self._delivered.clock_ms
        if restore.held and not self._host.is_halted():
            batch, restore.held = restore.held[:HELD_APPLIED], restore.held[HELD_APPLIED:]
            self._apply_now(batch)
            return True
        self._restore = None
        self._resolve_reads()
        return False

    # -- inside -------------------------------------------------------------------------------

    def _freeze(self) -> tuple[StoredMeta, StateSnapshot]:
        """Freeze the machine for a member that is behind."""
        if self.restoring:
            raise ReadFailed("this member's own machine is still being restored")
        position, frozen = self._host.snapshot()
        return self._meta_at(position), frozen

    def _recover(self, config: CoreConfig, bootstrap: Configuration, prng: random.Random) -> Core:
        distrust = self.damage
        recovered, self.damage = open_log(self._wal, bootstrap)
        self.torn_bytes = recovered.torn_bytes
        abstain(self._wal, recovered, config.node_id)
        try:
            if distrust:
                raise DataDamaged(distrust)
            base = self._settle(recovered, bootstrap)
        except DataDamaged as error:
            self.damage = str(error)
            recovered = from_nothing(self._wal, recovered, bootstrap, error)
            if distrust:
                self._host.discard(distrust)
            self.snapshots.clear()
            base = self._settle(recovered, bootstrap)
        entries = [entry for entry in recovered.entries if entry.index > base.index]
        return self._new_core(config, RaftLog(base, entries), recovered.hard_state, prng)

    def _new_core(
        self, config: CoreConfig, log: RaftLog, hard_state: HardState, prng: random.Random
    ) -> Core:
        return Core(
            config,
            log,
            hard_state,
            prng,
            applied_index=self._numbers.place_of(self._delivered.index),
        )

    def _stand_alone(self, config: CoreConfig, prng: random.Random) -> None:
        """Make this member the only one, durably, before it takes part in anything."""
        step = stand_alone(self.core)
        if step is None:
            return
        entry, hard_state = step
        self._wal.append([entry, hard_state])
        self._numbers.append([entry])
        log = self.core.log
        entries = [*log.slice(log.first_index, log.last_index + 1), entry]
        self.core = self._new_core(config, RaftLog(log.snapshot, entries), hard_state, prng)

    def _settle(self, recovered: Recovered, bootstrap: Configuration) -> SnapshotMeta:
        """Decide where the machine stands and what the log continues from."""
        if not recovered.base.configuration:
            # From its first start on a member knows its group's members from its own disk alone.
            recovered.base = Base(0, 0, 0, bootstrap.encode())
            self._wal.append([recovered.base])
        position = self._host.position()
        base = recovered.base
        stored, unusable = self._newest_snapshot(recovered)
        if stored is not None and not _joins(stored.raft, recovered):
            # A snapshot was received and the crash came before the log made way for it: what the
            # log has there, or lacks, was never committed.
            base = _base_of(stored.raft, stored.command_index)
            self._wal.start_over(base, recovered.hard_state)
            recovered.entries.clear()
            recovered.base = base
        self._numbers = CommandIndex(base.index, base.command_index)
        self._numbers.append(recovered.entries)
        if position.index and not self._confirmed(position, recovered):
            self._host.discard(
                f"the machine stands at index {position.index} of term {position.term}, which "
                f"this log (from {base.index} to {recovered.last_index}) does not confirm"
            )
            position = Position()
        if position.index < base.command_index:
            if stored is None or stored.raft.index < base.index:
                raise DataDamaged(
                    f"the log begins after index {base.index}, and neither the machine nor a "
                    f"snapshot file reaches that far{unusable}"
                )
            self.snapshots.verify(stored.raft)
            position = Position(
                stored.command_index, stored.raft.term, stored.clock_ms, self._group_id
            )
            for _ in self._host.restore_steps(position, self.snapshots.contents(stored.raft)):
                pass
        self._delivered = position
        return SnapshotMeta(base.index, base.term, Configuration.decode(base.configuration))

    def _newest_snapshot(self, recovered: Recovered) -> tuple[StoredMeta | None, str]:
        """Return the newest snapshot, verified if it is to take the log's place; or what is wrong.

        One that the log does not go on from was never acknowledged: damaged, it does not matter.
        """
        try:
            stored = self.snapshots.newest()
            if stored is not None and not _joins(stored.raft, recovered):
                self.snapshots.verify(stored.raft)
        except DataDamaged as damage:
            return None, f" ({damage})"
        return stored, ""

    def _confirmed(self, position: Position, recovered: Recovered) -> bool:
        if position.group_id != self._group_id:
            return False
        if position.index == recovered.base.command_index:
            return position.term == recovered.base.term
        offset = self._numbers.place_of(position.index) - recovered.base.index - 1
        if not 0 <= offset < len(recovered.entries):
            return False
        return recovered.entries[offset].term == position.term

    def _handle(self, ready: Ready) -> None:
        for message in ready.messages:
            self._send(message)
        if ready.snapshot is not None:
            self._install(ready.snapshot)
        if ready.must_sync:
            self._flush()  # the others write and sync while we do
            records: list[Record] = list(ready.entries)
            if ready.hard_state is not None:
                records.append(ready.hard_state)
            if records:
                self._wal.append(records)
            self._numbers.append(ready.entries)
            self.core.persisted(ready.number)
        if ready.messages_after_persist:
            failpoints.hit("send.before")
            for message in ready.messages_after_persist:
                self._send(message)
            self._flush()
            failpoints.hit("send.after")
        else:
            self._flush()
        if ready.committed:
            self._apply(ready.committed)
        for request in ready.rejected_proposals:
            self._end_forward(request, NotLeader(self.core.leader))
        for read in ready.reads:
            done = self._reads.pop(read.request, None)
            if done is None:
                continue
            if read.index is None:
                done(None)
            else:
                self._confirmed_reads.append((read.index, done))
        if self._confirmed_reads:
            self._resolve_reads()

    def _apply(self, entries: Sequence[LogEntry]) -> None:
        if self._restore is not None:
            self._restore.held.extend(entries)
        else:
            self._apply_now(entries)

    def _apply_now(self, entries: Sequence[LogEntry]) -> None:
        batch = []
        last: LogEntry | None = None
        number = self._delivered.index
        for entry in entries:
            last = entry
            if entry.kind is EntryKind.COMMAND:
                number += 1
                batch.append(_new(Committed, (entry.term, number, decode_proposal(entry.data))))
        if last is None:
            return
        if batch:
            if self._request_of:
                self._settle_forwarded(batch)
            failpoints.hit("apply.before")
            self._host.committed(batch)
            failpoints.hit("apply.after")
            for item in batch:
                if item.proposal.clock_ms > self._clock_ms:
                    self._clock_ms = item.proposal.clock_ms
            newest = batch[-1]
            self._delivered = Position(newest.index, newest.term, self._clock_ms, self._group_id)
        self.core.applied(last.index)
        if self._placed:
            self._settle_placed(last.index)
        if self._forwarded:
            self._drop_forwards_before(last.term)

    def _settle_placed(self, applied_index: int) -> None:
        """A place in the log that went to another entry: that proposal was certainly dropped."""
        waiting = []
        for placed in self._placed:
            if placed.index > applied_index:
                waiting.append(placed)
            elif self.core.log.has(placed.index, placed.term):
                continue  # it was applied and its caller has the result
            else:
                self._host.dropped(
                    placed.id, ProposalDropped("another leader's entry took its place")
                )
        self._placed = waiting

    def _settle_forwarded(self, batch: Iterable[Committed]) -> None:
        """What this node forwarded and now applies needs no other outcome."""
        proposer = self._proposer
        for item in batch:
            identity = item.proposal.id
            if identity.incarnation != proposer.incarnation or identity.member != proposer.member:
                continue
            request = self._request_of.pop(identity.sequence, None)
            if request is not None:
                ids = self._forwarded[request].ids
                del ids[identity.sequence]
                if not ids:
                    del self._forwarded[request]

    def _install(self, snapshot: SnapshotMeta) -> None:
        """The core took a snapshot: first the log makes way for it, then the machine."""
        stored = self._received
        if stored is None or stored.raft != snapshot:
            raise DataDamaged(f"the data of the snapshot at index {snapshot.index} is missing")
        self.outgoing.release_kept()  # what they are of is about to be replaced
        self._wal.start_over(_base_of(snapshot, stored.command_index), self.core.hard_state)
        self._numbers = CommandIndex(snapshot.index, stored.command_index)
        position = Position(stored.command_index, snapshot.term, stored.clock_ms, self._group_id)
        steps = chain(
            self.snapshots.verify_steps(snapshot),
            self._host.restore_steps(position, self.snapshots.contents(snapshot)),
        )
        self._restore = Restore(steps, position)
        # Whether these are inside the snapshot nobody can tell.
        covered, self._placed = self._placed, []
        for placed in covered:
            self._host.dropped(placed.id, OutcomeUnknown("a snapshot took this log's place"))
        for request in list(self._forwarded):
            self._forget_forward(request)

    def _drop_forwards_before(self, term: int) -> None:
        """What leaders of earlier terms took and committed is applied by now; the rest never is.

        An entry of ``term`` is applied here. Whatever was committed before it stands before it in
        the log; what an older leader appends, or has appended elsewhere, cannot be committed any
        more, and leaders of this term or a later one do not take what was sent in an older one.
        """
        for request, forward in list(self._forwarded.items()):
            if forward.term >= term:
                return
            self._end_forward(
                request, ProposalDropped("the leader that it was sent to was replaced before")
            )

    def _forget_old_forwards(self) -> None:
        sent_before = self.core.now_ticks - self._forward_ticks_max
        while self._forwarded:
            request, oldest = next(iter(self._forwarded.items()))
            if oldest.sent_tick > sent_before:
                return
            self._forget_forward(request)

    def _forget_forward(self, request: int) -> None:
        self._end_forward(
            request, OutcomeUnknown("the leader that the proposal was sent to gave no answer")
        )

    def _end_forward(self, request: int, error: ConsensusError) -> None:
        forward = self._forwarded.pop(request, None)
        if forward is None:
            return
        for sequence, identity in forward.ids.items():
            del self._request_of[sequence]
            self._host.dropped(identity, error)

    def _resolve_reads(self) -> None:
        if self._restore is not None:
            return
        waiting = []
        for index, done in self._confirmed_reads:
            if index <= self.core.applied_index:
                done(self._delivered.index)
            else:
                waiting.append((index, done))
        self._confirmed_reads = waiting

    def _meta_at(self, position: Position) -> StoredMeta:
        place = self._numbers.place_of(position.index)
        configuration = configuration_at(self.core, place)
        return StoredMeta(
            SnapshotMeta(place, position.term, configuration), position.index, position.clock_ms
        )

    def _drop(self, proposals: Sequence[Proposal], error: ConsensusError) -> None:
        for proposal in proposals:
            self._host.dropped(proposal.id, error)


def _joins(snapshot: SnapshotMeta, recovered: Recovered) -> bool:
    """Whether a log goes on from a snapshot, or begins after it."""
    return (
        snapshot.index <= recovered.base.index or recovered.term_at(snapshot.index) == snapshot.term
    )


def _base_of(meta: SnapshotMeta, command_index: int) -> Base:
    return Base(meta.index, meta.term, command_index, meta.configuration.encode())
