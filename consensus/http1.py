"""HTTP/1.1 for ASGI applications: uvicorn's protocol on sockets and in a process of our own.

uvicorn's ``Server`` takes over a process and its signals; here only its protocol is used, one
object for each connection, so that a node, a store or a proxy serves HTTP beside all else it does.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application."""

IDLE_TIMEOUT_S: Final = 24 * 3600
"""After so long an idle connection is closed: clients of a cluster stay connected."""


class Http1:
    """Makes the protocols of connections, and ends them.

    Args:
        app: what serves the requests.
    """

    def __init__(self, app: App) -> None:
        self._state = ServerState()
        self._config = Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_TIMEOUT_S,
        )

    def protocol(self) -> asyncio.Protocol:
        """Return the protocol for a new connection."""
        return H11Protocol(self._config, self._state, {})

    async def drain(self, timeout_s: float) -> None:
        """Close idle connections, let requests under way end, and cut off what takes longer."""
        for connection in tuple(self._state.connections):
            connection.shutdown()
        if tasks := set(self._state.tasks):
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            if late:
                for connection in tuple(self._state.connections):
                    connection.transport.abort()


class Http1Server:
    """Serves an application on sockets that are bound already.

    Args:
        app: the ASGI application.
        sockets: listening; closed by ``stop``.
    """

    def __init__(self, app: App, sockets: Sequence[socket.socket]) -> None:
        self._http1 = Http1(app)
        self._sockets = tuple(sockets)
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        for bound in self._sockets:
            self._servers.append(await loop.create_server(self._http1.protocol, sock=bound))

    async def stop(self, timeout_s: float) -> None:
        """Stop accepting, and return when requests under way have ended, or after ``timeout_s``."""
        for server in self._servers:
            server.close()
        for bound in self._sockets:
            bound.close()
        await self._http1.drain(timeout_s)
