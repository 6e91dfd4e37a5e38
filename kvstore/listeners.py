"""The sockets that clients connect to, bound before anything else: a taken port is told first.

They are accepted from once the member is ready; until then a client waits in the kernel's queue, as
it does with etcd.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from consensus.errors import ConfigError
from kvstore.http2.acceptor import Front
from kvstore.http2.connection import STREAMS_NO_LIMIT
from kvstore.http2.refusals import Refusals
from kvstore.http2.stream import App
from kvstore.http2.tls import Handshakes
from kvstore.urls import Url

BACKLOG: Final = 4096
UNIX_MODE: Final = 0o600
STOP_TIMEOUT_S: Final = 1.5


def bind_urls(urls: Sequence[Url], flag: str) -> list[socket.socket]:
    """Return listening sockets for ``urls``.

    Raises:
        ConfigError: an address is taken, not this machine's, or not allowed.
    """
    sockets: list[socket.socket] = []
    try:
        for url in urls:
            sockets.append(_bind(url))
    except OSError as error:
        for bound in sockets:
            bound.close()
        reasons = {
            errno.EADDRINUSE: "the address is already in use by another process",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
            errno.EACCES: "permission denied (ports below 1024 need privileges)",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        raise ConfigError(f"--{flag}: cannot listen on {url.text}: {reason}") from None
    return sockets


def _bind(url: Url) -> socket.socket:
    if url.scheme == "unix":
        path = Path(url.address)
        bound = socket.socket(socket.AF_UNIX)
        try:
            if path.is_socket() and not _answers(path):
                path.unlink()
            bound.bind(str(path))
            os.chmod(path, UNIX_MODE)
            bound.listen(BACKLOG)
        except OSError:
            bound.close()
            raise
        return bound
    family, _, _, _, address = _resolve(url)
    bound = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    # What is accepted inherits it. Loops set it by themselves, but asyncio's not on these sockets.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _resolve(url: Url) -> Any:
    """Return the address to bind, IPv4 before IPv6 as Go does for localhost."""
    found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    return min(found, key=lambda entry: entry[0] != socket.AF_INET)


class Listeners:
    """Serves one application on sockets that are bound already.

    Args:
        app: the ASGI application.
        sockets: listening sockets; closed when serving ends.
        tls_sockets: the same, for connections that are encrypted.
        tls: the certificates of ``tls_sockets``.
        max_concurrent_streams: streams that one connection may have open.
        keepalive_interval_s, keepalive_timeout_s: see ``kvstore.http2.keepalive.Keepalive``.
    """

    def __init__(
        self,
        app: App,
        sockets: Sequence[socket.socket],
        tls_sockets: Sequence[socket.socket] = (),
        tls: ssl.SSLContext | None = None,
        *,
        max_concurrent_streams: int = STREAMS_NO_LIMIT,
        keepalive_interval_s: float = 0.0,
        keepalive_timeout_s: float = 20.0,
    ) -> None:
        refusals = Refusals()
        self._front = Front(
            app, refusals, max_concurrent_streams, keepalive_interval_s, keepalive_timeout_s
        )
        self._accept = dict.fromkeys(sockets, self._front.accept)
        self._handshakes: Handshakes | None = None
        if tls is not None:
            self._handshakes = Handshakes(tls, self._front.accept, refusals)
            self._accept.update(dict.fromkeys(tls_sockets, self._handshakes.accept))
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        for bound, accept in self._accept.items():
            serve = (
                loop.create_unix_server if bound.family == socket.AF_UNIX else loop.create_server
            )
            self._servers.append(await serve(accept, sock=bound, backlog=BACKLOG))

    async def stop(self) -> None:
        """Stop accepting, let responses under way leave, and return within ``STOP_TIMEOUT_S``.

        The application must have ended its streams.
        """
        for server in self._servers:
            server.close()
        if self._handshakes is not None:
            self._handshakes.close()
        await self._front.drain(STOP_TIMEOUT_S)
        for bound in self._accept:
            bound.close()
