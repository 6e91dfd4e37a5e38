"""How one revision of a key, and the head of a key's history, are written as bytes.

Two kinds of value are stored, each with a CRC32C over the name it is stored under and itself:

* A **record** holds one revision: a marshalled ``mvccpb.KeyValue`` as clients get it, a link to the
  record before it of the same key, and for each 16th, 256th, ... record a link 16, 256, ... back.
  A read at an old revision follows them: O(log n) steps for a key with n versions.
* A **head** stands in the key index: where the newest record is, and what the next put needs to
  know (create revision, version, lease), so that a put reads one value and a count reads no record.

Records never change after they are written. LMDB keeps no checksum of its own, so a value that
does not match its CRC raises ``Damaged``, and is never answered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, NamedTuple

import google_crc32c

from consensus.errors import DataDamaged

TOMBSTONE: Final = 1
"""Flag: this record, or the newest record of this head, is a deletion."""

PREVIOUS_TOMBSTONE: Final = 2
"""Flag of a record: the one before it of the same key is a deletion, and may be gone already."""

LEVELS_SHIFT: Final = 4
"""The upper four flag bits of a record: how many far links follow its header."""

LINK_EVERY: Final = 16
"""A far link of level n goes back LINK_EVERY ** n records of the same key."""

LEVELS_MAX: Final = 15

REVISION: Final = struct.Struct(">QI")
"""A record's name: main revision and its place inside the revision. Sorts as bytes."""

_RECORD: Final = struct.Struct(">IBQI")
_RECORD_BODY: Final = struct.Struct(">BQI")
_HEAD: Final = struct.Struct(">IBQIQQqQ")
_HEAD_REST: Final = struct.Struct(">QQqQ")
_CRC_BYTES: Final = 4

crc32c: Callable[[bytes], int] = google_crc32c.value


class Damaged(DataDamaged):
    """A stored value does not match its checksum, or one that must be there is missing.

    Args:
        table: which table of the store.
        name: the key it is stored under.
        problem: what is wrong with it.
    """

    def __init__(self, table: str, name: bytes, problem: str) -> None:
        super().__init__(
            f"the store is damaged: {table} record {name[:64].hex()}: {problem}. Nothing is "
            "answered from it; let it rebuild from the other members, or restore a snapshot."
        )
        self.table = table
        self.name = name


def place_of(name: bytes) -> tuple[int, int]:
    """Return the main revision, and the place inside it, of a record's name.

    Raises:
        Damaged: the name is of another length.
    """
    if len(name) != REVISION.size:
        raise Damaged("revision", name, "its name is too long or too short")
    main, sub = REVISION.unpack(name)
    return main, sub


class Head(NamedTuple):
    """The newest record of a key and what it says. ``lease``, ``version``: 0 in a tombstone."""

    flags: int
    main: int
    sub: int
    create_revision: int
    version: int
    lease: int
    depth: int
    """How many records of the key there were since the index knows it, this one included."""
    links: bytes
    """The newest record of each level, packed: level 1, level 2, ..."""

    @property
    def mod_revision(self) -> int:
        """The revision of the newest record."""
        return self.main


_HEAD_BYTES: Final = _HEAD.size
_new_head = tuple.__new__
"""Makes a Head of a list of its fields in a third of the time."""


class Record(NamedTuple):
    """One revision of a key. ``payload`` is the marshalled KeyValue."""

    flags: int
    previous_main: int
    previous_sub: int
    links: bytes
    payload: bytes


def seal(name: bytes, body: bytes) -> bytes:
    """Return ``body`` with the CRC32C of ``name + body`` before it."""
    return crc32c(name + body).to_bytes(_CRC_BYTES, "big") + body


def unseal(table: str, name: bytes, sealed: bytes) -> bytes:
    """Return the body of a sealed value.

    Raises:
        Damaged: the checksum does not match.
    """
    body = sealed[_CRC_BYTES:]
    if len(sealed) < _CRC_BYTES or crc32c(name + body) != int.from_bytes(
        sealed[:_CRC_BYTES], "big"
    ):
        raise Damaged(table, name, "checksum mismatch")
    return body


