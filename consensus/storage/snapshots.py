"""Snapshot files: written aside, checked, and put in place in one step.

    magic, version, group, length of meta, meta (JSON), crc32c of all this
    data
    sha256 of everything before it

A file is written under a temporary name of its own, synced, renamed to ``INDEX-TERM.snap``, and the
directory is synced. Whatever still has a temporary name at start-up was never finished and is
removed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs

from consensus import failpoints
from consensus.errors import DataDamaged, StorageError
from consensus.raft.configuration import Configuration
from consensus.raft.messages import SnapshotMeta
from consensus.storage.files import File, FileSystem
from consensus.storage.records import crc32c

MAGIC: Final = b"RAFTYARD-SNAP\n\0\0"
FORMAT_VERSION: Final = 1
READ_BYTES: Final = 256 * 1024
SYNC_BYTES: Final = 2 * 1024 * 1024
"""Bytes written between two syncs, so that the last one does not hold the loop for seconds."""

_HEAD: Final = struct.Struct("<16sIII")
_CHECKSUM_BYTES: Final = 4
_DIGEST_BYTES: Final = 32
_NAME: Final = re.compile(r"^(\d{20})-(\d{20})\.snap$")
_TEMPORARY: Final = re.compile(r"\.tmp$")


@attrs.frozen(slots=True)
class StoredMeta:
    """Where a stored snapshot stands, in entries and in commands, and the log's clock there."""

    raft: SnapshotMeta
    command_index: int
    clock_ms: int


class SnapshotWriter:
    """One snapshot being written. Call ``write`` for each chunk, then ``finish`` or ``abort``."""

    def __init__(self, files: FileSystem, meta: StoredMeta, group_id: int, number: int) -> None:
        self._files = files
        failpoints.hit("snapshot.before_write")
        self._name = file_name(meta.raft)
        self._temporary = f"{self._name}.{number}.tmp"
        self._file = files.open(self._temporary)
        self._file.resize(0)
        self._offset = self._synced = 0
        self._digest = hashlib.sha256()
        encoded = json.dumps(
            {
                "index": meta.raft.index,
                "term": meta.raft.term,
                "command_index": meta.command_index,
                "clock_ms": meta.clock_ms,
                "configuration": meta.raft.configuration.encode().decode(),
            },
            sort_keys=True,
        ).encode()
        head = _HEAD.pack(MAGIC, FORMAT_VERSION, group_id, len(encoded)) + encoded
        self.write(head + crc32c(head).to_bytes(_CHECKSUM_BYTES, "little"))

    def write(self, data: bytes) -> None:
        """Add a piece."""
        self._file.write(self._offset, data)
        self._offset += len(data)
        self._digest.update(data)
        if self._offset - self._synced >= SYNC_BYTES:
            self._file.sync()
            self._synced = self._offset

    def finish(self) -> None:
        """Make the snapshot durable and let it take its place."""
        self._file.write(self._offset, self._digest.digest())
        failpoints.hit("snapshot.before_sync")
        self._file.sync()
        self._file.close()
        failpoints.hit("snapshot.before_rename")
        self._files.rename(self._temporary, self._name)
        failpoints.hit("snapshot.after_rename")
        self._files.sync_names()

    def abort(self) -> None:
        """Forget it."""
        self._file.close()
        self._files.remove(self._temporary)


