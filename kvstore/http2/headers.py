"""Header blocks: HPACK in, a checked request out; and the blocks of responses.

The rules are those of RFC 9113, section 8. One thing is laxer on purpose: ``:authority`` may be any
text, because etcdctl 3.4 sends a whole URL there.

A client repeats itself: from call to call only ``grpc-timeout`` differs. What the other fields mean
as a request is therefore worked out once, and remembered by the fields.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import hpack
from hpack.exceptions import HPACKError, OversizedHeaderListError

from kvstore.http2.fields import HEADER_LIST_BYTES_MAX, Field, FieldDecoder, list_bytes
from kvstore.http2.frames import ConnectionFault, ErrorCode, StreamFault

HeaderList = list[Field]
RequestKey = tuple[int | Field, ...]

REMEMBERED_MAX: Final = 256
"""Requests of a connection, and blocks of responses, that are kept ready."""
REMEMBERED_BYTES_MAX: Final = 2_048
"""A request whose fields take more is not kept: what a connection can make a server keep is small
beside its buffers."""
TIMEOUT: Final = b"grpc-timeout"
"""The one field that differs from call to call."""
TIMEOUT_BYTES_MAX: Final = 9
"""Eight digits and a unit: a longer one is no timeout, and not worth being known again."""
LENGTH_DIGITS_MAX: Final = 18
"""Of a content length: what has more is beyond every size in use, and slow to read as a number."""

PSEUDO_HEADERS: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
CONNECTION_HEADERS: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_new: Final = tuple.__new__
"""Makes a named tuple from its fields in a quarter of the time of a call."""
NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
VALUE_FORBIDDEN: Final = re.compile(rb"[\0\r\n]").search


class Request(NamedTuple):
    """A request's head.

    Args:
        method: as text, in capitals.
        scheme: "http" or "https", as the client says.
        path: percent-decoded.
        raw_path: as it came, without the query.
        query: what follows the first question mark.
        headers: fields in their order, but ``host`` first where there is an authority, and
            the first ``grpc-timeout`` last.
        content_length: the body's size in bytes where the client tells it.
        trailers: whether the client reads trailers.
    """

    method: str
    scheme: str
    path: str
    raw_path: bytes
    query: bytes
    headers: HeaderList
    content_length: int | None
    trailers: bool


class HeaderDecoder:
    """Decodes one connection's header blocks, in their order."""

    def __init__(self) -> None:
        self._decoder = FieldDecoder()
        self._requests: dict[RequestKey, Request] = {}

    def request(self, block: bytes) -> Request:
        """Return the request that a block opens.

        Raises:
            ConnectionFault: it is not HPACK, or too large.
            StreamFault: the request is malformed.
        """
        fields = self._decode(block)
        names = [field[0] for field in fields]
        if TIMEOUT not in names:
            return self._known(-1, fields)
        at = names.index(TIMEOUT)
        timeout = fields[at]
        if len(timeout[1]) <= TIMEOUT_BYTES_MAX:
            check_timeout(*timeout)
        else:
            check_field(*timeout)
        request = self._known(at, fields)
        return _new(Request, (*request[:5], [*request.headers, timeout], *request[6:]))

    def _known(self, at: int, fields: Sequence[Field]) -> Request:
        """Return the request that fields mean without the one at ``at``; -1: with all of them."""
        # Where a timeout stands is part of the key: behind it no pseudo-header may come.
        rest = fields if at < 0 else (*fields[:at], *fields[at + 1 :])
        key: RequestKey = (at, *rest)
        request = self._requests.get(key)
        if request is None:
            request = parse_request(fields, at)
            if list_bytes(fields) > REMEMBERED_BYTES_MAX:
                return request
            if len(self._requests) >= REMEMBERED_MAX:
                self._requests.clear()
            self._requests[key] = request
        return request

    def trailers(self, block: bytes) -> None:
        """Take in the trailers of a request. Nothing here needs them.

        Raises:
            ConnectionFault, StreamFault: see ``request``.
        """
        for name, value in self._decode(block):
            if name.startswith(b":"):
                raise malformed("a pseudo-header among trailers")
            check_field(name, value)

    def skip(self, block: bytes) -> None:
        """Take in a block of a stream that is gone: the table must follow it all the same.

        Raises:
            ConnectionFault: see ``request``.
        """
        self._decode(block)

    def _decode(self, block: bytes) -> Sequence[Field]:
        try:
            return self._decoder.decode(block)
        except OversizedHeaderListError:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"request headers take more than {HEADER_LIST_BYTES_MAX} bytes",
            ) from None
        except HPACKError as error:
            # Its own text may show the whole block, or an address in memory.
            text = f"a header block cannot be decoded ({type(error).__name__})"
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, text) from None


