"""The log on disk, behind PySyncObj's journal interface.

PySyncObj's own file journal has no checksums, rewrites itself in place when it is compacted (a kill
in between loses what it meant to keep) and ends at 4 GiB. This one appends checksummed records to
segment files; compaction only deletes whole segments; what the snapshot covers in the first segment
left is dropped in memory at start. Term and vote are written aside and renamed.

Writes reach the kernel before anything is acknowledged, so a killed process loses nothing. They are
not synced: a power loss can take the newest of them (``Capabilities`` says so).
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, Final, overload

import attrs
import google_crc32c
import structlog
from pysyncobj.journal import Journal

from consensus.errors import StorageError

log = structlog.get_logger(__name__)

LogEntry = tuple[bytes, int, int]
"""Command, index, term: PySyncObj's order."""

SEGMENT_BYTES: Final = 8 * 1024 * 1024
SEGMENT_MAGIC: Final = b"RYSEG\x00\x00\x01"
META_VERSION: Final = 1

_HEAD: Final = struct.Struct("<IQQ")  # command length, index, term
_CHECKS: Final = struct.Struct("<II")  # CRC32C of the head, CRC32C of the command
RECORD_HEAD_BYTES: Final = _HEAD.size + _CHECKS.size

REMEDY: Final = (
    "Stop the member, move its data directory aside and let it join again from its peers; "
    "a group of one must be restored from a copy"
)


@attrs.define(slots=True)
class Segment:
    """One file: the index of its first entry, where each entry begins, and its length."""

    path: Path
    first_index: int
    starts: list[int]
    size: int


