"""One HTTP/2 connection: frames in, frames out (RFC 9113).

What the streams of a turn of the loop write leaves in one piece at the turn's end. The peer gets
the connection's credit as soon as its bytes are here (as grpc-go does it), so a stream whose
handler does not read holds up none beside it; a stream's own window bounds what lies there. While
the peer does not take what is sent, nothing more is read from it: whatever it asks for, the answers
waiting here are bounded by ``WRITE_BUFFER_MAX`` and one turn's reads.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import structlog

from kvstore.http2 import frames
from kvstore.http2.fields import HEADER_LIST_BYTES_MAX
from kvstore.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    FRAME_BYTES_MIN,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    PREFACE,
    PRIORITY_FLAG,
    STREAM_MASK,
    WINDOW_INITIAL,
    WINDOW_MAX,
    ConnectionFault,
    ErrorCode,
    Setting,
    StreamFault,
)
from kvstore.http2.headers import HeaderDecoder
from kvstore.http2.keepalive import Keepalive
from kvstore.http2.stream import STREAM_WINDOW, App, Stream

log = structlog.get_logger(__name__)

CONNECTION_WINDOW: Final = 16 * 1024 * 1024
"""Bytes of bodies that may be under way to this side on one connection."""
WRITE_BUFFER_MAX: Final = 256 * 1024
"""Bytes that wait for the socket before streams have to wait too."""
TURN_BYTES_MAX: Final = 128 * 1024
"""Bytes that streams may write in one turn of the loop before they have to wait for the next."""
CLOSED_REMEMBERED_MAX: Final = 512
"""Streams that ended lately and are still known: frames may have been under way to them."""
CONTINUATIONS_MAX: Final = 64
STREAMS_NO_LIMIT: Final = 2**32 - 1
"""etcd's own default of ``--max-concurrent-streams``."""