def malformed(what: str) -> StreamFault:
    """Return the fault for a malformed request."""
    return StreamFault(ErrorCode.PROTOCOL_ERROR, f"malformed request: {what}")


def check_field(name: bytes, value: bytes) -> None:
    """Check one field that is no pseudo-header.

    Raises:
        StreamFault: HTTP/2 does not allow it.
    """
    if not NAME(name):
        raise malformed("a header's name is empty, not lower-case, or has forbidden characters")
    if name in CONNECTION_HEADERS:
        raise malformed(f"{name.decode()} is a header of HTTP/1.1 connections")
    if name == b"te" and value.lower() != b"trailers":
        raise malformed("te may only say trailers")
    if VALUE_FORBIDDEN(value):
        raise malformed(f"the value of {name.decode()} has forbidden characters")


check_timeout = functools.lru_cache(maxsize=1024)(check_field)


def parse_request(fields: Iterable[Field], without: int) -> Request:
    """Check a request's fields and return them as a ``Request``, but for one that is only checked.

    Args:
        fields: in their order.
        without: that one's place, behind which no pseudo-header may come; -1: none.

    Raises:
        StreamFault: it is malformed.
    """
    pseudo: dict[bytes, bytes] = {}
    headers: HeaderList = []
    regular = False
    content_length: int | None = None
    trailers = False
    for number, (name, value) in enumerate(fields):
        if name[:1] == b":":
            if regular or name in pseudo or name not in PSEUDO_HEADERS:
                raise malformed("a pseudo-header is unknown, repeated, or behind other headers")
            pseudo[name] = value
            continue
        regular = True
        check_field(name, value)
        if number == without:
            continue
        if name == b"content-length":
            if not value.isdigit() or len(value) > LENGTH_DIGITS_MAX:
                raise malformed("content-length is no number, or too large")
            if content_length not in (None, int(value)):
                raise malformed("content-length is there twice, and differs")
            content_length = int(value)
        elif name == b"te":
            trailers = True
        headers.append((name, value))
    target = pseudo.get(b":path", b"")
    if not target or b":method" not in pseudo or b":scheme" not in pseudo:
        raise malformed(":method, :scheme and :path are needed")
    if b":authority" in pseudo:
        headers = [(b"host", pseudo[b":authority"]), *(h for h in headers if h[0] != b"host")]
    raw_path, _, query = target.partition(b"?")
    return Request(
        method=pseudo[b":method"].decode("latin-1"),
        scheme=pseudo[b":scheme"].decode("latin-1"),
        path=unquote(raw_path.decode("latin-1")),
        raw_path=raw_path,
        query=query,
        headers=headers,
        content_length=content_length,
        trailers=trailers,
    )


def response_block(status: int, headers: Iterable[Any]) -> bytes:
    """Return a response's head as a header block. A tuple of tuples of bytes is quickest."""
    return encode_response(status, hashable(headers))


def trailers_block(headers: Iterable[Any]) -> bytes:
    """Return trailers as a header block. A tuple of tuples of bytes is quickest."""
    return encode_block(hashable(headers))


def hashable(headers: Iterable[Any]) -> tuple[Field, ...]:
    """Return ASGI's headers as a key that blocks are known by."""
    if isinstance(headers, tuple):
        return headers
    return tuple((bytes(name), bytes(value)) for name, value in headers)


@functools.lru_cache(maxsize=REMEMBERED_MAX)
def encode_response(status: int, headers: tuple[Field, ...]) -> bytes:
    """Return a response's head as a header block."""
    return encode_block(((b":status", b"%d" % status), *headers))


@functools.lru_cache(maxsize=REMEMBERED_MAX)
def encode_block(fields: tuple[Field, ...]) -> bytes:
    """Return fields as a header block that uses no dynamic table, so it fits any connection.

    Without one a block depends on nothing, and the few that a server sends are made once.
    """
    never_indexed = [hpack.NeverIndexedHeaderTuple(name, value) for name, value in fields]
    return bytes(hpack.Encoder().encode(never_indexed, huffman=False))
