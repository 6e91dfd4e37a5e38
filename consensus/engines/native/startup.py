"""Start-up: where the log, the snapshots and the machine on this member's disk stand together.

What is on disk is some of: a log with a base, a snapshot file, a machine with a position. The
machine may go on if the log confirms its position; otherwise it is rebuilt from the snapshot file
and the log (see ``Engine.start`` for the rule). What is damaged is left to the other members to
bring back, where there are others (see ``repair``).
"""

from __future__ import annotations

import random

import attrs

from consensus.engine import EngineHost
from consensus.engines.native.commands import CommandIndex
from consensus.engines.native.repair import abstain, from_nothing, open_log
from consensus.errors import DataDamaged
from consensus.raft.config import CoreConfig
from consensus.raft.configuration import Configuration
from consensus.raft.core import Core
from consensus.raft.log import RaftLog
from consensus.raft.membership import stand_alone
from consensus.raft.messages import SnapshotMeta
from consensus.raft.ready import HardState
from consensus.storage.records import Base
from consensus.storage.recovery import Recovered
from consensus.storage.snapshots import SnapshotStore, StoredMeta
from consensus.storage.wal import WriteAheadLog
from consensus.types import Position


@attrs.frozen(slots=True)
class Started:
    """Where a member begins.

    ``delivered`` is where its machine stands, ``numbers`` counts the log's commands, ``damage``
    says what was found damaged and is being repaired; empty: nothing.
    """

    core: Core
    numbers: CommandIndex
    delivered: Position
    damage: str
    torn_bytes: int


class StartUp:
    """Settles what is on disk, once.

    Args:
        config: the core's settings.
        wal: the log, not open yet.
        snapshots: the snapshot files.
        host: the node, whose machine may have to be rebuilt.
        bootstrap: the group's first configuration, for a member with an empty disk.
        prng: the source of election timeouts.
        group_id: the group's number.
    """

    def __init__(
        self,
        config: CoreConfig,
        wal: WriteAheadLog,
        snapshots: SnapshotStore,
        host: EngineHost,
        bootstrap: Configuration,
        prng: random.Random,
        group_id: int,
    ) -> None:
        self._config = config
        self._wal = wal
        self._snapshots = snapshots
        self._host = host
        self._bootstrap = bootstrap
        self._prng = prng
        self._group_id = group_id
        self._numbers: CommandIndex
        self._delivered: Position

    def run(self, distrust: str, *, alone: bool) -> Started:
        """Open the log and settle everything.

        Args:
            distrust: why the machine must be rebuilt from the other members; empty: it need not be.
            alone: go on as the only member of the group (see ``membership.stand_alone``).

        Raises:
            DataDamaged: what is on disk cannot be used, and the other members cannot help.
            InvalidConfiguration: what is on disk is of no group that could be.
            StorageError, OSError: the disk failed.
        """
        recovered, damage = open_log(self._wal, self._bootstrap)
        torn_bytes = recovered.torn_bytes
        abstain(self._wal, recovered, self._config.node_id)
        try:
            if distrust:
                raise DataDamaged(distrust)
            base = self._settle(recovered)
        except DataDamaged as error:
            damage = f"{damage}; {error}" if damage else str(error)
            recovered = from_nothing(self._wal, recovered, self._bootstrap, error)
            if distrust:
                self._host.discard(distrust)
            self._snapshots.clear()
            base = self._settle(recovered)
        entries = [entry for entry in recovered.entries if entry.index > base.index]
        core = self._new_core(RaftLog(base, entries), recovered.hard_state)
        if alone:
            core = self._stand_alone(core)
        return Started(core, self._numbers, self._delivered, damage, torn_bytes)

    def _new_core(self, log: RaftLog, hard_state: HardState) -> Core:
        """Return a core whose machine stands where this one does.

        What the machine has on disk may end within an entry. That entry was committed, so its rest
        is handed out first of all: a machine never stands within an entry for longer.
        """
        delivered = self._delivered.index
        begun = self._numbers.place_of(delivered)
        return Core(
            self._config,
            log,
            attrs.evolve(hard_state, commit_index=max(hard_state.commit_index, begun)),
            self._prng,
            applied_index=self._numbers.place_covered_by(delivered),
        )

    def _stand_alone(self, core: Core) -> Core:
        """Make this member the only one, durably, before it takes part in anything."""
        step = stand_alone(core)
        if step is None:
            return core
        entry, hard_state = step
        self._wal.append([entry, hard_state])
        self._numbers.append([entry])
        log = core.log
        entries = [*log.slice(log.first_index, log.last_index + 1), entry]
        return self._new_core(RaftLog(log.snapshot, entries), hard_state)

    def _settle(self, recovered: Recovered) -> SnapshotMeta:
        """Decide where the machine stands and what the log continues from."""
        if not recovered.base.configuration:
            # From its first start on a member knows its group's members from its own disk alone.
            recovered.base = Base(0, 0, 0, self._bootstrap.encode())
            self._wal.append([recovered.base])
        position = self._host.position()
        base = recovered.base
        stored, unusable = self._newest_snapshot(recovered)
        if stored is not None and not _joins(stored.raft, recovered):
            # A snapshot was received and the crash came before the log made way for it: what the
            # log has there, or lacks, was never committed.
            base = base_of(stored.raft, stored.command_index)
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
            self._snapshots.verify(stored.raft)
            position = Position(
                stored.command_index, stored.raft.term, stored.clock_ms, self._group_id
            )
            for _ in self._host.restore_steps(position, self._snapshots.contents(stored.raft)):
                pass
        self._delivered = position
        return SnapshotMeta(base.index, base.term, Configuration.decode(base.configuration))

    def _newest_snapshot(self, recovered: Recovered) -> tuple[StoredMeta | None, str]:
        """Return the newest snapshot, verified if it is to take the log's place; or what is wrong.

        One that the log does not go on from was never acknowledged: damaged, it does not matter.
        """
        try:
            stored = self._snapshots.newest()
            if stored is not None and not _joins(stored.raft, recovered):
                self._snapshots.verify(stored.raft)
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


def _joins(snapshot: SnapshotMeta, recovered: Recovered) -> bool:
    """Whether a log goes on from a snapshot, or begins after it."""
    return (
        snapshot.index <= recovered.base.index or recovered.term_at(snapshot.index) == snapshot.term
    )


def base_of(meta: SnapshotMeta, command_index: int) -> Base:
    """Return the record with which a log begins that goes on from a snapshot."""
    return Base(meta.index, meta.term, command_index, meta.configuration.encode())
