"""A data directory that does not begin empty: from a backup, or from another engine's log.

The directory gets an optional snapshot that its log goes on from, the entries after it, and the
term and vote. Nobody may use the directory meanwhile. Of a new group every member must get the same
snapshot; of a group that is taken over, each its own log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from consensus.raft.configuration import Configuration
from consensus.raft.messages import LogEntry, SnapshotMeta
from consensus.raft.ready import HardState
from consensus.storage.directory import DataDirectory
from consensus.storage.files import RealFileSystem
from consensus.storage.records import Base, Record
from consensus.storage.snapshots import SnapshotStore, StoredMeta
from consensus.storage.wal import WriteAheadLog
from consensus.types import NodeId

GROUP_ID: Final = 0
"""The only group of a directory; everything on disk and on the wire names it."""

DIRECTORY_VERSION: Final = 1
"""Of the layout of a data directory."""

LOG_FILES: Final = "wal/*.wal"
WRITE_BYTES: Final = 1024 * 1024
"""Entries written with one sync."""

FIRST_INDEX: Final = 1
FIRST_TERM: Final = 1


@attrs.frozen(slots=True)
class Beginning:
    """What a log begins with.

    Args:
        snapshot: where the snapshot stands, and its data; None for a log from the first entry.
        entries: what follows it, in order.
        term, voted_for: as the member last promised.
    """

    snapshot: tuple[StoredMeta, Iterable[bytes]] | None
    entries: Iterable[LogEntry] = ()
    term: int = FIRST_TERM
    voted_for: NodeId | None = None


def directory_identity(cluster: str, node_id: NodeId) -> dict[str, Any]:
    """Return what a data directory of this member says of itself."""
    return {
        "engine": "native",
        "version": DIRECTORY_VERSION,
        "cluster": cluster,
        "member": node_id,
        "group_id": GROUP_ID,
    }


def from_backup(
    members: Mapping[NodeId, str], contexts: Mapping[NodeId, bytes], chunks: Iterable[bytes]
) -> Beginning:
    """Return how each member of a new group begins with a machine's snapshot.

    The snapshot counts as one command: a machine at index 0 has applied nothing.

    Args:
        members: the founding members' addresses, "host:port".
        contexts: what the program on top keeps with them.
        chunks: the machine's snapshot.
    """
    meta = SnapshotMeta(FIRST_INDEX, FIRST_TERM, Configuration.founded(members, contexts))
    return Beginning((StoredMeta(meta, command_index=FIRST_INDEX, clock_ms=0), chunks))


def write_beginning(
    directory: Path, cluster: str, node_id: NodeId, beginning: Beginning
) -> tuple[int, int]:
    """Make an empty ``directory`` this member's, durable at the end, and read it back.

    Returns:
        index and term of the last entry, or of the snapshot where none follows.

    Raises:
        StorageError: the directory is in use or somebody else's, or the disk failed; also where
            what was written does not read back. What ``chunks`` raises passes through.
    """
    data = DataDirectory(directory, directory_identity(cluster, node_id), data=LOG_FILES)
    try:
        store = SnapshotStore(RealFileSystem(directory / "snap"), group_id=GROUP_ID)
        log = WriteAheadLog(RealFileSystem(directory / "wal"), group_id=GROUP_ID)
        log.open()
        try:
            hard_state = HardState(beginning.term, beginning.voted_for)
            if beginning.snapshot is not None:
                meta, chunks = beginning.snapshot
                _write_snapshot(store, meta, chunks)
                base = Base(
                    meta.raft.index,
                    meta.raft.term,
                    meta.command_index,
                    meta.raft.configuration.encode(),
                )
                log.start_over(base, hard_state)
            for records in _batches(beginning.entries):
                log.append(records)
            log.append([hard_state])
        finally:
            log.close()
        return _read_back(directory, store)
    finally:
        data.close()


def _write_snapshot(store: SnapshotStore, meta: StoredMeta, chunks: Iterable[bytes]) -> None:
    writer = store.writer(meta)
    try:
        for chunk in chunks:
            writer.write(chunk)
    except BaseException:
        writer.abort()
        raise
    writer.finish()


def _batches(entries: Iterable[LogEntry]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += len(entry.data)
        if size >= WRITE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_back(directory: Path, store: SnapshotStore) -> tuple[int, int]:
    """Check every checksum; return where the log ends."""
    newest = store.newest()
    if newest is not None:
        store.verify(newest.raft)
    log = WriteAheadLog(RealFileSystem(directory / "wal"), group_id=GROUP_ID)
    recovered = log.open()
    log.close()
    return recovered.last_index, recovered.term_at(recovered.last_index) or 0
