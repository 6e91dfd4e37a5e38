"""How one record of the write-ahead log looks on disk, and how it is checked.

    crc32c    u32   over everything that follows
    length    u32   of the body
    kind      u8
    body

A length of zero with a zero checksum is the untouched, preallocated rest of a segment.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Final

import attrs
import google_crc32c

from consensus.raft.messages import EntryKind, LogEntry
from consensus.raft.ready import HardState

HEADER: Final = struct.Struct("<IIB")
_PREFIX: Final = struct.Struct("<IB")
_ENTRY: Final = struct.Struct("<QQB")
_ENTRY_RECORD: Final = struct.Struct("<IBQQB")
"""What an entry's record begins with behind its checksum: prefix and ``_ENTRY``, packed at once."""
_HARD_STATE: Final = struct.Struct("<QQ")
_REPAIRING: Final = struct.Struct("<QQQ")
_BASE: Final = struct.Struct("<QQQ")

RECORD_BYTES_MAX: Final = 256 * 1024 * 1024
"""A longer length is damage, not a record: nothing that large is ever written."""


class RecordKind(enum.IntEnum):
    """What a record says."""

    ENTRY = 1
    HARD_STATE = 2
    BASE = 3
    REPAIRING = 4
    """The hard state of a member whose log was damaged, until it is repaired."""


@attrs.frozen(slots=True)
class Base:
    """The log continues after this index and term; who is in the group then.

    ``command_index`` counts the commands among the entries up to it. ``configuration`` is empty
    only in a log that was made a moment ago and does not know its group yet.
    """

    index: int
    term: int
    command_index: int = 0
    configuration: bytes = b""


Record = LogEntry | HardState | Base

_KIND_ENTRY: Final = int(RecordKind.ENTRY)
_value: Final[Callable[[bytes], int]] = google_crc32c.value


def crc32c(data: bytes) -> int:
    """Return the CRC32C of ``data``."""
    return int(google_crc32c.value(data))


def encode(record: Record) -> bytes:
    """Return the record's bytes, checksum first."""
    if isinstance(record, LogEntry):  # nearly all are
        index, term, entry_kind, data = record
        size = _ENTRY.size + len(data)
        rest = _ENTRY_RECORD.pack(size, _KIND_ENTRY, index, term, entry_kind) + data
        return _value(rest).to_bytes(4, "little") + rest
    match record:
        case HardState():
            kind = RecordKind.HARD_STATE
            body = _HARD_STATE.pack(record.term, record.commit_index)
            if record.lost_term:
                kind = RecordKind.REPAIRING
                body = _REPAIRING.pack(record.term, record.commit_index, record.lost_term)
            body += (record.voted_for or "").encode()
        case Base():
            kind = RecordKind.BASE
            body = _BASE.pack(record.index, record.term, record.command_index)
            body += record.configuration
    rest = _PREFIX.pack(len(body), kind) + body
    return crc32c(rest).to_bytes(4, "little") + rest


def decode_body(kind: int, body: bytes) -> Record:
    """Read the body of a record whose checksum was right.

    Raises:
        ValueError: the kind is unknown: a newer version wrote it.
    """
    if kind == RecordKind.ENTRY:
        index, term, entry_kind = _ENTRY.unpack_from(body)
        return LogEntry(index, term, EntryKind(entry_kind), body[_ENTRY.size :])
    if kind == RecordKind.HARD_STATE:
        term, commit_index = _HARD_STATE.unpack_from(body)
        return HardState(term, body[_HARD_STATE.size :].decode() or None, commit_index)
    if kind == RecordKind.REPAIRING:
        term, commit_index, lost_term = _REPAIRING.unpack_from(body)
        return HardState(term, body[_REPAIRING.size :].decode() or None, commit_index, lost_term)
    if kind == RecordKind.BASE:
        index, term, command_index = _BASE.unpack_from(body)
        return Base(index, term, command_index, body[_BASE.size :])
    raise ValueError(f"record kind {kind} is unknown to this version")
