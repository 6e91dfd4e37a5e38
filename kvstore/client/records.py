"""The records that the client's calls return: frozen, typed, free of protobuf.

Field names are etcd's. Keys and values are bytes; arguments may be ``str`` (taken as UTF-8).
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2 as mvccpb

Text = str | bytes
"""A key or value as callers may give it: text (encoded as UTF-8) or bytes."""

FROM_KEY_END: Final = b"\0"
"""The ``range_end`` that means "every key from ``key`` on"."""


def to_bytes(text: Text) -> bytes:
    """Return ``text`` as bytes; a ``str`` is encoded as UTF-8."""
    return text.encode() if isinstance(text, str) else text


def prefix_end(prefix: Text) -> bytes:
    """Return the ``range_end`` of the range of all keys that start with ``prefix``.

    It is the first key after that range: the prefix with its last byte below 0xff raised by one.
    Without such a byte (the empty prefix too) the range has no end but the keyspace's.
    """
    stripped = to_bytes(prefix).rstrip(b"\xff")
    if not stripped:
        return FROM_KEY_END
    return stripped[:-1] + bytes([stripped[-1] + 1])


def key_range(
    key: Text, range_end: Text | None = None, *, prefix: bool = False, from_key: bool = False
) -> tuple[bytes, bytes]:
    """Return ``(key, range_end)`` as requests carry them, from the ways a caller may say it.

    Raises ``ValueError`` if more than one of ``range_end``, ``prefix`` and ``from_key`` is given.
    """
    if (range_end is not None) + prefix + from_key > 1:
        raise ValueError("give only one of range_end, prefix and from_key")
    start = to_bytes(key)
    if prefix:
        return (start or b"\0"), prefix_end(start)
    if from_key:
        return (start or b"\0"), FROM_KEY_END
    return start, to_bytes(range_end) if range_end is not None else b""


@attrs.frozen(slots=True)
class Header:
    """Who answered, and at which revision of the store.

    ``member_id`` is the member that answered; ``revision`` the store's when it did.
    """

    cluster_id: int
    member_id: int
    revision: int
    raft_term: int

    @classmethod
    def of(cls, message: pb.ResponseHeader) -> Header:
        """Read a header from its message."""
        return cls(message.cluster_id, message.member_id, message.revision, message.raft_term)


@attrs.frozen(slots=True)
class KeyValue:
    """One key with its value and history.

    ``create_revision`` and ``mod_revision`` are the store's revisions of its creation and last
    change, ``version`` counts its changes since creation, ``lease`` is 0 without a lease.
    """

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int

    @classmethod
    def of(cls, message: mvccpb.KeyValue) -> KeyValue:
        """Read a key from its message."""
        return cls(
            message.key,
            message.value,
            message.create_revision,
            message.mod_revision,
            message.version,
            message.lease,
        )


@attrs.frozen(slots=True)
class PutResult:
    """``prev_kv`` is set if it was asked for and the key existed."""

    header: Header
    prev_kv: KeyValue | None

    @classmethod
    def of(cls, message: pb.PutResponse) -> PutResult:
        """Read the result from its message."""
        previous = KeyValue.of(message.prev_kv) if message.HasField("prev_kv") else None
        return cls(Header.of(message.header), previous)


@attrs.frozen(slots=True)
class RangeResult:
    """Keys of a range. ``count`` is the number of all keys in it, whatever the limit was."""

    header: Header
    kvs: tuple[KeyValue, ...]
    count: int
    more: bool

    @classmethod
    def of(cls, message: pb.RangeResponse) -> RangeResult:
        """Read the result from its message."""
        kvs = tuple(KeyValue.of(kv) for kv in message.kvs)
        return cls(Header.of(message.header), kvs, message.count, message.more)


@attrs.frozen(slots=True)
class DeleteResult:
    """``prev_kvs`` are the deleted keys, if they were asked for."""

    header: Header
    deleted: int
    prev_kvs: tuple[KeyValue, ...]

    @classmethod
    def of(cls, message: pb.DeleteRangeResponse) -> DeleteResult:
        """Read the result from its message."""
        previous = tuple(KeyValue.of(kv) for kv in message.prev_kvs)
        return cls(Header.of(message.header), message.deleted, previous)


class EventType(enum.Enum):
    """What happened to a key."""

    PUT = mvccpb.Event.PUT
    DELETE = mvccpb.Event.DELETE


@attrs.frozen(slots=True)
class Event:
    """One change of one key, as a watch delivers it.

    A DELETE's ``kv`` carries the key and the revision of the deletion, and no value. ``prev_kv``
    is the key before the change, if it was asked for, existed and is not compacted.
    """

    type: EventType
    kv: KeyValue
    prev_kv: KeyValue | None

    @classmethod
    def of(cls, message: mvccpb.Event) -> Event:
        """Read an event from its message."""
        previous = KeyValue.of(message.prev_kv) if message.HasField("prev_kv") else None
        return cls(EventType(message.type), KeyValue.of(message.kv), previous)


@attrs.frozen(slots=True)
class LeaseInfo:
    """What is known of a lease. ``ttl_s`` is what remains; -1 when there is no such lease."""

    id: int
    ttl_s: int
    granted_ttl_s: int
    keys: tuple[bytes, ...] = ()


@attrs.frozen(slots=True)
class Member:
    """One member of the cluster. An unstarted member has no name and no client URLs yet."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool

    @classmethod
    def of(cls, message: pb.Member) -> Member:
        """Read a member from its message."""
        return cls(
            message.ID,
            message.name,
            tuple(message.peerURLs),
            tuple(message.clientURLs),
            message.isLearner,
        )


@attrs.frozen(slots=True)
class MemberStatus:
    """The state of the member that answered. Sizes are in bytes."""

    header: Header
    version: str
    db_size_bytes: int
    db_size_in_use_bytes: int
    leader: int
    raft_index: int
    raft_term: int
    raft_applied_index: int
    is_learner: bool
    errors: tuple[str, ...]

    @classmethod
    def of(cls, message: pb.StatusResponse) -> MemberStatus:
        """Read the status from its message."""
        return cls(
            Header.of(message.header),
            message.version,
            message.dbSize,
            message.dbSizeInUse,
            message.leader,
            message.raftIndex,
            message.raftTerm,
            message.raftAppliedIndex,
            message.isLearner,
            tuple(message.errors),
        )


class AlarmType(enum.Enum):
    """Why a member refuses work."""

    NONE = pb.NONE
    NOSPACE = pb.NOSPACE
    CORRUPT = pb.CORRUPT


@attrs.frozen(slots=True)
class Alarm:
    """An alarm that a member has raised."""

    member_id: int
    type: AlarmType


@attrs.frozen(slots=True)
class HashKV:
    """The checksum of a member's keys and history up to a revision, to compare with others'."""

    header: Header
    hash: int
    compact_revision: int

    @classmethod
    def of(cls, message: pb.HashKVResponse) -> HashKV:
        """Read the hash from its message."""
        return cls(Header.of(message.header), message.hash, message.compact_revision)


@attrs.frozen(slots=True)
class SavedSnapshot:
    """A snapshot that was written and verified: its size without the checksum, and its SHA-256."""

    path: str
    size_bytes: int
    sha256: bytes
    version: str
