"""How a segment of the write-ahead log looks on disk, and how it is read.

    block 0    head: magic, version, group, number, where the segment before it ended; checksum
               two slots, written in turn: how far this segment was synced; a checksum each
               two more, written in turn: the term, again, for when the log itself is damaged
    block 1    the opening: the base, where the log begins here, and the hard state so far
    then       records, and zeros up to the end of the preallocated file

A segment exists for the log once its opening and its first slot were synced. A head that names no
end of a segment before it (zero) says that the log begins here: whatever is older was replaced.
"""

from __future__ import annotations

import errno
import re
import struct
from typing import Final

import attrs

from consensus.errors import StorageError
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

BLOCK_BYTES: Final = 4096
SLOT_OFFSETS: Final = (512, 1024)
TERM_SLOT_OFFSETS: Final = (1536, 2048)
MAGIC: Final = b"RAFTYARD-WAL\n"
FORMAT_VERSION: Final = 2
"""Version 1 had one command in an entry."""
READ_BYTES: Final = 4 * 1024 * 1024

_HEAD: Final = struct.Struct("<16sIIQQ")
_SLOT: Final = struct.Struct("<QQ")
_CHECKSUM_BYTES: Final = 4
FIRST_OPENING_BYTES: Final = len(encode(Base(0, 0)) + encode(HardState()))
"""What the first segment of a log opens with. Before anything is promised the group's first
configuration is written behind it."""

_UNTOUCHED: Final = bytes(256 * 1024)
_NAME: Final = re.compile(r"^(\d{20})\.wal$")


@attrs.define(slots=True)
class Segment:
    """One segment that is part of the log: where its records end, and the last index in it."""

    number: int
    file: File
    end: int
    last_index: int = 0


def name_of(number: int) -> str:
    """Return the name of a segment's file; names sort by number."""
    return f"{number:020d}.wal"


def numbers_in(files: FileSystem) -> list[int]:
    """Return the numbers of the segments in a directory, ascending."""
    return sorted(int(match[1]) for name in files.names() if (match := _NAME.match(name)))


def write_head(file: File, number: int, group_id: int, previous_end: int) -> None:
    """Write what a segment says of itself."""
    _write_checked(file, 0, _HEAD.pack(MAGIC, FORMAT_VERSION, group_id, number, previous_end))


def read_head(file: File, number: int, group_id: int) -> tuple[int, str]:
    """Return where the segment before this one ended, and what is wrong with the head, if anything.

    Raises:
        StorageError: the head is whole, and of another group or version.
    """
    head = _read_checked(file, 0, _HEAD.size)
    if head is None:
        return 0, "its first block does not match its checksum"
    magic, version, group, found, previous_end = _HEAD.unpack(head)
    if magic.rstrip(b"\0") != MAGIC:
        return 0, "it is not a log segment"
    if version != FORMAT_VERSION:
        raise StorageError(
            f"the log has format version {version}; this program reads version {FORMAT_VERSION}. "
            "The release that wrote it can still make a backup, to be restored with this one"
        )
    if group != group_id:
        raise StorageError(f"the log belongs to group {group}, not to group {group_id}")
    return previous_end, "" if found == number else f"it says that it is segment {found}"


def write_slot(file: File, slot: int, number: int, end: int) -> None:
    """Note in one of the two slots that everything up to ``end`` was synced."""
    _write_checked(file, SLOT_OFFSETS[slot], _SLOT.pack(number, end))


def synced_offset(file: File, number: int) -> int | None:
    """Return how far the segment is known to have been synced; None where no slot can be read."""
    best: int | None = None
    for position in SLOT_OFFSETS:
        slot = _read_checked(file, position, _SLOT.size)
        if slot is None:
            continue
        found, offset = _SLOT.unpack(slot)
        if found == number:
            best = max(best or 0, offset)
    return best


def write_term(file: File, slot: int, number: int, term: int) -> None:
    """Note the term in one of its two slots; durable with the next sync of the segment."""
    _write_checked(file, TERM_SLOT_OFFSETS[slot], _SLOT.pack(number, term))


def noted_term(files: FileSystem) -> int | None:
    """Return a term that is at least that of every promise made from this log, record by record
    or not; None where the disk no longer says so.

    It was written with the sync that made the term durable, apart from the records. A slot that
    cannot be read may have been the newer one: then nobody knows.
    """
    for number in reversed(numbers_in(files)):
        file = files.open(name_of(number))
        try:
            terms = []
            for position in TERM_SLOT_OFFSETS:
                slot = _read_checked(file, position, _SLOT.size)
                if slot is not None and _SLOT.unpack(slot)[0] == number:
                    terms.append(_SLOT.unpack(slot)[1])
                elif any(file.read(position, _SLOT.size + _CHECKSUM_BYTES)):
                    return None
            if terms:
                return int(max(terms))
            if synced_offset(file, number) is not None:
                return None
            # Its making was cut short: nothing was ever promised from it.
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return None
        finally:
            file.close()
    return None


