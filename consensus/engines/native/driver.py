"""The driver: one member's core, log and machine, tied together, without a clock or a socket.

The engine's asyncio shell (and the simulator) calls ``tick``, ``receive``, ``propose`` and so on,
and then ``pump``, which does all that the core asks for in the order that ``Ready`` prescribes:
send what promises nothing, write and sync the log, send what promises, apply what is committed.

The sync is done inline. That costs the loop a fraction of a millisecond a batch, and a disk that
stalls stops this member's heartbeats by itself, so that another can lead.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from typing import Final

from consensus import failpoints
from consensus.engine import EngineHost
from consensus.engines.native.batches import decode_batch
from consensus.engines.native.commands import CommandIndex
from consensus.engines.native.gathering import Gathering
from consensus.engines.native.incoming import IncomingSnapshots
from consensus.engines.native.outgoing import KEPT_ELECTION_TIMEOUTS, OutgoingSnapshots
from consensus.engines.native.proposals import FORWARD_TIMEOUTS_MAX, Proposals
from consensus.engines.native.restore import Restore
from consensus.engines.native.startup import StartUp, base_of
from consensus.errors import DataDamaged, ReadFailed, StorageError
from consensus.raft.config import CoreConfig
from consensus.raft.configuration import Configuration, InvalidConfiguration
from consensus.raft.invariants import check
from consensus.raft.membership import configuration_at
from consensus.raft.messages import (
    AnyMessage,
    EntryKind,
    InstallSnapshot,
    LogEntry,
    Propose,
    SnapshotMeta,
)
from consensus.raft.ready import Ready
from consensus.statemachine import StateSnapshot
from consensus.storage.files import FileSystem
from consensus.storage.records import Record
from consensus.storage.snapshots import SnapshotStore, SnapshotWriter, StoredMeta
from consensus.storage.wal import SEGMENT_BYTES, WriteAheadLog
from consensus.types import MemberChange, NodeId, Position, Proposal

CATCH_UP_ENTRIES: Final = 5_000
"""Commands kept behind a snapshot, so that a member that was briefly away needs no snapshot."""

ReadDone = Callable[[int | None], None]


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
        start = StartUp(config, self._wal, self.snapshots, host, bootstrap, prng, group_id)
        try:
            started = start.run(distrust, alone=alone)
        except InvalidConfiguration as error:
            self._wal.close()
            raise StorageError(str(error)) from error
        except BaseException:
            self._wal.close()
            raise
        self.core = started.core
        self.damage = started.damage
        self.torn_bytes = started.torn_bytes
        self._numbers = started.numbers
        self._delivered = started.delivered
        self._clock_ms = self._delivered.clock_ms
        self._pumping = False
        # Numbers of an earlier life must not come again: the leader may remember them.
        self._requests = count((int(incarnation) << 32) + 1)
        self._proposals = Proposals(
            self.core,
            host,
            self._requests,
            FORWARD_TIMEOUTS_MAX * config.election_timeout_ticks,
        )
        self._gathering = Gathering(self.core, self._proposals.propose)
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
            lambda place: self._numbers.command_at(place),
        )

    # -- inputs -------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one tick of time pass."""
        self.core.tick()
        self._gathering.release()
        self.outgoing.tick()
        self.incoming.discard_covered()
        self._proposals.tick()

    def receive(self, message: AnyMessage) -> None:
        """Take in a message of another member."""
        if isinstance(message, InstallSnapshot):
            raise TypeError("a snapshot comes through receive_snapshot, with its data")
        if isinstance(message, Propose):
            self._gathering.receive(message)
        else:
            self.core.step(message)

    def receive_snapshot(self, message: InstallSnapshot, stored: StoredMeta) -> None:
        """Take in a snapshot whose data is in the snapshot store already."""
        self._received = stored
        self.core.step(message)

    def propose(self, proposals: Sequence[Proposal]) -> None:
        """Append proposals, or forward them to the leader, or say that neither can be.

        A leader may hold them back: see ``holds_proposals``.
        """
        self._gathering.propose(proposals)

    @property
    def holds_proposals(self) -> bool:
        """Whether proposals wait for a round that is under way: see ``release_proposals``."""
        return self._gathering.holds

    def release_proposals(self) -> None:
        """Hold proposals back no longer. Call it ``GATHER_S`` after a ``pump`` that left some."""
        self._gathering.release()

    def change_members(self, changes: Sequence[MemberChange]) -> int:
        """As ``Core.change_members``, behind what was proposed before."""
        self._gathering.release()
        return self.core.change_members(changes)

    def transfer_leadership(self, target: NodeId) -> None:
        """As ``Core.transfer_leadership``, behind what was proposed before."""
        self._gathering.release()
        self.core.transfer_leadership(target)

    def read_index(self, done: ReadDone) -> None:
        """Call ``done`` with an applied index that is safe to read at, or None if it failed."""
        request = next(self._requests)
        self._reads[request] = done
        if not self.core.read_index(request):
            del self._reads[request]
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
            while True:
                self._gathering.release_if_due()
                if not self.core.has_ready:
                    break
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
    def log_commands(self) -> int:
        """How many applied commands the log still holds."""
        core, numbers = self.core, self._numbers
        return numbers.command_at(core.applied_index) - numbers.command_at(core.log.snapshot.index)

    @property
    def wants_compaction(self) -> bool:
        """Whether the log has grown past its bound, and has whole entries beyond what is kept."""
        kept = self._catch_up_entries + self.outgoing.held_commands
        if self.log_commands < self._snapshot_entries + kept or self.restoring:
            return False
        shortened = self._numbers.place_covered_by(self._delivered.index - kept)
        return shortened > self.core.log.snapshot.index

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
        held = self._catch_up_entries + self.outgoing.held_commands
        place = self._numbers.place_covered_by(min(covered_command, self._delivered.index - held))
        if place <= self.core.log.snapshot.index:
            return
        command = self._numbers.command_at(place)
        covered_place = self._numbers.place_covered_by(covered_command)
        meta = self.core.compact(place)
        self._numbers.rebase(place)
        self._wal.append([base_of(meta, command), self.core.hard_state])
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
            self._apply_now(restore.take_held())
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
            self._proposals.rejected(request)
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
        if not entries:
            return
        batch = []
        number = self._numbers.command_at(entries[0].index - 1) + 1
        for _, term, kind, data in entries:
            if kind is EntryKind.COMMAND:
                committed = decode_batch(data, term, number)
                number += len(committed.commands)
                batch.append(committed)
        last = entries[-1]
        if batch and batch[0].index <= self._delivered.index:
            # What the machine had on disk ends within an entry: it is not given that part again.
            batch[0] = batch[0].after(self._delivered.index)
        if batch:
            self._proposals.committed(batch)
            failpoints.hit("apply.before")
            self._host.committed(batch)
            failpoints.hit("apply.after")
            newest = batch[-1]
            self._clock_ms = max(self._clock_ms, *[max(item.clocks_ms) for item in batch])
            self._delivered = Position(
                newest.last_index, newest.term, self._clock_ms, self._group_id
            )
        self.core.applied(last.index)
        self._proposals.applied(last.index, last.term)

    def _install(self, snapshot: SnapshotMeta) -> None:
        """The core took a snapshot: first the log makes way for it, then the machine."""
        stored = self._received
        if stored is None or stored.raft != snapshot:
            raise DataDamaged(f"the data of the snapshot at index {snapshot.index} is missing")
        self.outgoing.release_kept()  # what they are of is about to be replaced
        self._wal.start_over(base_of(snapshot, stored.command_index), self.core.hard_state)
        self._numbers = CommandIndex(snapshot.index, stored.command_index)
        position = Position(stored.command_index, snapshot.term, stored.clock_ms, self._group_id)
        steps = chain(
            self.snapshots.verify_steps(snapshot),
            self._host.restore_steps(position, self.snapshots.contents(snapshot)),
        )
        self._restore = Restore(steps, position)
        self._proposals.superseded()

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
        check(self._numbers.command_at(place) == position.index, "a snapshot of half an entry")
        configuration = configuration_at(self.core, place)
        return StoredMeta(
            SnapshotMeta(place, position.term, configuration), position.index, position.clock_ms
        )