class SnapshotStore:
    """The snapshots of one member, newest last."""

    def __init__(self, files: FileSystem, *, group_id: int = 0) -> None:
        self._files = files
        self._group_id = group_id
        self._writers = itertools.count(1)

    def open(self) -> None:
        """Remove what a crash left unfinished."""
        for name in self._files.names():
            if _TEMPORARY.search(name):
                self._files.remove(name)

    def writer(self, meta: StoredMeta) -> SnapshotWriter:
        """Begin a snapshot. Several may be written at once, even of one index."""
        return SnapshotWriter(self._files, meta, self._group_id, next(self._writers))

    def newest(self) -> StoredMeta | None:
        """Return where the newest whole snapshot stands; None where there is none.

        Raises:
            DataDamaged: what the newest one says of itself cannot be read.
            StorageError: it is of another group or a newer version.
        """
        names = [name for name in self._files.names() if _NAME.match(name)]
        return self._read_meta(names[-1]) if names else None

    def clear(self) -> None:
        """Remove every snapshot: the log does not go on from any of them."""
        for name in self._files.names():
            self._files.remove(name)
        self._files.sync_names()

    def chunks(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """Yield the data of a snapshot, after its checksum was verified.

        Raises:
            DataDamaged: the file is missing, does not match its checksum, or cannot be read.
        """
        self.verify(meta)
        yield from self.contents(meta)

    def contents(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """Yield the data of a snapshot that was verified.

        Raises:
            DataDamaged: the file is missing, or cannot be read.
        """
        with self._reading(file_name(meta)) as file:
            start, _ = self._read_head(file)
            end = file.size() - _DIGEST_BYTES
            for offset in range(start, end, READ_BYTES):
                yield file.read(offset, min(READ_BYTES, end - offset))

    def remove_before(self, index: int) -> None:
        """Remove every snapshot that stands before ``index``."""
        removed = False
        for name in self._files.names():
            match = _NAME.match(name)
            if match and int(match[1]) < index:
                self._files.remove(name)
                removed = True
        if removed:
            self._files.sync_names()

    def verify(self, meta: SnapshotMeta) -> None:
        """Check a whole snapshot.

        Raises:
            DataDamaged: the file is missing, does not match its checksum, or cannot be read.
        """
        for _ in self.verify_steps(meta):
            pass

    def verify_steps(self, meta: SnapshotMeta) -> Iterator[None]:
        """Do what ``verify`` does in steps of a millisecond or so."""
        with self._reading(file_name(meta)) as file:
            head, _ = self._read_head(file)
            digest = hashlib.sha256()
            end = file.size() - _DIGEST_BYTES
            for offset in range(0, end, READ_BYTES):
                digest.update(file.read(offset, min(READ_BYTES, end - offset)))
                yield
            if end < head or file.read(end, _DIGEST_BYTES) != digest.digest():
                raise ValueError("it does not match its checksum")

    def _read_meta(self, name: str) -> StoredMeta:
        """Return what a file says of itself; its name says the same, or it is not that file."""
        with self._reading(name) as file:
            _, fields = self._read_head(file)
            configuration = Configuration.decode(fields["configuration"].encode())
            raft = SnapshotMeta(fields["index"], fields["term"], configuration)
            if file_name(raft) != name:
                raise ValueError(f"it is of index {raft.index} and term {raft.term}")
        return StoredMeta(raft, fields["command_index"], fields["clock_ms"])

    def _read_head(self, file: File) -> tuple[int, dict[str, Any]]:
        """Return where the data starts, and the meta data."""
        head = file.read(0, _HEAD.size)
        if len(head) < _HEAD.size:
            raise ValueError("it is too short")
        magic, version, group, length = _HEAD.unpack(head)
        if magic != MAGIC:
            raise ValueError("it is not a snapshot")
        meta = file.read(_HEAD.size, length)
        checksum = file.read(_HEAD.size + length, _CHECKSUM_BYTES)
        if crc32c(head + meta) != int.from_bytes(checksum, "little"):
            raise ValueError("its beginning does not match its checksum")
        if version != FORMAT_VERSION:
            raise StorageError(
                f"a snapshot has format version {version}; this program reads {FORMAT_VERSION}"
            )
        if group != self._group_id:
            raise StorageError(
                f"a snapshot belongs to group {group}, not to group {self._group_id}"
            )
        return _HEAD.size + length + _CHECKSUM_BYTES, json.loads(meta)

    @contextmanager
    def _reading(self, name: str) -> Iterator[File]:
        """Open a snapshot's file, and say which one it is where it cannot be read."""
        if name not in self._files.names():
            raise DataDamaged(f"snapshot {name} is missing")
        try:
            file = self._files.open(name)
            try:
                yield file
            finally:
                file.close()
        except (OSError, ValueError) as error:
            raise DataDamaged(f"snapshot {name} cannot be used: {error}") from error


def file_name(meta: SnapshotMeta) -> str:
    """Return the name of a snapshot's file; names sort by index."""
    return f"{meta.index:020d}-{meta.term:020d}.snap"