class RecordReader:
    """Reads a segment's records in order, until the end or something that is none.

    Attributes:
        offset: where the next record begins, or the bad one.
        why: what is wrong there; empty at a clean end.
    """

    def __init__(self, file: File, limit: int | None = None) -> None:
        self.offset = BLOCK_BYTES
        self.why = ""
        self._file = file
        self._size = file.size() if limit is None else min(limit, file.size())
        self._buffer = b""
        self._start = BLOCK_BYTES

    def next(self) -> Record | None:
        """Return the next record; None at the end or where it is bad (see ``why``)."""
        head = self._bytes(HEADER.size)
        if len(head) < HEADER.size or not any(head):
            return None
        checksum, length, kind = HEADER.unpack(head)
        end = self.offset + HEADER.size + length
        if length > RECORD_BYTES_MAX or end > self._size:
            self.why = f"its length of {length} bytes cannot be"
            return None
        rest = self._bytes(HEADER.size + length)[_CHECKSUM_BYTES:]
        if crc32c(rest) != checksum:
            self.why = "its checksum does not match"
            return None
        try:
            record = decode_body(kind, rest[HEADER.size - _CHECKSUM_BYTES :])
        except (ValueError, struct.error) as error:
            self.why = str(error)
            return None
        self.offset = end
        return record

    def _bytes(self, size: int) -> bytes:
        size = min(size, self._size - self.offset)
        at = self.offset - self._start
        if at + size > len(self._buffer):
            self._buffer = self._file.read(self.offset, max(READ_BYTES, size))
            self._start, at = self.offset, 0
        return self._buffer[at : at + size]


def opening_is_whole(file: File, *, begins_log: bool) -> bool:
    """Whether a segment's making was finished: the records that it opens with are there."""
    reader = RecordReader(file)
    if begins_log and not isinstance(reader.next(), Base):
        return False
    return isinstance(reader.next(), HardState)


def was_never_used(file: File, number: int) -> bool:
    """Whether nothing was ever promised from a segment: a crash cut its making short.

    What a crash leaves of a field of the first block ends early; one that is there to its end and
    does not match is damage. And what was made and used has more in it than what it opens with,
    even where the first record cannot be read.
    """
    if synced_offset(file, number) is not None or _first_block_is_damaged(file):
        return False
    opening_bytes = FIRST_OPENING_BYTES if number == 1 else BLOCK_BYTES
    if _is_touched(file, BLOCK_BYTES + opening_bytes):
        return False
    reader = RecordReader(file)
    first = reader.next()
    opening = 2 if isinstance(first, Base) else 1
    while first is not None and opening and reader.next() is not None:
        opening -= 1
    return opening > 0


def _first_block_is_damaged(file: File) -> bool:
    """Whether a field of the first block was written to its end and does not match its checksum."""
    fields = [(0, _HEAD.size)]
    fields += [(offset, _SLOT.size) for offset in SLOT_OFFSETS + TERM_SLOT_OFFSETS]
    return any(
        _read_checked(file, offset, size) is None
        and any(file.read(offset + size + _CHECKSUM_BYTES - 1, 1))
        for offset, size in fields
    )


def _is_touched(file: File, offset: int) -> bool:
    """Whether anything was ever written at ``offset`` or behind it."""
    size = file.size()
    for start in range(offset, size, len(_UNTOUCHED)):
        found = file.read(start, min(len(_UNTOUCHED), size - start))
        if found != _UNTOUCHED[: len(found)]:
            return True
    return False


def torn_bytes(file: File, offset: int) -> int:
    """Return how many bytes from ``offset`` on are not as if nothing had been written there."""
    size = file.size()
    torn = 0
    for start in range(offset, size, len(_UNTOUCHED)):
        found = file.read(start, min(len(_UNTOUCHED), size - start))
        if found != _UNTOUCHED[: len(found)]:
            torn = start + len(found.rstrip(b"\0")) - offset
    return torn


def erase_tail(file: File, offset: int) -> None:
    """Make the rest of a segment read as untouched.

    What is left of a torn write must go before anything is appended: a new record might end just
    where an old one begins, and the old one would count again.
    """
    size = file.size()
    file.resize(offset)
    file.resize(size)
    file.sync()


def _write_checked(file: File, offset: int, data: bytes) -> None:
    file.write(offset, data + crc32c(data).to_bytes(_CHECKSUM_BYTES, "little"))


def _read_checked(file: File, offset: int, size: int) -> bytes | None:
    found = file.read(offset, size + _CHECKSUM_BYTES)
    data, checksum = found[:size], found[size:]
    if len(found) < size + _CHECKSUM_BYTES or crc32c(data) != int.from_bytes(checksum, "little"):
        return None
    return data
