"""WatchResponse bytes, put together from parts that are each encoded once.

Theory of operation. A put may concern thousands of watchers, and what they get differs only in the
header and the watch id. Protocol buffers encode a repeated field as its elements one after another,
and a message as its fields one after another, so the bytes of the events can be made once and
shared: each watcher's message is its own few bytes followed by the shared ones. Field numbers are
those of ``etcdserverpb.WatchResponse`` and ``mvccpb.Event``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from kvstore.pb import etcdserverpb_pb2, mvccpb_pb2

_HEADER: Final = b"\x0a"  # field 1, length-delimited
_WATCH_ID: Final = b"\x10"  # field 2, varint
_CREATED: Final = b"\x18\x01"  # field 3, true
_CANCELED: Final = b"\x20\x01"  # field 4, true
_COMPACT_REVISION: Final = b"\x28"  # field 5, varint
_CANCEL_REASON: Final = b"\x32"  # field 6, length-delimited
_FRAGMENT: Final = b"\x38\x01"  # field 7, true
_EVENTS: Final = b"\x5a"  # field 11, length-delimited
_EVENT_PREV_KV: Final = b"\x1a"  # field 3 of Event, length-delimited

_SMALL_VARINTS: Final = tuple(bytes((number,)) for number in range(128))


def varint(number: int) -> bytes:
    """Encode an int64 as protocol buffers do (negative numbers take ten bytes)."""
    if 0 <= number < 128:
        return _SMALL_VARINTS[number]
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def header_field(header: etcdserverpb_pb2.ResponseHeader) -> bytes:
    """Encode the ``header`` field of a WatchResponse."""
    data = header.SerializeToString()
    return _HEADER + varint(len(data)) + data


def watch_id_field(watch_id: int) -> bytes:
    """Encode the ``watch_id`` field; nothing at all for 0, as protocol buffers have it."""
    return _WATCH_ID + varint(watch_id) if watch_id else b""


def event_field(event: mvccpb_pb2.Event, prev_kv: mvccpb_pb2.KeyValue | None = None) -> bytes:
    """Encode one element of ``events``, with ``prev_kv`` added where it is given."""
    data = event.SerializeToString()
    if prev_kv is not None:
        previous = prev_kv.SerializeToString()
        data += _EVENT_PREV_KV + varint(len(previous)) + previous
    return _EVENTS + varint(len(data)) + data


@attrs.frozen(slots=True, eq=False)
class EventBlock:
    """The encoded events of one response, shared by all watchers that get the same ones."""

    events: tuple[bytes, ...]
    data: bytes

    @classmethod
    def of(cls, events: Sequence[bytes]) -> EventBlock:
        """Make a block of events from ``event_field``, in order."""
        return cls(tuple(events), events[0] if len(events) == 1 else b"".join(events))


def created(header: bytes, watch_id: int, cancel_reason: str = "") -> bytes:
    """Answer a create request: accepted, or refused when ``cancel_reason`` is given."""
    message = header + watch_id_field(watch_id) + _CREATED
    if cancel_reason:
        text = cancel_reason.encode()
        message += _CANCELED + _CANCEL_REASON + varint(len(text)) + text
    return message


def canceled(header: bytes, watch_id: int, compact_revision: int = 0) -> bytes:
    """Say that a watch is over: on the client's wish, or because its history was compacted."""
    message = header + watch_id_field(watch_id) + _CANCELED
    if compact_revision:
        message += _COMPACT_REVISION + varint(compact_revision)
    return message


def fragments(own: bytes, block: EventBlock, bytes_max: int) -> Iterator[tuple[bytes, bytes]]:
    """Split a response that is not smaller than ``bytes_max`` bytes into smaller ones.

    Every piece but the last says ``fragment``. A piece reaches ``bytes_max`` only where a single
    event does. Yields pairs (own bytes, events) as ``own`` and ``block.data`` were.
    """
    if len(own) + len(block.data) < bytes_max or len(block.events) < 2:
        yield own, block.data
        return
    piece: list[bytes] = []
    size = len(own) + len(_FRAGMENT)
    for event in block.events:
        if piece and size + len(event) >= bytes_max:
            yield own + _FRAGMENT, b"".join(piece)
            piece = []
            size = len(own) + len(_FRAGMENT)
        piece.append(event)
        size += len(event)
    yield own, b"".join(piece)
