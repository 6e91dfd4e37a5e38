"""Cores and disks in a state that a test wants, without a run that leads there."""

from __future__ import annotations

import random
from collections.abc import Sequence

from chaos.sim.disk import SimDisk, SimFileSystem
from consensus.raft.config import CoreConfig
from consensus.raft.configuration import Configuration
from consensus.raft.core import Core
from consensus.raft.log import RaftLog
from consensus.raft.messages import EntryKind, LogEntry, SnapshotMeta
from consensus.raft.ready import HardState
from consensus.storage.records import Base
from consensus.storage.wal import WriteAheadLog
from consensus.types import Committed, Proposal, ProposalId, Role

THREE = Configuration.of(("n1", "n2", "n3"))


def log_entries(terms: Sequence[int], text: str = "c") -> list[LogEntry]:
    """Return commands with these terms at 1, 2, 3, ..."""
    return [
        LogEntry(index, term, EntryKind.COMMAND, f"{text}{index}".encode())
        for index, term in enumerate(terms, 1)
    ]


def core_with(
    name: str,
    terms: Sequence[int] = (),
    *,
    term: int = 1,
    commit: int = 0,
    role: Role = Role.FOLLOWER,
) -> Core:
    """Return a member of three with these terms in its log."""
    core = Core(
        CoreConfig(node_id=name),
        RaftLog(SnapshotMeta(0, 0, THREE), log_entries(terms)),
        HardState(term, None, commit),
        random.Random(1),
    )
    core.role = role
    return core


def disk_with(terms: Sequence[int], hard_state: HardState, base: Base | None = None) -> SimDisk:
    """Return a disk with a log on it: ``files_of`` has the directory."""
    disk = SimDisk(random.Random(1))
    wal = WriteAheadLog(disk.directory(), segment_bytes=16 * 1024)
    wal.open()
    if base is not None:
        wal.append([base])
    first = base.index if base is not None else 0
    wal.append([*log_entries(terms)[first:], hard_state])
    return disk


def files_of(disk: SimDisk) -> SimFileSystem:
    """Return a disk's first directory."""
    return disk.systems[0]


def committed(index: int, command: bytes, term: int = 1, clock_ms: int = 5) -> Committed:
    """Return a committed command."""
    return Committed.of(term, index, [Proposal(ProposalId(1, 1, index), clock_ms, command)])
