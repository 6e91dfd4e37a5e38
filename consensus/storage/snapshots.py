"""Snapshot files: written aside, checked, and put in place in one step.

    magic, version, group, length of meta, meta (JSON)
    data
    sha256 of everything before it

A file is written under a temporary name, synced, renamed to ``INDEX-TERM.snap``, and the directory
is synced. Whatever still has a temporary name at start-up was never finished and is removed.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator
from typing import Final

import attrs

from consensus.errors import StorageError
from consensus.raft.configuration import Configuration
from consensus.raft.messages import SnapshotMeta
from consensus.storage.files import File, FileSystem

MAGIC: Final = b"RAFTYARD-SNAP\n\0\0"
FORMAT_VERSION: Final = 1
READ_BYTES: Final = 256 * 1024

_HEAD: Final = struct.Struct("<16sIII")
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

    def __init__(self, files: FileSystem, meta: StoredMeta, group_id: int) -> None:
        self._files = files
        self._name = file_name(meta.raft)
        self._temporary = f"{self._name}.tmp"
        self._file = files.open(self._temporary)
        self._file.resize(0)
        self._offset = 0
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
        self.write(_HEAD.pack(MAGIC, FORMAT_VERSION, group_id, len(encoded)) + encoded)

    def write(self, data: bytes) -> None:
        """Add a piece."""
        self._file.write(self._offset, data)
        self._offset += len(data)
        self._digest.update(data)

    def finish(self) -> None:
        """Make the snapshot durable and let it take its place."""
        self._file.write(self._offset, self._digest.digest())
        self._file.sync()
        self._file.close()
        self._files.rename(self._temporary, self._name)
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

    def open(self) -> None:
        """Remove what a crash left unfinished."""
        for name in self._files.names():
            if _TEMPORARY.search(name):
                self._files.remove(name)

    def writer(self, meta: StoredMeta) -> SnapshotWriter:
        """Begin a snapshot."""
        return SnapshotWriter(self._files, meta, self._group_id)

    def newest(self) -> StoredMeta | None:
        """Return where the newest whole snapshot stands; None where there is none.

        Raises:
            StorageError: the newest one is damaged or of another group.
        """
        names = [name for name in self._files.names() if _NAME.match(name)]
        return self._read_meta(names[-1]) if names else None

    def chunks(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """Yield the data of a snapshot, after its checksum was verified.

        Raises:
            StorageError: the file does not match its checksum.
        """
        name = file_name(meta)
        start, end = self.verify(name)
        file = self._files.open(name)
        try:
            for offset in range(start, end, READ_BYTES):
                yield file.read(offset, min(READ_BYTES, end - offset))
        finally:
            file.close()

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

    def verify(self, name: str) -> tuple[int, int]:
        """Check a file's digest; return where its data starts and ends."""
        file = self._files.open(name)
        try:
            size = file.size()
            digest = hashlib.sha256()
            end = size - digest.digest_size
            for offset in range(0, max(end, 0), READ_BYTES):
                digest.update(file.read(offset, min(READ_BYTES, end - offset)))
            if end < _HEAD.size or file.read(end, digest.digest_size) != digest.digest():
                raise StorageError(f"snapshot {name} does not match its checksum")
            return _HEAD.size + self._meta_length(file, name), end
        finally:
            file.close()

    def _read_meta(self, name: str) -> StoredMeta:
        file = self._files.open(name)
        try:
            length = self._meta_length(file, name)
            fields = json.loads(file.read(_HEAD.size, length))
        except ValueError as error:
            raise StorageError(f"snapshot {name} is damaged: {error}") from error
        finally:
            file.close()
        configuration = Configuration.decode(fields["configuration"].encode())
        raft = SnapshotMeta(fields["index"], fields["term"], configuration)
        return StoredMeta(raft, fields["command_index"], fields["clock_ms"])

    def _meta_length(self, file: File, name: str) -> int:
        head = file.read(0, _HEAD.size)
        if len(head) < _HEAD.size:
            raise StorageError(f"snapshot {name} is too short")
        magic, version, group, length = _HEAD.unpack(head)
        if magic != MAGIC or version != FORMAT_VERSION:
            raise StorageError(f"snapshot {name} is not of format version {FORMAT_VERSION}")
        if group != self._group_id:
            raise StorageError(f"snapshot {name} belongs to group {group}")
        return int(length)


def file_name(meta: SnapshotMeta) -> str:
    """Return the name of a snapshot's file; names sort by index."""
    return f"{meta.index:020d}-{meta.term:020d}.snap"
