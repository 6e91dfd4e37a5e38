"""gRPC as an ASGI application: one task a call, and as little as possible on a unary call's way.

``kvstore.http2`` speaks HTTP/2; this layer cuts bodies into messages, calls the handler, and writes
status trailers. A call ends early in one of three ways, always by cancelling its task: its
deadline passed, the client went away (the server cancels the task, or ``receive`` says
``http.disconnect``), or this server is shutting down. Back-pressure is the server's: ``send`` waits
while the peer's flow-control window is closed.

A call that fails before its first response answers with trailers only (headers that carry the
status and end the stream), as grpc-go does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError, Message

from consensus.deadlines import Deadline, Deadlines
from kvstore.errors import SERVER_STOPPED, Code, EtcdError, Status
from kvstore.rpc.framing import (
    ACCEPT_ENCODING,
    CONTENT_TYPE,
    PREFIX_BYTES,
    HeaderList,
    MessageReader,
    check_encoding,
    frame,
    status_headers,
    timeout_s,
    too_large,
)
from kvstore.rpc.registry import Kind, Metadata, Method, Registry

log = structlog.get_logger(__name__)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
StatusOf = Callable[[BaseException], Status | None]

OVERHEAD_BYTES: Final = 512 * 1024
"""What a gRPC message may have beyond ``--max-request-bytes`` (etcd's value)."""

DEADLINE: Final = Status(Code.DEADLINE_EXCEEDED, "context deadline exceeded")
CANCELED: Final = Status(Code.CANCELED, "context canceled")
INTERNAL_ERROR: Final = Status(
    Code.UNKNOWN, "internal server error; the server's log has the details"
)

START: Final[dict[str, Any]] = {
    "type": "http.response.start",
    "status": 200,
    "headers": (CONTENT_TYPE,),
    "trailers": True,
}
START_GZIP: Final[dict[str, Any]] = {
    **START,
    "headers": (CONTENT_TYPE, (b"grpc-encoding", b"gzip"), ACCEPT_ENCODING),
}
TRAILERS_OK: Final[dict[str, Any]] = {
    "type": "http.response.trailers",
    "headers": ((b"grpc-status", b"0"),),
}
BODY_END: Final[dict[str, Any]] = {"type": "http.response.body", "body": b"", "more_body": False}


class Traffic:
    """Bytes of gRPC bodies that came and went."""

    __slots__ = ("received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.received_bytes = 0
        self.sent_bytes = 0


class Disconnected(Exception):
    """The client is gone: nobody to answer."""


class GrpcCall:
    """One call's state, whatever its kind. Also the ``Call`` that unary handlers see."""

    __slots__ = ("_deadline", "_send", "_task", "encoding", "ended_by", "metadata", "started")

    def __init__(self, metadata: Metadata, send: Send) -> None:
        self.metadata = metadata
        self.encoding = metadata.get(b"grpc-encoding", b"")
        self.started = False
        self.ended_by: Status | None = None
        self._send = send
        self._task: asyncio.Task[Any] | None = None
        self._deadline: Deadline | None = None

    def begin(self, deadlines: Deadlines) -> None:
        """Note the task that serves this call, and arm its deadline.

        Raises:
            EtcdError: the encoding or the timeout that the client asks for is wrong.
        """
        self._task = asyncio.current_task()
        if self.encoding:
            check_encoding(self.encoding)
        timeout = self.metadata.get(b"grpc-timeout")
        if timeout is not None:
            self._deadline = deadlines.add(timeout_s(timeout), partial(self.end, DEADLINE))

    def end(self, status: Status) -> None:
        """End the call from outside its task, with ``status`` for the client.

        A task that is being cancelled already (by the server, say) is left to clean up in peace.
        """
        if self.ended_by is None and self._task is not None and not self._task.cancelling():
            self.ended_by = status
            self._task.cancel()

    def settle(self) -> None:
        """The handler is done: from here the deadline no longer matters."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._task = None

    async def finish(self, status: Status | None) -> None:
        """Send the call's last words; ``None`` means OK."""
        if status is not None and not self.started:
            self.started = True
            headers: HeaderList = [CONTENT_TYPE, *status_headers(status)]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send(BODY_END)
            return
        if not self.started:
            self.started = True
            await self._send(START)
        await self._send(BODY_END)
        await self._send(
            TRAILERS_OK
            if status is None
            else {"type": "http.response.trailers", "headers": status_headers(status)}
        )


class GrpcStream(GrpcCall):
    """A streaming call: iterate over requests, ``send`` responses."""

    __slots__ = ("_half_closed", "_method", "_reader", "_receive", "_traffic")

    def __init__(
        self,
        method: Method,
        metadata: Metadata,
        receive: Receive,
        send: Send,
        reader: MessageReader,
        traffic: Traffic,
    ) -> None:
        super().__init__(metadata, send)
        self._method = method
        self._receive = receive
        self._reader = reader
        self._traffic = traffic
        self._half_closed = False

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Yield requests until the client half-closes."""
        while (payload := await self.next_payload()) is not None:
            yield parse(self._method, payload)

    async def next_payload(self) -> bytes | None:
        """Return the next request's bytes, or None once the client half-closed.

        Raises:
            EtcdError: the bytes are no gRPC messages.
            Disconnected: the client is gone.
        """
        while (payload := self._reader.next()) is None:
            if self._half_closed:
                self._reader.finish()
                return None
            event = await self._receive()
            if event["type"] != "http.request":
                raise self._gone()
            body = event.get("body")
            if body:
                self._traffic.received_bytes += len(body)
                self._reader.feed(body)
            self._half_closed = not event.get("more_body", False)
        self._method.stats.received += 1
        return payload

    def _gone(self) -> Disconnected:
        # The task that reads may be another than the one that runs the handler: end that one.
        if self._task is not None and self._task is not asyncio.current_task():
            self.end(CANCELED)
        self.ended_by = CANCELED
        return Disconnected()

    async def send(self, response: Message | bytes) -> None:
        """Send one response; waits for the client's flow control."""
        payload = response if isinstance(response, bytes) else response.SerializeToString()
        await self.send_all((payload,))

    async def send_all(self, responses: Sequence[bytes]) -> None:
        """Send serialized responses as one piece; waits for the client's flow control."""
        gzip = self.encoding == b"gzip"
        if not self.started:
            self.started = True
            await self._send(START_GZIP if gzip else START)
        body = b"".join([frame(payload, gzip) for payload in responses])
        self._method.stats.sent += len(responses)
        self._traffic.sent_bytes += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def open(self) -> None:
        """Send the response headers now: clients of a bidirectional stream wait for them."""
        self.started = True
        await self._send(START_GZIP if self.encoding == b"gzip" else START)


def parse(method: Method, payload: bytes) -> Message:
    """Return the request message in ``payload``.

    Raises:
        EtcdError: INTERNAL, in grpc-go's words.
    """
    try:
        return method.request.FromString(payload)
    except DecodeError as error:
        raise EtcdError(
            Status(Code.INTERNAL, f"grpc: error unmarshalling request: {error}")
        ) from None


class GrpcApp:
    """Serves a registry as gRPC.

    Args:
        registry: the methods.
        max_request_bytes: limit on a request's message, before ``OVERHEAD_BYTES``.
        status_of: maps a handler's exception to a status; None where it is a bug.
    """

    def __init__(
        self,
        registry: Registry,
        max_request_bytes: int,
        status_of: StatusOf = lambda _: None,
    ) -> None:
        self._registry = registry
        self._methods = registry.methods
        self._limit = max_request_bytes + OVERHEAD_BYTES
        self._status_of = status_of
        self._calls: set[GrpcCall] = set()
        self._deadlines = Deadlines()
        self._closing = False
        self.traffic = Traffic()

    @property
    def open_calls(self) -> int:
        """Number of calls in progress."""
        return len(self._calls)

    def close(self) -> None:
        """End every call with UNAVAILABLE "server stopped", and refuse new ones."""
        self._closing = True
        for call in tuple(self._calls):
            call.end(SERVER_STOPPED)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one call (an ASGI application)."""
        metadata: Metadata = dict(scope["headers"])
        if "http.response.trailers" not in scope.get("extensions", ()):
            await refuse(send, 400, b"gRPC needs HTTP/2 and the request header `te: trailers`\n")
            return
        if scope["method"] != "POST":
            await refuse(send, 405, b"gRPC calls are POST requests\n")
            return
        method = self._methods.get(scope["path"])
        if method is None or self._closing:
            status = self._registry.missing(scope["path"]) if method is None else SERVER_STOPPED
            await GrpcCall(metadata, send).finish(status)
            return
        method.stats.started += 1
        if method.kind is Kind.UNARY:
            await self._serve_unary(method, metadata, receive, send)
        else:
            await self._serve_stream(method, metadata, receive, send)

    async def _serve_unary(
        self, method: Method, metadata: Metadata, receive: Receive, send: Send
    ) -> None:
        call = GrpcCall(metadata, send)
        self._calls.add(call)
        try:
            call.begin(self._deadlines)
            payload = await self._read_one(call, receive)
            method.stats.received += 1
            response = await method.handler(parse(method, payload), call)
            body = response.SerializeToString()
        except BaseException as error:
            call.settle()
            await self._fail(method, call, error)
            return
        finally:
            self._calls.discard(call)
        call.settle()
        stats = method.stats
        stats.sent += 1
        stats.finish(Code.OK)
        if call.encoding == b"gzip":
            body = frame(body, gzip=True)
            await send(START_GZIP)
        else:
            body = b"\x00" + len(body).to_bytes(4, "big") + body
            await send(START)
        self.traffic.sent_bytes += len(body)
        await send({"type": "http.response.body", "body": body, "more_body": False})
        await send(TRAILERS_OK)

    async def _read_one(self, call: GrpcCall, receive: Receive) -> bytes:
        """Return a unary call's one message; almost always it is the first event, whole."""
        event = await receive()
        body: bytes = event.get("body", b"")
        size = len(body) - PREFIX_BYTES
        self.traffic.received_bytes += len(body)
        if size >= 0 and body[0] == 0 and int.from_bytes(body[1:PREFIX_BYTES], "big") == size:
            if size > self._limit:
                raise too_large(size, self._limit)
            return body[PREFIX_BYTES:]
        reader = MessageReader(self._limit, call.encoding)
        while True:
            if event["type"] != "http.request":
                raise Disconnected
            body = event.get("body", b"")
            if body:
                reader.feed(body)
            payload = reader.next()
            if payload is not None:
                return payload
            if not event.get("more_body", False):
                reader.finish()
                raise EtcdError(Status(Code.INTERNAL, "the call ended without a request message"))
            event = await receive()
            self.traffic.received_bytes += len(event.get("body", b""))

    async def _serve_stream(
        self, method: Method, metadata: Metadata, receive: Receive, send: Send
    ) -> None:
        reader = MessageReader(self._limit, metadata.get(b"grpc-encoding", b""))
        stream = GrpcStream(method, metadata, receive, send, reader, self.traffic)
        self._calls.add(stream)
        try:
            stream.begin(self._deadlines)
            if method.kind is Kind.BIDI_STREAM:
                await stream.open()
            await method.handler(stream)
        except BaseException as error:
            stream.settle()
            await self._fail(method, stream, error)
            return
        finally:
            self._calls.discard(stream)
        stream.settle()
        method.stats.finish(Code.OK)
        await stream.finish(None)

    async def _fail(self, method: Method, call: GrpcCall, error: BaseException) -> None:
        """End a call whose handler raised ``error``."""
        status: Status | None
        if isinstance(error, EtcdError):
            status = error.status
        elif isinstance(error, Disconnected):
            status = CANCELED
        elif isinstance(error, asyncio.CancelledError):
            if call.ended_by is None:
                method.stats.finish(Code.CANCELED)
                raise error  # the server took the task down: the client is gone
            status = call.ended_by
        elif not isinstance(error, Exception):
            raise error
        else:
            status = self._status_of(error)
            if status is None:
                log.error("a call failed on an unforeseen error", call=method.path, exc_info=error)
                status = INTERNAL_ERROR
        method.stats.finish(status.code)
        # The client may be gone: nobody reads this.
        with contextlib.suppress(OSError):
            await call.finish(status)


async def refuse(send: Send, code: int, text: bytes) -> None:
    """Answer something that is not gRPC with a plain HTTP error."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": text, "more_body": False})
