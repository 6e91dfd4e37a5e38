"""The gRPC wire format inside HTTP/2: length-prefixed messages, status trailers, timeouts.

Source: "gRPC over HTTP2" of the gRPC project (PROTOCOL-HTTP2.md); the texts of errors are those of
grpc-go, which etcd's clients know.
"""

from __future__ import annotations

import functools
import zlib
from typing import Final
from urllib.parse import quote_from_bytes

from kvstore.errors import Code, EtcdError, Status

PREFIX_BYTES: Final = 5
"""One flag byte (1 = compressed) and a big-endian length of four bytes."""

GZIP_WBITS: Final = 31
GZIP_LEVEL: Final = 1
"""Fast: the point of compression here is a slow link, not the last byte."""

SAFE: Final = bytes(c for c in range(0x20, 0x7F) if c != 0x25).decode()
"""What grpc-message leaves as it is: printable ASCII without the percent sign."""

STATUS_MESSAGE_BYTES_MAX: Final = 4_096
"""Most of a status's text that is sent: texts quote what the client sent, of any size, it grows to
three times as much when percent-encoded, and clients limit the headers that they take."""

TIMEOUT_UNITS_S: Final = {
    b"H": 3600.0,
    b"M": 60.0,
    b"S": 1.0,
    b"m": 1e-3,
    b"u": 1e-6,
    b"n": 1e-9,
}
TIMEOUT_DIGITS_MAX: Final = 8

ACCEPT_ENCODING: Final = (b"grpc-accept-encoding", b"gzip")
CONTENT_TYPE: Final = (b"content-type", b"application/grpc")

HeaderList = list[tuple[bytes, bytes]]


def frame(payload: bytes, gzip: bool = False) -> bytes:
    """Return a serialized message with its prefix, compressed if ``gzip``."""
    if gzip:
        packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WBITS)
        payload = packer.compress(payload) + packer.flush()
        return b"\x01" + len(payload).to_bytes(4, "big") + payload
    return b"\x00" + len(payload).to_bytes(4, "big") + payload


def too_large(size: int, limit: int) -> EtcdError:
    """Return the error for a message of ``size`` bytes where ``limit`` are allowed."""
    return EtcdError(
        Status(
            Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {limit})"
        )
    )


def decompress(payload: bytes, encoding: bytes, limit: int) -> bytes:
    """Undo a message's compression.

    Args:
        payload: the message as it came, its compressed flag set.
        encoding: the call's ``grpc-encoding`` (empty if there was none).
        limit: greatest size in bytes of the result.

    Raises:
        EtcdError: no such encoding, damaged data, or a result over the limit.
    """
    if encoding in (b"", b"identity"):
        raise EtcdError(
            Status(Code.INTERNAL, "grpc: compressed flag set with identity or empty encoding")
        )
    unpacker = zlib.decompressobj(GZIP_WBITS)
    try:
        data = unpacker.decompress(payload, limit + 1)
    except zlib.error as error:
        raise EtcdError(
            Status(Code.INTERNAL, f"grpc: failed to decompress the received message: {error}")
        ) from None
    if len(data) > limit:
        raise EtcdError(
            Status(
                Code.RESOURCE_EXHAUSTED,
                f"grpc: received message after decompression larger than max {limit}",
            )
        )
    if not unpacker.eof:
        raise EtcdError(
            Status(Code.INTERNAL, "grpc: failed to decompress the received message: unexpected EOF")
        )
    return data


def check_encoding(encoding: bytes) -> None:
    """Refuse a ``grpc-encoding`` that is not spoken here.

    Raises:
        EtcdError: UNIMPLEMENTED.
    """
    if encoding not in (b"", b"identity", b"gzip"):
        name = encoding.decode("ascii", "replace")
        raise EtcdError(
            Status(
                Code.UNIMPLEMENTED,
                f'grpc: Decompressor is not installed for grpc-encoding "{name}"',
            )
        )


@functools.lru_cache(maxsize=1024)
def timeout_s(value: bytes) -> float:
    """Return a ``grpc-timeout`` header in seconds.

    Raises:
        EtcdError: the header is malformed.
    """
    digits, unit = value[:-1], TIMEOUT_UNITS_S.get(value[-1:])
    if unit is None or not digits.isdigit() or len(digits) > TIMEOUT_DIGITS_MAX:
        text = value.decode("ascii", "replace")
        raise EtcdError(
            Status(
                Code.INTERNAL,
                f'malformed grpc-timeout: "{text}" (a number of at most 8 digits and one of '
                "H, M, S, m, u, n)",
            )
        )
    return int(digits) * unit


def status_headers(status: Status) -> HeaderList:
    """Return a status as trailers: its number, and its message percent-encoded.

    Of the message ``STATUS_MESSAGE_BYTES_MAX`` bytes are sent, cut between two characters.
    """
    headers = [(b"grpc-status", b"%d" % status.code)]
    if status.message:
        message = status.message.encode()
        if len(message) > STATUS_MESSAGE_BYTES_MAX:
            message = message[:STATUS_MESSAGE_BYTES_MAX].decode("utf-8", "ignore").encode()
        encoded = quote_from_bytes(message, safe=SAFE).encode()
        headers.append((b"grpc-message", encoded))
    if status.code is Code.UNIMPLEMENTED:
        headers.append(ACCEPT_ENCODING)
    return headers


class MessageReader:
    """Cuts a request body, fed in pieces of any size, into messages.

    Args:
        limit: greatest message in bytes, compressed or not.
        encoding: the call's ``grpc-encoding``.
    """

    __slots__ = ("_buffer", "_encoding", "_limit")

    def __init__(self, limit: int, encoding: bytes) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self._encoding = encoding

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self._buffer += piece

    def next(self) -> bytes | None:
        """Return the next whole message, or None when more bytes are needed.

        Raises:
            EtcdError: the message is too large, or its compression is wrong.
        """
        buffer = self._buffer
        if len(buffer) < PREFIX_BYTES:
            return None
        size = int.from_bytes(buffer[1:PREFIX_BYTES], "big")
        if size > self._limit:
            raise too_large(size, self._limit)
        end = PREFIX_BYTES + size
        if len(buffer) < end:
            return None
        flag = buffer[0]
        payload = bytes(memoryview(buffer)[PREFIX_BYTES:end])
        del buffer[:end]
        if flag == 0:
            return payload
        if flag == 1:
            return decompress(payload, self._encoding, self._limit)
        raise EtcdError(Status(Code.INTERNAL, f"grpc: received unexpected payload format {flag}"))

    def finish(self) -> None:
        """The body has ended.

        Raises:
            EtcdError: in the middle of a message.
        """
        if self._buffer:
            raise EtcdError(Status(Code.INTERNAL, "unexpected EOF"))