def lease_key_name(lease: int, key: bytes) -> bytes:
    """Return the name under which it is stored that a key hangs on a lease."""
    return lease.to_bytes(8, "big", signed=True) + blake2b(key, digest_size=16).digest()


def encode_head(
    key: bytes,
    flags: int,
    name: bytes,
    create_revision: int,
    version: int,
    lease: int,
    depth: int,
    links: bytes,
) -> bytes:
    """Marshal a head (see ``Head``), sealed with its key. ``name``: the newest record's."""
    body = b"%c%b%b%b" % (
        flags,
        name,
        _HEAD_REST.pack(create_revision, version, lease, depth),
        links,
    )
    return crc32c(key + body).to_bytes(4, "big") + body


def decode_head(key: bytes, sealed: bytes) -> Head:
    """Unmarshal and check a head.

    Raises:
        Damaged: the checksum does not match.
    """
    try:
        crc, *fields = _HEAD.unpack_from(sealed)
    except struct.error:
        raise Damaged("index", key, "too short") from None
    if crc32c(key + sealed[4:]) != crc:
        raise Damaged("index", key, "checksum mismatch")
    fields.append(sealed[_HEAD_BYTES:])
    return _new_head(Head, fields)


def head_summary(key: bytes, sealed: bytes) -> tuple[int, bytes]:
    """Return a head's flags and its main revision as eight bytes, which sort like it.

    Raises:
        Damaged: the checksum does not match.
    """
    if crc32c(key + sealed[4:]) != int.from_bytes(sealed[:4], "big"):
        raise Damaged("index", key, "checksum mismatch")
    return sealed[4], sealed[5:13]


def encode_record(
    name: bytes, flags: int, previous_main: int, previous_sub: int, links: bytes, payload: bytes
) -> bytes:
    """Marshal a record (see ``Record``), sealed with its name."""
    if links:
        flags |= (len(links) // REVISION.size) << LEVELS_SHIFT
    body = _RECORD_BODY.pack(flags, previous_main, previous_sub) + links + payload
    return crc32c(name + body).to_bytes(4, "big") + body


def decode_record(name: bytes, sealed: bytes) -> Record:
    """Unmarshal and check a record.

    Raises:
        Damaged: the checksum does not match.
    """
    try:
        crc, flags, main, sub = _RECORD.unpack_from(sealed)
    except struct.error:
        raise Damaged("revision", name, "too short") from None
    if crc32c(name + sealed[_CRC_BYTES:]) != crc:
        raise Damaged("revision", name, "checksum mismatch")
    start = _RECORD.size + (flags >> LEVELS_SHIFT) * REVISION.size
    return Record(flags, main, sub, sealed[_RECORD.size : start], sealed[start:])


def living_payload(name: bytes, sealed: bytes) -> bytes:
    """Return the payload of a record that must not be a deletion; quicker than all of it.

    Raises:
        Damaged: the checksum does not match, or it is a deletion.
    """
    if crc32c(name + sealed[4:]) != int.from_bytes(sealed[:4], "big"):
        raise Damaged("revision", name, "checksum mismatch")
    flags = sealed[4]
    if flags & TOMBSTONE:
        raise Damaged("revision", name, "a living key points to a deletion")
    return sealed[_RECORD.size + (flags >> LEVELS_SHIFT) * REVISION.size :]


def link(links: bytes, level: int) -> tuple[int, int]:
    """Return the far link of ``level`` (1, 2, ...) as (main, sub); (0, 0) where there is none."""
    start = (level - 1) * REVISION.size
    if start >= len(links):
        return (0, 0)
    return REVISION.unpack_from(links, start)


def advance_links(links: bytes, depth: int, name: bytes) -> tuple[bytes, bytes]:
    """Return the far links of record number ``depth`` of its key, and the head's new ones.

    Args:
        links: the head's links before this record.
        name: the record's packed revision.
    """
    levels = 0
    while depth % LINK_EVERY == 0 and levels < LEVELS_MAX:
        depth //= LINK_EVERY
        levels += 1
    known = levels * REVISION.size
    own = links[:known].ljust(known, b"\0")
    return own, name * levels + links[known:]
