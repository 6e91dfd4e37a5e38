"""The write-ahead log: segments of checked records, written by one writer in one order.

A segment is preallocated, so that a sync touches data only. Its first block says what it is; two
slots in that block keep, in turn, how far the segment was synced. That offset is written *after*
each sync and so is itself made durable by the next one: after a crash it is at most one batch old.
It is what tells a torn tail from damage (Alagappan and others, "Protocol-Aware Recovery for
Consensus-Based Storage", FAST 2018):

* a bad record at or beyond the synced offset was never promised to anybody: it is cut;
* a bad record before it was promised: that is damage, and it is never cut silently.

Overwriting is by index: an entry whose index is not above the last one's replaces it and all after
it. Hard state is a record among the others, so that votes and entries cannot be reordered.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from consensus.errors import StorageError
from consensus.raft.messages import LogEntry
from consensus.raft.ready import HardState
from consensus.storage.files import File, FileSystem
from consensus.storage.records import (
    HEADER,
    RECORD_BYTES_MAX,
    Base,
    Record,
    crc32c,
    decode_body,
    encode,
)

SEGMENT_BYTES: Final = 64 * 1024 * 1024
BLOCK_BYTES: Final = 4096
SLOT_OFFSETS: Final = (512, 1024)
MAGIC: Final = b"RAFTYARD-WAL\n"
FORMAT_VERSION: Final = 1
READ_BYTES: Final = 4 * 1024 * 1024

_HEAD: Final = struct.Struct("<16sIIQ")
_SLOT: Final = struct.Struct("<QQ")
_NAME: Final = re.compile(r"^(\d{20})\.wal$")


class LogDamaged(StorageError):
    """A record that was synced cannot be read. What came before it is in ``recovered``."""

    def __init__(self, segment: str, offset: int, why: str, recovered: Recovered) -> None:
        super().__init__(f"log segment {segment} is damaged at offset {offset}: {why}")
        self.segment = segment
        self.offset = offset
        self.recovered = recovered


@attrs.define(slots=True)
class Recovered:
    """What a log held when it was opened.

    Once older segments were released, the first one left begins in the middle: what it holds counts
    only if a later base, written before the release, says where the log begins now. Until that base
    is read the beginning is ``unsure``.
    """

    base: Base = attrs.field(factory=lambda: Base(0, 0))
    hard_state: HardState = attrs.field(factory=HardState)
    entries: list[LogEntry] = attrs.field(factory=list)
    torn_bytes: int = 0
    unsure: bool = False

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the base."""
        return self.entries[-1].index if self.entries else self.base.index

    def add(self, record: Record) -> None:
        """Take in the next record in log order."""
        match record:
            case HardState():
                self.hard_state = record
            case Base():
                self._rebase(record)
            case LogEntry():
                keep = record.index - self.base.index - 1
                if keep < 0:
                    return  # a snapshot covers it
                if keep > 0 and not self.entries:
                    self.base, keep, self.unsure = Base(record.index - 1, 0), 0, True
                if keep > len(self.entries):
                    raise ValueError(f"index {record.index} follows index {self.last_index}")
                del self.entries[keep:]
                self.entries.append(record)

    def _rebase(self, base: Base) -> None:
        covered = base.index - self.base.index
        joins = 0 < covered <= len(self.entries) and self.entries[covered - 1].term == base.term
        if covered > 0:
            self.entries = self.entries[covered:] if joins else []
        if covered >= 0:
            self.base = base
            self.unsure = False


@attrs.define(slots=True)
class _Segment:
    number: int
    file: File
    end: int
    last_index: int = 0