class SegmentJournal(Journal):  # type: ignore[misc]
    """PySyncObj's ``Journal`` over segment files in ``directory``.

    Raises:
        StorageError: a file in it is damaged or of a version from the future.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._entries: list[LogEntry] = []
        self._segments: list[Segment] = []
        self._fd: int | None = None
        self._meta_path = directory / "term.json"
        self._term = 0
        self._voted_for: str | None = None
        self._commit_index = 1
        self._meta_saved = True
        self.bytes = 0
        """Bytes of commands held in memory."""
        self._load_meta()
        self._load_segments()

    # -- what PySyncObj calls -----------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append one entry."""
        if not isinstance(command, bytes):
            command = str(command).encode()
        if not self._segments or self._segments[-1].size >= SEGMENT_BYTES:
            self._begin_segment(idx)
        segment = self._segments[-1]
        head = _HEAD.pack(len(command), idx, term)
        checks = _CHECKS.pack(google_crc32c.value(head), google_crc32c.value(command))
        record = head + checks + command
        assert self._fd is not None
        written = os.write(self._fd, record)
        if written != len(record):
            os.ftruncate(self._fd, segment.size)
            raise OSError(f"{segment.path}: wrote {written} of {len(record)} bytes")
        segment.starts.append(segment.size)
        segment.size += len(record)
        self._entries.append((command, idx, term))
        self.bytes += len(command)

    def clear(self) -> None:
        """Forget everything; a snapshot has taken the log's place."""
        self._close_file()
        for segment in reversed(self._segments):
            segment.path.unlink(missing_ok=True)
        self._segments.clear()
        self._entries.clear()
        self.bytes = 0

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Cut the tail: entries that never were committed and conflict with the leader's."""
        if entryFrom >= len(self._entries):
            return
        index = self._entries[entryFrom][1]
        self.bytes -= sum(len(entry[0]) for entry in self._entries[entryFrom:])
        del self._entries[entryFrom:]
        self._close_file()
        while self._segments and self._segments[-1].first_index >= index:
            self._segments.pop().path.unlink(missing_ok=True)
        if self._segments:
            segment = self._segments[-1]
            keep = index - segment.first_index
            if keep < len(segment.starts):
                segment.size = segment.starts[keep]
                del segment.starts[keep:]
                os.truncate(segment.path, segment.size)
            self._open_file(segment)

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Forget the head, which a snapshot covers: whole segments on disk, all of it in memory."""
        if entryTo <= 0:
            return
        self.bytes -= sum(len(entry[0]) for entry in self._entries[:entryTo])
        del self._entries[:entryTo]
        first = self._entries[0][1] if self._entries else None
        while first is not None and len(self._segments) > 1:
            if self._segments[1].first_index > first:
                break
            self._segments.pop(0).path.unlink(missing_ok=True)

    @overload
    def __getitem__(self, idx: int) -> LogEntry: ...
    @overload
    def __getitem__(self, idx: slice) -> list[LogEntry]: ...
    def __getitem__(self, idx: int | slice) -> LogEntry | list[LogEntry]:
        return self._entries[idx]

    def __len__(self) -> int:
        return len(self._entries)

    def _destroy(self) -> None:
        """PySyncObj calls this last."""
        if not self._meta_saved:
            self._store_meta()
        self._close_file()

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Remember how far is committed. Saved once a second: it only speeds up a start."""
        if raftCommitIndex != self._commit_index:
            self._commit_index = raftCommitIndex
            self._meta_saved = False

    def getRaftCommitIndex(self) -> int:
        """The commit index last saved."""
        return self._commit_index

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """Save term and vote, before any message tells them."""
        self._term = term
        self._voted_for = votedForNodeId
        self._store_meta()

    def getCurrentTerm(self) -> int:
        """The term last saved."""
        return self._term

    def getVotedForNodeId(self) -> str | None:
        """Whom this member voted for in that term."""
        return self._voted_for

    def onOneSecondTimer(self) -> None:
        """Save the commit index if it moved."""
        if not self._meta_saved:
            self._store_meta()

    # -- what the engine calls ----------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Index of the oldest entry; 0 when there is none."""
        return self._entries[0][1] if self._entries else 0

    @property
    def last_index(self) -> int:
        """Index of the newest entry; 0 when there is none."""
        return self._entries[-1][1] if self._entries else 0

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at ``index``; None where this log does not have it."""
        if not self._entries:
            return None
        offset = index - self._entries[0][1]
        if 0 <= offset < len(self._entries):
            return self._entries[offset][2]
        return None

    def first_index_of_term(self, index: int) -> int:
        """Return the first index that has the same term as the entry at ``index``."""
        offset = index - self._entries[0][1]
        term = self._entries[offset][2]
        while offset > 0 and self._entries[offset - 1][2] == term:
            offset -= 1
        return self._entries[offset][1]

    def head_is(self, previous: LogEntry, last: LogEntry) -> None:
        """Make the log begin with these two entries, which a snapshot ends with.

        What follows them is kept where the log has the snapshot's last entry (it is the same log);
        otherwise the log is older than the snapshot, or conflicts with it, and goes.

        Raises:
            StorageError: the log begins after the snapshot: something between them is missing.
        """
        if self._entries and self.first_index > previous[1]:
            raise StorageError(
                f"{self._directory}: the log begins at entry {self.first_index}, but the snapshot "
                f"ends at {last[1]}: entries between them are missing. {REMEDY}"
            )
        if self.term_at(last[1]) == last[2] and self.term_at(previous[1]) == previous[2]:
            self.deleteEntriesTo(previous[1] - self.first_index)
        else:
            self.clear()
            self.add(*previous)
            self.add(*last)
        self._commit_index = max(self._commit_index, last[1])

    # -- inside -------------------------------------------------------------------------------

    def _begin_segment(self, first_index: int) -> None:
        self._close_file()
        path = self._directory / f"log-{first_index:020d}.seg"
        path.write_bytes(SEGMENT_MAGIC)
        segment = Segment(path, first_index, [], len(SEGMENT_MAGIC))
        self._segments.append(segment)
        self._open_file(segment)

    def _open_file(self, segment: Segment) -> None:
        self._fd = os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _close_file(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _store_meta(self) -> None:
        data = {
            "version": META_VERSION,
            "current_term": self._term,
            "voted_for": self._voted_for,
            "commit_index": self._commit_index,
        }
        aside = self._meta_path.with_suffix(".tmp")
        aside.write_text(json.dumps(data))
        aside.replace(self._meta_path)
        self._meta_saved = True

    def _load_meta(self) -> None:
        if not self._meta_path.exists():
            return
        try:
            data: dict[str, Any] = json.loads(self._meta_path.read_text())
            if data["version"] != META_VERSION:
                raise ValueError(f"version {data['version']}, this program knows {META_VERSION}")
            self._term = int(data["current_term"])
            self._voted_for = data["voted_for"]
            self._commit_index = int(data["commit_index"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{self._meta_path} (term and vote) cannot be read: {error}. {REMEDY}"
            ) from None

    def _load_segments(self) -> None:
        paths = sorted(self._directory.glob("log-*.seg"))
        for number, path in enumerate(paths):
            segment = self._load_segment(path, newest=number == len(paths) - 1)
            if not segment.starts:
                path.unlink()  # begun, but nothing was written into it
                continue
            self._segments.append(segment)
        if self._segments:
            self._open_file(self._segments[-1])

    def _load_segment(self, path: Path, newest: bool) -> Segment:
        data = path.read_bytes()
        segment = Segment(path, 0, [], len(SEGMENT_MAGIC))
        if not data.startswith(SEGMENT_MAGIC):
            if newest and len(data) < len(SEGMENT_MAGIC):
                return segment
            raise StorageError(f"{path} is not a log segment of this version. {REMEDY}")
        offset = len(SEGMENT_MAGIC)
        while offset < len(data):
            end = offset + RECORD_HEAD_BYTES
            torn = end > len(data)
            problem = ""
            if not torn:
                length, index, term = _HEAD.unpack_from(data, offset)
                head_check, check = _CHECKS.unpack_from(data, offset + _HEAD.size)
                command = data[end : end + length]
                end += length
                if google_crc32c.value(data[offset : offset + _HEAD.size]) != head_check:
                    problem = "a record whose head is damaged"
                elif end > len(data):
                    torn = True
                elif google_crc32c.value(command) != check:
                    problem = "a record whose checksum does not match"
                elif self._entries and index != self.last_index + 1:
                    problem = f"entry {index} after entry {self.last_index}"
            if torn and newest:
                log.warning("torn end of the log cut off", file=str(path), offset=offset)
                os.truncate(path, offset)
                break
            if torn or problem:
                problem = problem or "an incomplete record"
                raise StorageError(f"{path} has {problem} at offset {offset}. {REMEDY}")
            if not segment.starts:
                segment.first_index = index
            segment.starts.append(offset)
            self._entries.append((command, index, term))
            self.bytes += length
            offset = segment.size = end
        return segment