class Http2Connection(asyncio.Protocol):
    """Serves one client.

    Args:
        app: the ASGI application.
        max_concurrent_streams: streams that the client may have open.
        keepalive: asks a silent client whether it is still there.
        closed: called once with this connection when it is gone and its last task has ended.
    """

    def __init__(
        self,
        app: App,
        max_concurrent_streams: int,
        keepalive: Keepalive,
        closed: Callable[[Http2Connection], None],
    ) -> None:
        self.scheme = "http"
        self.peer: Any = None
        self.address: Any = None
        self._app = app
        self._streams_max = max_concurrent_streams
        self._keepalive = keepalive
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._lost = False
        self._draining = False
        # In
        self._pending = b""
        self._preface_seen = False
        self._settings_seen = False
        self._decoder = HeaderDecoder()
        self._streams: dict[int, Stream] = {}
        self._running: set[Stream] = set()
        self._last_id = 0
        self._recently_closed: dict[int, bool] = {}  # by stream: whether this side reset it
        self._block: tuple[int, bool, list[bytes]] | None = None
        self._receive_window = CONNECTION_WINDOW
        self._uncredited = 0
        # Out
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._writable = True
        self._send_window = WINDOW_INITIAL
        self._stream_window = WINDOW_INITIAL
        self._frame_bytes = FRAME_BYTES_MIN
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._handlers: tuple[Callable[[int, int, bytes], None], ...] = (
            self._on_data,
            self._on_headers,
            self._on_priority,
            self._on_rst_stream,
            self._on_settings,
            self._on_push_promise,
            self._on_ping,
            self._on_goaway,
            self._on_window_update,
            self._on_continuation,
        )

    # -- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet: our settings, and the connection's window."""
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_MAX)
        self.scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self.peer = address_pair(transport.get_extra_info("peername"))
        self.address = address_pair(transport.get_extra_info("sockname"))
        values = {
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES_MAX,
        }
        if self._streams_max < STREAMS_NO_LIMIT:
            values[Setting.MAX_CONCURRENT_STREAMS] = self._streams_max
        self.write(frames.settings(values))
        self.write(frames.window_update(0, CONNECTION_WINDOW - WINDOW_INITIAL))
        self._keepalive.start(self._ping, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Take what the socket brought and act on each whole frame."""
        self._keepalive.heard = True
        if self._pending:
            data = self._pending + data
        position, size = 0, len(data)
        try:
            if not self._preface_seen:
                if not data.startswith(PREFACE[:size]):
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
                if size < len(PREFACE):
                    self._pending = data
                    return
                self._preface_seen = True
                position = len(PREFACE)
            while size - position >= FRAME_HEADER_BYTES:
                high, low, kind, flags, stream_id = FRAME_HEADER.unpack_from(data, position)
                length = high << 8 | low
                if length > FRAME_BYTES_MIN:
                    raise ConnectionFault(
                        ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes ({FRAME_BYTES_MIN})"
                    )
                start = position + FRAME_HEADER_BYTES
                end = start + length
                if end > size:
                    break
                self._on_frame(kind, flags, stream_id & STREAM_MASK, data[start:end])
                position = end
        except ConnectionFault as fault:
            self._fail(fault)
            return
        self._pending = data[position:] if position < size else b""

    def connection_lost(self, _: Exception | None) -> None:
        """End every stream."""
        self._lost = True
        self._keepalive.stop()
        self._out.clear()
        for stream in tuple(self._streams.values()):
            stream.end()
        self._streams.clear()
        self._wake_all()
        if not self._running:
            self._closed(self)

    def pause_writing(self) -> None:
        """The peer does not take what is sent: stop asking it for more."""
        self._writable = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer takes again."""
        self._writable = True
        self._transport.resume_reading()
        self.pass_turn()

    # -- what streams need -----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send ``data`` at the end of this turn of the loop."""
        if self._lost:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        self._out_bytes += len(data)

    def write_headers(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """Send a header block."""
        self.write(frames.header_frames(stream_id, block, end_stream, self._frame_bytes))

    def write_data(self, stream_id: int, body: bytes, flags: int) -> None:
        """Send one DATA frame, for which there must be room."""
        self._send_window -= len(body)
        self.write(frames.frame(frames.DATA, flags, stream_id, body))

    def takes(self, size: int) -> bool:
        """Return whether ``size`` bytes may be sent now in one frame, before nobody that waits."""
        return (
            size <= self._send_window
            and size <= self._frame_bytes
            and self._writable
            and self._out_bytes < TURN_BYTES_MAX
            and not self._waiting
        )

    def room(self) -> int:
        """Return how many bytes of body one frame may have now."""
        if not self._writable or self._out_bytes >= TURN_BYTES_MAX:
            return 0
        return min(self._send_window, self._frame_bytes)

    async def wait_for_room(self) -> None:
        """Wait until it is this caller's turn to look at ``room`` again."""
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.pass_turn()
            raise

    def pass_turn(self) -> None:
        """Wake the stream that has waited longest, where there is room for it."""
        waiting = self._waiting
        while waiting and self.room() > 0:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once, and tell the peer why."""
        if not stream.gone and not self._lost:
            self.write(frames.rst_stream(stream.id, code))
        self._forget(stream.id, reset_here=True)
        stream.end()

    def response_done(self, stream: Stream) -> None:
        """A stream has sent all of its response."""
        if stream.remote_open:
            # The rest of the request is not wanted; NO_ERROR says that the response stands.
            self.write(frames.rst_stream(stream.id, ErrorCode.NO_ERROR))
        self._forget(stream.id, reset_here=stream.remote_open)

    def stream_done(self, stream: Stream) -> None:
        """The application's task for a stream has ended."""
        self._running.discard(stream)
        if self._lost:
            if not self._running:
                self._closed(self)
        elif self._draining and not self._streams:
            self._close()

    # -- shutdown --------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no new streams, and close once those under way have ended."""
        if self._lost or self._draining:
            return
        self._draining = True
        self.write(frames.goaway(self._last_id, ErrorCode.NO_ERROR, "the server is stopping"))
        if not self._streams:
            self._close()

    def abort(self) -> None:
        """Cut the connection off."""
        if not self._lost:
            self._transport.abort()

    def _close(self) -> None:
        self._flush()
        self._transport.close()

    def _fail(self, fault: ConnectionFault) -> None:
        """Tell the peer what it did wrong, and close."""
        log.debug("closed a connection that broke HTTP/2", reason=str(fault), peer=self.peer)
        self.write(frames.goaway(self._last_id, fault.code, str(fault)))
        self._close()

    def _give_up(self) -> None:
        log.info("a client does not answer pings: closing its connection", peer=self.peer)
        self.abort()

    def _ping(self) -> None:
        self.write(frames.frame(frames.PING, 0, 0, bytes(8)))

    # -- out -------------------------------------------------------------------------------------

    def _flush(self) -> None:
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_bytes = 0
        if not self._transport.is_closing():
            self._transport.write(data)
            if self._waiting:
                self.pass_turn()

    def _wake_all(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    # -- in --------------------------------------------------------------------------------------

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")
        if not self._settings_seen:
            if kind != frames.SETTINGS or flags & ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is no SETTINGS")
            self._settings_seen = True
        if kind >= len(self._handlers):
            return
        try:
            self._handlers[kind](flags, stream_id, payload)
        except StreamFault as fault:
            self._fail_stream(stream_id, fault)

    def _fail_stream(self, stream_id: int, fault: StreamFault) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self.reset(stream, fault.code)
        else:
            self._forget(stream_id, reset_here=True)
            self.write(frames.rst_stream(stream_id, fault.code))

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window")
        self._uncredited += size
        if self._uncredited * 4 >= CONNECTION_WINDOW:
            self.write(frames.window_update(0, self._uncredited))
            self._receive_window += self._uncredited
            self._uncredited = 0
        body = frames.without_padding(flags, payload)
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.feed(body, size, bool(flags & END_STREAM))
        elif not self._was_open(stream_id, "DATA"):
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA on a closed stream")

    def _was_open(self, stream_id: int, what: str) -> bool:
        """Return whether a frame of a stream that is gone is to be ignored: this side reset it.

        Raises:
            ConnectionFault: the stream was never open.
        """
        if stream_id == 0 or stream_id > self._last_id or stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {stream_id}")
        return self._recently_closed.get(stream_id, False)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        block = frames.without_padding(flags, payload)
        dependency = 0
        if flags & PRIORITY_FLAG:
            if len(block) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority")
            dependency = int.from_bytes(block[:4], "big") & STREAM_MASK
            block = block[5:]
        end_stream = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._on_block(stream_id, end_stream, block)
        else:
            self._block = (stream_id, end_stream, [block])
        if dependency == stream_id:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream cannot depend on itself")

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, end_stream, parts = self._block
        parts.append(payload)
        if len(parts) > CONTINUATIONS_MAX or sum(map(len, parts)) > HEADER_LIST_BYTES_MAX:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"a header block has more than {HEADER_LIST_BYTES_MAX} bytes or "
                f"{CONTINUATIONS_MAX} frames",
            )
        if flags & END_HEADERS:
            self._block = None
            self._on_block(stream_id, end_stream, b"".join(parts))

    def _on_block(self, stream_id: int, end_stream: bool, block: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._on_trailers(stream, end_stream, block)
            return
        if stream_id <= self._last_id:
            known = self._recently_closed.get(stream_id)
            self._decoder.skip(block)
            if known:
                return
            code = ErrorCode.PROTOCOL_ERROR if known is None else ErrorCode.STREAM_CLOSED
            raise ConnectionFault(code, f"HEADERS on stream {stream_id}, which is closed")
        self._last_id = stream_id
        request = self._decoder.request(block)
        if self._draining or len(self._streams) >= self._streams_max:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "no new streams")
        stream = Stream(self, stream_id, request, self._stream_window)
        if end_stream:
            stream.end_request()
        self._streams[stream_id] = stream
        self._running.add(stream)
        stream.task = self._loop.create_task(stream.run(self._app))

    def _on_trailers(self, stream: Stream, end_stream: bool, block: bytes) -> None:
        if not stream.remote_open:
            self._decoder.skip(block)
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS on a half-closed stream")
        self._decoder.trailers(block)
        if not end_stream:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers that do not end the request")
        stream.end_request()

    def _on_priority(self, _: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has five bytes")
        if int.from_bytes(payload[:4], "big") & STREAM_MASK == stream_id:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream cannot depend on itself")

    def _on_rst_stream(self, _: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
        stream = self._streams.get(stream_id)
        if stream is None:
            self._was_open(stream_id, "RST_STREAM")
            if stream_id in self._recently_closed:
                # Whatever comes now was not under way when this side reset the stream.
                self._recently_closed[stream_id] = False
            return
        self._forget(stream_id, reset_here=False)
        stream.end()

    def _forget(self, stream_id: int, reset_here: bool) -> None:
        """Take a stream off the open ones, and remember for a while how it ended."""
        self._streams.pop(stream_id, None)
        closed = self._recently_closed
        closed[stream_id] = reset_here
        if len(closed) > CLOSED_REMEMBERED_MAX:
            del closed[next(iter(closed))]

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS on stream {stream_id}")
        if (len(payload) and flags & ACK) or len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has a wrong size")
        if flags & ACK:
            return
        for key, value in struct.iter_unpack(">HI", payload):
            self._on_setting(key, value)
        self.write(frames.frame(frames.SETTINGS, ACK, 0))

    def _on_setting(self, key: int, value: int) -> None:
        if key == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        if key == Setting.MAX_FRAME_SIZE:
            if not FRAME_BYTES_MIN <= value <= FRAME_BYTES_MAX:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
            self._frame_bytes = value
        elif key == Setting.INITIAL_WINDOW_SIZE:
            if value > WINDOW_MAX:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window above 2^31 - 1")
            change, self._stream_window = value - self._stream_window, value
            for stream in self._streams.values():
                stream.send_window += change
                if stream.send_window > WINDOW_MAX:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window above 2^31 - 1")
                stream.wake_sender()

    def _on_push_promise(self, _: int, __: int, ___: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients do not push")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"PING on stream {stream_id}")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING has eight bytes")
        if not flags & ACK:
            self.write(frames.frame(frames.PING, ACK, 0, payload))

    def _on_goaway(self, _: int, stream_id: int, __: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"GOAWAY on stream {stream_id}")
        # The client opens no more streams, and closes when it has what it waits for.

    def _on_window_update(self, _: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
        increment = int.from_bytes(payload, "big") & STREAM_MASK
        if stream_id == 0:
            if increment == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
            self._send_window += increment
            if self._send_window > WINDOW_MAX:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window above 2^31 - 1")
            self.pass_turn()
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._was_open(stream_id, "WINDOW_UPDATE")
        if increment == 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
        if stream is None:
            return
        stream.send_window += increment
        if stream.send_window > WINDOW_MAX:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "a window above 2^31 - 1")
        stream.wake_sender()


def address_pair(name: Any) -> tuple[str, int | None] | None:
    """Return a socket's name as ASGI has it; a unix socket has its path."""
    if isinstance(name, tuple):
        return name[0], name[1]
    return (name, None) if isinstance(name, str) and name else None
