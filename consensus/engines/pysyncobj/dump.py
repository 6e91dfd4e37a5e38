"""The file that holds a snapshot: what the log before it led to.

Layout: magic and version; a JSON header (position, group, members); the two log entries that the
snapshot ends with, as PySyncObj wants them; the machine's chunks; an end mark; a CRC32C of all
before it. The same bytes travel to a member that lags.

A dump is written aside in small pieces, each synced before the next so that no single sync is long,
and takes its predecessor's name only when all of it is on disk.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs
import google_crc32c

from consensus.engines.pysyncobj.journal import REMEDY, LogEntry
from consensus.errors import StorageError
from consensus.types import Position

DUMP_NAME: Final = "snapshot.dump"
"""The newest whole snapshot in a data directory."""

DUMP_MAGIC: Final = b"RYDUMP\x00\x01"
DUMP_SYNC_BYTES: Final = 1024 * 1024
"""A piece this large is synced before the next is written."""

READ_BYTES: Final = 256 * 1024

_LENGTH: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<QQI")  # index, term, length
_END: Final = _LENGTH.pack(0)


@attrs.frozen(slots=True)
class DumpHead:
    """What a dump says about itself.

    Args:
        position: of the machine in this dump; counts commands.
        last: the last log entry it holds the effect of.
        previous: the one before it.
        members: names, for a person who finds the file.
    """

    position: Position
    previous: LogEntry
    last: LogEntry
    members: tuple[str, ...]


def _encode_entry(entry: LogEntry) -> bytes:
    command, index, term = entry
    return _ENTRY.pack(index, term, len(command)) + command


class DumpWriter:
    """Writes one dump to ``path``; call ``finish`` or ``abandon`` at the end."""

    def __init__(self, path: Path, head: DumpHead) -> None:
        self.path = path
        self._file = path.open("wb")
        self._check = 0
        self._unsynced = 0
        position = head.position
        header = json.dumps(
            {
                "index": position.index,
                "term": position.term,
                "clock_ms": position.clock_ms,
                "group_id": position.group_id,
                "members": list(head.members),
            }
        ).encode()
        self._put(DUMP_MAGIC + _LENGTH.pack(len(header)) + header)
        self._put(_encode_entry(head.previous) + _encode_entry(head.last))

    def write(self, chunk: bytes) -> None:
        """Append one chunk of the machine's snapshot."""
        if chunk:
            self._put(_LENGTH.pack(len(chunk)) + chunk)

    def finish(self) -> None:
        """Write the end and the checksum, and sync."""
        self._put(_END)
        self._file.write(_LENGTH.pack(self._check))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Give up and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._check = int(google_crc32c.extend(self._check, data))
        self._unsynced += len(data)
        if self._unsynced >= DUMP_SYNC_BYTES:
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._unsynced = 0


class RunningCheck:
    """Checks a dump that arrives in pieces: the last four bytes are the checksum of the others."""

    def __init__(self) -> None:
        self._check = 0
        self._tail = b""

    def update(self, data: bytes) -> None:
        """Take the next piece."""
        data = self._tail + data
        self._check = int(google_crc32c.extend(self._check, data[: -_LENGTH.size]))
        self._tail = data[-_LENGTH.size :]

    def holds(self) -> bool:
        """Whether what was seen so far ends with its own checksum."""
        return self._tail == _LENGTH.pack(self._check)


class DumpReader:
    """Reads one dump. The file stays open, so that it may be replaced meanwhile.

    Raises:
        StorageError: the file is not a dump of this version, or ends too soon.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        try:
            self.head = self._read_head()
        except (ValueError, KeyError, struct.error) as error:
            self._file.close()
            raise StorageError(f"{path} is not a usable snapshot: {error}. {REMEDY}") from None
        self._body = self._file.tell()

    def verify_steps(self) -> Iterator[None]:
        """Check the whole file against its checksum, in steps.

        Raises:
            StorageError: it does not match.
        """
        check = RunningCheck()
        self._file.seek(0)
        while piece := self._file.read(READ_BYTES):
            check.update(piece)
            yield
        if not check.holds():
            raise StorageError(f"{self._path} is damaged: its checksum does not match. {REMEDY}")

    def chunks(self) -> Iterator[bytes]:
        """Yield the machine's chunks.

        Raises:
            StorageError: the file ends too soon.
        """
        self._file.seek(self._body)
        while length := self._read_length():
            chunk = self._file.read(length)
            if len(chunk) < length:
                raise StorageError(f"{self._path} ends too soon. {REMEDY}")
            yield chunk

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_length(self) -> int:
        data = self._file.read(_LENGTH.size)
        if len(data) < _LENGTH.size:
            raise StorageError(f"{self._path} ends too soon. {REMEDY}")
        return int(_LENGTH.unpack(data)[0])

    def _read_head(self) -> DumpHead:
        if self._file.read(len(DUMP_MAGIC)) != DUMP_MAGIC:
            raise ValueError("it does not begin as one of this version does")
        header: dict[str, Any] = json.loads(self._file.read(self._read_length()))
        position = Position(
            int(header["index"]),
            int(header["term"]),
            int(header["clock_ms"]),
            int(header["group_id"]),
        )
        previous = self._read_entry()
        last = self._read_entry()
        return DumpHead(position, previous, last, tuple(header["members"]))

    def _read_entry(self) -> LogEntry:
        index, term, length = _ENTRY.unpack(self._file.read(_ENTRY.size))
        command = self._file.read(length)
        if len(command) < length:
            raise ValueError("it ends too soon")
        return command, index, term
