"""One stream: a request and its response, as an ASGI application sees them.

``receive`` hands out the body as it comes and gives the peer credit for what was taken: what a
handler leaves lying is bounded by ``STREAM_WINDOW``. ``send`` writes at once where the peer's
windows and the socket have room, which is nearly always, and otherwise waits its turn. One task may
receive while another sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import structlog

from kvstore.http2.frames import END_STREAM, ErrorCode, StreamFault, window_update
from kvstore.http2.headers import Request, malformed, response_block, trailers_block

if TYPE_CHECKING:
    from kvstore.http2.connection import Http2Connection

log = structlog.get_logger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

STREAM_WINDOW: Final = 1024 * 1024
"""Bytes of a request's body that may lie here untaken."""

ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
TRAILERS: Final[dict[str, Any]] = {"http.response.trailers": {}}
DISCONNECT: Final[Message] = {"type": "http.disconnect"}


class Stream:
    """A request in progress.

    Args:
        connection: what it runs on.
        stream_id: its number there.
        request: its head.
        send_window: bytes of body that the peer takes on this stream for now.
    """

    __slots__ = (
        "_all_taken",
        "_body",
        "_bodyless",
        "_connection",
        "_expected",
        "_head",
        "_reader",
        "_torn",
        "_trailers",
        "_turn",
        "_uncredited",
        "_window_waiter",
        "gone",
        "id",
        "local_open",
        "receive_window",
        "remote_open",
        "request",
        "send_window",
        "task",
    )

    def __init__(
        self, connection: Http2Connection, stream_id: int, request: Request, send_window: int
    ) -> None:
        self.id = stream_id
        self.request = request
        self.send_window = send_window
        self.receive_window = STREAM_WINDOW
        self.remote_open = True
        self.local_open = True
        self.gone = False
        """Whether either side has reset the stream, or the connection is lost."""
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._body: list[bytes] = []
        self._all_taken = False
        self._expected = request.content_length
        self._reader: asyncio.Future[None] | None = None
        self._uncredited = 0
        self._bodyless = request.method == "HEAD"
        self._head: bytes | None = None
        self._trailers = False
        self._turn: asyncio.Lock | None = None
        self._window_waiter: asyncio.Future[None] | None = None
        self._torn = False

    # -- life ------------------------------------------------------------------------------------

    async def run(self, app: App) -> None:
        """Let ``app`` serve the request, and leave the stream closed whatever it does."""
        request, connection = self.request, self._connection
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": ASGI,
            "http_version": "2",
            "method": request.method,
            "scheme": connection.scheme,
            "path": request.path,
            "raw_path": request.raw_path,
            "query_string": request.query,
            "root_path": "",
            "headers": request.headers,
            "client": connection.peer,
            "server": connection.address,
            "extensions": TRAILERS if request.trailers else {},
        }
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self.gone:
                connection.reset(self, ErrorCode.CANCEL)
        except Exception as error:
            if not self.gone:
                log.error("a request failed on an unforeseen error", exc_info=error)
                connection.reset(self, ErrorCode.INTERNAL_ERROR)
        else:
            if self.local_open and not self.gone:
                connection.reset(self, ErrorCode.INTERNAL_ERROR)
        finally:
            connection.stream_done(self)

    def end(self) -> None:
        """The stream is over from outside: wake who waits, and end the application's task."""
        self.gone = True
        self._wake_reader()
        self.wake_sender()
        if self.task is not None and self.local_open:
            self.task.cancel()

    # -- request ---------------------------------------------------------------------------------

    def feed(self, data: bytes, size: int, end: bool) -> None:
        """Take a DATA frame.

        Args:
            data: its body.
            size: what it takes of the window: body and padding, in bytes.
            end: whether it ends the request.

        Raises:
            StreamFault: the stream had ended, the window is overrun, or the length is wrong.
        """
        if not self.remote_open:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA on a half-closed stream")
        self.receive_window -= size
        if self.receive_window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window")
        self._uncredited += size
        if self._expected is not None:
            self._expected -= len(data)
            if self._expected < 0:
                raise malformed("the body is longer than its content-length")
        if data:
            self._body.append(data)
        if end:
            self.end_request()
        self._wake_reader()

    def end_request(self) -> None:
        """The peer has sent all of the request.

        Raises:
            StreamFault: it had promised more.
        """
        self.remote_open = False
        if self._expected:
            raise malformed("the body is shorter than its content-length")
        self._wake_reader()

    def _wake_reader(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def receive(self) -> Message:
        """Return the next piece of the request's body, or that the client is gone (ASGI)."""
        while True:
            if self.gone or not self.local_open:
                return DISCONNECT
            body = self._body
            if body or not (self.remote_open or self._all_taken):
                data = body[0] if len(body) == 1 else b"".join(body)
                body.clear()
                if not self.remote_open:
                    self._all_taken = True
                elif self._uncredited * 2 >= STREAM_WINDOW:
                    self._connection.write(window_update(self.id, self._uncredited))
                    self.receive_window += self._uncredited
                    self._uncredited = 0
                return {"type": "http.request", "body": data, "more_body": self.remote_open}
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    # -- response --------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send the next part of the response (ASGI); waits while the client does not take it.

        Raises:
            ConnectionResetError: the client is gone.
        """
        if self.gone:
            raise ConnectionResetError("the client is gone")
        if self._torn:
            # A wait was cancelled in the middle of a message: what follows would make no sense.
            self._connection.reset(self, ErrorCode.CANCEL)
            return
        kind = message["type"]
        if kind == "http.response.body":
            await self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start":
            self._start(message)
        elif kind == "http.response.trailers":
            if self._turn is not None and self._turn.locked():
                async with self._turn:
                    self._send_trailers(message)
            else:
                self._send_trailers(message)
        else:
            raise ValueError(f"HTTP/2 responses have no {kind}")

    def _start(self, message: Message) -> None:
        block = response_block(message["status"], message.get("headers", ()))
        self._trailers = message.get("trailers", False)
        if self._trailers:
            self._connection.write_headers(self.id, block, end_stream=False)
        else:
            self._head = block  # it waits for the body: without one it ends the stream itself

    def _send_trailers(self, message: Message) -> None:
        block = trailers_block(message["headers"])
        self._connection.write_headers(self.id, block, end_stream=True)
        self._finish()

    async def _send_body(self, body: bytes, more: bool) -> None:
        end = not more and not self._trailers
        if self._bodyless:
            body = b""
        if self._head is not None:
            head, self._head = self._head, None
            alone = end and not body
            self._connection.write_headers(self.id, head, end_stream=alone)
            if alone:
                self._finish()
                return
        if body or end:
            size, connection = len(body), self._connection
            if size <= self.send_window and connection.takes(size) and not self._is_waiting():
                self.send_window -= size
                connection.write_data(self.id, body, END_STREAM if end else 0)
            else:
                await self._send_in_pieces(body, end)
            if end:
                self._finish()

    def _is_waiting(self) -> bool:
        return self._turn is not None and self._turn.locked()

    async def _send_in_pieces(self, body: bytes, end: bool) -> None:
        """Send a body that does not fit, or that another one is before, as there is room."""
        if self._turn is None:
            self._turn = asyncio.Lock()
        connection, rest, begun = self._connection, memoryview(body), False
        async with self._turn:
            try:
                while True:
                    await self._room(len(rest))
                    size = min(len(rest), self.send_window, connection.room())
                    piece, rest = bytes(rest[:size]), rest[size:]
                    self.send_window -= size
                    connection.write_data(self.id, piece, END_STREAM if end and not rest else 0)
                    begun = True
                    if not rest:
                        return
            except asyncio.CancelledError:
                self._torn = begun
                raise
            finally:
                connection.pass_turn()

    async def _room(self, wanted: int) -> None:
        """Wait until some of ``wanted`` bytes may be sent; none need no window."""
        while not self.gone:
            if wanted and self.send_window <= 0:
                self._window_waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._window_waiter
                finally:
                    self._window_waiter = None
            elif self._connection.room() <= 0:
                await self._connection.wait_for_room()
            else:
                return
        raise ConnectionResetError("the client is gone")

    def wake_sender(self) -> None:
        """The stream's window has grown, or the stream is gone."""
        waiter = self._window_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _finish(self) -> None:
        self.local_open = False
        self._wake_reader()
        self._connection.response_done(self)
