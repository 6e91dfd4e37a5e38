"""A new connection on a client port: HTTP/2 or HTTP/1.1, by its first bytes, as etcd tells them.

HTTP/1.1 (curl, probes, the JSON gateway's users) goes to ``consensus.http1``; both run the same
application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from consensus.http1 import Http1
from kvstore.http2.connection import STREAMS_NO_LIMIT, Http2Connection
from kvstore.http2.frames import PREFACE
from kvstore.http2.keepalive import Keepalive
from kvstore.http2.refusals import Refusals, bad_request
from kvstore.http2.stream import App

FIRST_BYTES_TIMEOUT_S: Final = 30.0
"""How long a client may be connected without a word. Probes may be slow on a loaded machine."""

SIGNATURE: Final = PREFACE[:16]
"""Enough to be sure: no HTTP/1.1 request begins with these bytes."""

PROTOCOLS: Final = ("h2", "http/1.1")
"""What a client port speaks, in the order of preference (ALPN)."""

HANDSHAKE_RECORD: Final = 0x16
"""The first byte of a client that speaks TLS."""
USE_HTTP: Final = "this port does not speak TLS: use http://"


class Front:
    """What all connections of a listener share, and the list of them.

    Args:
        app: the ASGI application.
        refusals: tells of clients that are refused.
        max_concurrent_streams: streams that one HTTP/2 connection may have open.
        keepalive_interval_s, keepalive_timeout_s: see ``Keepalive``.
    """

    def __init__(
        self,
        app: App,
        refusals: Refusals,
        max_concurrent_streams: int = STREAMS_NO_LIMIT,
        keepalive_interval_s: float = 0.0,
        keepalive_timeout_s: float = 20.0,
    ) -> None:
        self._app = app
        self._refusals = refusals
        self._streams_max = max_concurrent_streams
        self._keepalive = (keepalive_interval_s, keepalive_timeout_s)
        self._new: set[Acceptor] = set()
        self._http2: set[Http2Connection] = set()
        self._http1 = Http1(app)
        self._changed = asyncio.Event()

    def accept(self) -> asyncio.Protocol:
        """Return the protocol for a new connection (``loop.create_server`` calls this)."""
        acceptor = Acceptor(self._protocol, self._new.discard, self._refusals)
        self._new.add(acceptor)
        return acceptor

    def _protocol(self, http2: bool) -> asyncio.Protocol:
        if not http2:
            return self._http1.protocol()
        connection = Http2Connection(
            self._app, self._streams_max, Keepalive(*self._keepalive), self._gone
        )
        self._http2.add(connection)
        return connection

    def _gone(self, connection: Http2Connection) -> None:
        self._http2.discard(connection)
        self._changed.set()

    async def drain(self, timeout_s: float) -> None:
        """Let what is under way end, take nothing new, and cut off what has not ended in time."""
        for acceptor in tuple(self._new):
            acceptor.abort()
        for connection in tuple(self._http2):
            connection.drain()
        await asyncio.gather(self._drain_http2(timeout_s), self._http1.drain(timeout_s))

    async def _drain_http2(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while self._http2:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            for connection in tuple(self._http2):
                connection.abort()


class Acceptor(asyncio.Protocol):
    """A connection that has not said yet what it speaks.

    Args:
        choose: returns the protocol to go on with; True means HTTP/2.
        settled: called once when this protocol's part is over.
        refusals: tells of clients that are refused.
    """

    def __init__(
        self,
        choose: Callable[[bool], asyncio.Protocol],
        settled: Callable[[Acceptor], None],
        refusals: Refusals,
    ) -> None:
        self._choose = choose
        self._settled = settled
        self._refusals = refusals
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._aborted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes, but not for ever."""
        self._transport = transport = cast(asyncio.Transport, transport)
        if self._aborted:
            transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(FIRST_BYTES_TIMEOUT_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Choose as soon as the bytes tell."""
        transport = self._transport
        if transport is None or self._aborted:
            return
        if not self._seen and data[0] == HANDSHAKE_RECORD:
            self._refusals.tell(transport.get_extra_info("peername"), "it speaks TLS")
            transport.write(bad_request(USE_HTTP))
            transport.close()
            return
        self._seen += data
        http2 = self._seen.startswith(SIGNATURE)
        if not http2 and SIGNATURE.startswith(self._seen):
            return
        self._end()
        protocol = self._choose(http2)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(self._seen)

    def connection_lost(self, _: Exception | None) -> None:
        """It went away without a word."""
        self._end()

    def abort(self) -> None:
        """Cut it off; the loop may have accepted it and not told yet."""
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._settled(self)