class WriteAheadLog:
    """One member's log on disk.

    Args:
        files: where the segments are.
        group_id: the group that this log belongs to; another group's log is refused.
        segment_bytes: how large a new segment is made.
    """

    def __init__(
        self, files: FileSystem, *, group_id: int = 0, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._files = files
        self._group_id = group_id
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._slot = 0
        self._failed = ""
        self._hard_state = HardState()
        self._base = Base(0, 0)
        self._last_index = 0

    def open(self) -> Recovered:
        """Read every segment, cut a torn tail, and be ready to append.

        Raises:
            LogDamaged: a synced record is bad. The log takes no appends until ``start_over``.
            StorageError: another group's log, or a newer version's.
        """
        numbers = sorted(
            int(match[1]) for name in self._files.names() if (match := _NAME.match(name))
        )
        recovered = Recovered()
        for position, number in enumerate(numbers):
            self._read_segment(number, recovered, last=position == len(numbers) - 1)
        if recovered.unsure:
            raise LogDamaged(
                _name(numbers[0]),
                0,
                f"entries before {recovered.base.index + 1} are missing",
                recovered,
            )
        self._hard_state = recovered.hard_state
        self._base = recovered.base
        self._last_index = recovered.last_index
        if not self._segments:
            self._add_segment(1, encode(self._base))
        return recovered

    def append(self, records: Sequence[Record]) -> None:
        """Write records after the last one and sync. One write, one sync.

        Raises:
            StorageError: the write or the sync failed, now or before. A sync is never retried:
                after a failure nobody knows what is on disk.
        """
        if self._failed:
            raise StorageError(self._failed)
        data = b"".join(map(encode, records))
        try:
            if self._segments[-1].end + len(data) > self._segment_bytes:
                self._roll(len(data))
            segment = self._segments[-1]
            segment.file.write(segment.end, data)
            segment.file.sync()
            segment.end += len(data)
            self._note_synced(segment)
        except OSError as error:
            self._failed = f"writing the log failed: {error}; the node must stop"
            raise StorageError(self._failed) from error
        self._remember(records)

    def release_before(self, index: int) -> None:
        """Remove segments that hold nothing after ``index``; a snapshot covers them."""
        removed = False
        while len(self._segments) > 1 and self._segments[0].last_index <= index:
            segment = self._segments.pop(0)
            segment.file.close()
            self._files.remove(_name(segment.number))
            removed = True
        if removed:
            self._files.sync_names()

    def start_over(self, base: Base, hard_state: HardState) -> None:
        """Drop everything and begin anew after ``base``: a snapshot has taken the log's place."""
        number = self._segments[-1].number + 1 if self._segments else 1
        old = self._segments
        self._segments = []
        self._base, self._hard_state, self._last_index = base, hard_state, base.index
        self._add_segment(number, encode(base))
        for segment in old:
            segment.file.close()
            self._files.remove(_name(segment.number))
        self._files.sync_names()

    def close(self) -> None:
        """Close the segments."""
        for segment in self._segments:
            segment.file.close()
        self._segments = []

    # -- writing ------------------------------------------------------------------------------

    def _roll(self, needed: int) -> None:
        self._add_segment(self._segments[-1].number + 1, b"", needed)

    def _add_segment(self, number: int, base: bytes, needed: int = 0) -> None:
        """Make a segment. The one that a log begins with says what the log continues from."""
        file = self._files.open(_name(number))
        head = _HEAD.pack(MAGIC, FORMAT_VERSION, self._group_id, number)
        opening = base + encode(self._hard_state)
        file.resize(max(self._segment_bytes, BLOCK_BYTES + len(opening) + needed))
        file.write(0, head + crc32c(head).to_bytes(4, "little"))
        file.write(BLOCK_BYTES, opening)
        file.sync()
        segment = _Segment(number, file, BLOCK_BYTES + len(opening))
        self._note_synced(segment)
        self._files.sync_names()
        self._segments.append(segment)

    def _note_synced(self, segment: _Segment) -> None:
        self._slot = 1 - self._slot
        slot = _SLOT.pack(segment.number, segment.end)
        segment.file.write(SLOT_OFFSETS[self._slot], slot + crc32c(slot).to_bytes(4, "little"))

    def _remember(self, records: Iterable[Record]) -> None:
        for record in records:
            match record:
                case LogEntry():
                    self._last_index = record.index
                case HardState():
                    self._hard_state = record
                case Base():
                    self._base = record
                    self._last_index = max(self._last_index, record.index)
        self._segments[-1].last_index = max(self._segments[-1].last_index, self._last_index)

    # -- reading ------------------------------------------------------------------------------

    def _read_segment(self, number: int, recovered: Recovered, *, last: bool) -> None:
        name = _name(number)
        file = self._files.open(name)
        problem = _check_head(file.read(0, _HEAD.size + 4), number, self._group_id)
        if problem and last and not _was_synced(file, number):
            # Its making was cut short by a crash: nothing was ever promised from it.
            file.close()
            self._files.remove(name)
            return
        if problem:
            raise LogDamaged(name, 0, problem, recovered)
        synced = _synced_offset(file, number)
        if synced is None:
            synced = BLOCK_BYTES
        offset = BLOCK_BYTES
        size = file.size()
        buffer, start = b"", offset
        why = ""
        while True:
            if offset + HEADER.size > start + len(buffer):
                buffer, start = file.read(offset, READ_BYTES), offset
            record, length, why, buffer, start = _next_record(file, offset, size, buffer, start)
            if record is None:
                break
            try:
                recovered.add(record)
            except ValueError as error:
                why = str(error)
                break
            offset += length
        if offset < synced:
            raise LogDamaged(name, offset, why or "the record is missing", recovered)
        if why and last:
            recovered.torn_bytes = min(size, offset + HEADER.size) - offset
            _erase_tail(file, offset, size)
        elif why:
            raise LogDamaged(name, offset, why, recovered)
        self._segments.append(_Segment(number, file, offset, recovered.last_index))


def _name(number: int) -> str:
    return f"{number:020d}.wal"


def _check_head(data: bytes, number: int, group_id: int) -> str:
    """Return what is wrong with a segment's first bytes, or nothing.

    Raises:
        StorageError: the segment is whole and of another group or a newer version.
    """
    if len(data) < _HEAD.size + 4:
        return "the segment is too short"
    head = data[: _HEAD.size]
    if crc32c(head) != int.from_bytes(data[_HEAD.size : _HEAD.size + 4], "little"):
        return "its first block does not match its checksum"
    magic, version, group, found = _HEAD.unpack(head)
    if magic.rstrip(b"\0") != MAGIC:
        return "it is not a log segment"
    if version != FORMAT_VERSION:
        raise StorageError(
            f"the log has format version {version}; this program reads version {FORMAT_VERSION}"
        )
    if group != group_id:
        raise StorageError(f"the log belongs to group {group}, not to group {group_id}")
    return "" if found == number else f"it says that it is segment {found}"


def _synced_offset(file: File, number: int) -> int | None:
    """Return how far the segment is known to have been synced; None where no slot can be read."""
    best: int | None = None
    for position in SLOT_OFFSETS:
        data = file.read(position, _SLOT.size + 4)
        slot = data[: _SLOT.size]
        if len(data) < _SLOT.size + 4 or crc32c(slot) != int.from_bytes(
            data[_SLOT.size :], "little"
        ):
            continue
        found, offset = _SLOT.unpack(slot)
        if found == number:
            best = max(best or 0, offset)
    return best


def _was_synced(file: File, number: int) -> bool:
    return _synced_offset(file, number) is not None


def _next_record(
    file: File, offset: int, size: int, buffer: bytes, start: int
) -> tuple[Record | None, int, str, bytes, int]:
    """Read the record at ``offset``.

    Returns:
        the record or None at the end, its length, what is wrong, and the read-ahead buffer with
        the offset at which it starts.
    """
    at = offset - start
    head = buffer[at : at + HEADER.size]
    if len(head) < HEADER.size or not any(head):
        return None, 0, "", buffer, start
    checksum, length, kind = HEADER.unpack(head)
    end = offset + HEADER.size + length
    if length > RECORD_BYTES_MAX or end > size:
        return None, 0, f"its length of {length} bytes cannot be", buffer, start
    if end > start + len(buffer):
        buffer, start, at = file.read(offset, max(READ_BYTES, end - offset)), offset, 0
    rest = buffer[at + 4 : at + HEADER.size + length]
    if crc32c(rest) != checksum:
        return None, 0, "its checksum does not match", buffer, start
    try:
        return decode_body(kind, rest[5:]), HEADER.size + length, "", buffer, start
    except (ValueError, struct.error) as error:
        return None, 0, str(error), buffer, start


def _erase_tail(file: File, offset: int, size: int) -> None:
    """Make the rest of the last segment read as untouched again, before anything is appended.

    Otherwise a later, shorter record could be followed by the remains of this one.
    """
    file.resize(offset)
    file.resize(size)
    file.sync()
