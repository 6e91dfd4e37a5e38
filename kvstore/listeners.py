"""The sockets that clients connect to, bound before anything else: a taken port is told first.

h2corn adopts them once the member is ready; until then a client waits in the kernel's queue, as it
does with etcd.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import h2corn

from consensus.errors import ConfigError
from kvstore.rpc.listener import h2corn_config, silence_banner
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
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


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
        max_concurrent_streams: streams that one connection may have open.
    """

    def __init__(
        self, app: Any, sockets: Sequence[socket.socket], max_concurrent_streams: int
    ) -> None:
        self._sockets = tuple(sockets)
        bind = tuple(f"fd://{bound.fileno()}" for bound in self._sockets)
        self._server = h2corn.Server(app, h2corn_config(bind, max_concurrent_streams))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to accept connections."""
        silence_banner()
        self._task = asyncio.create_task(self._server.serve(), name="client listeners")
        await self._server.wait_started()

    async def stop(self) -> None:
        """Stop accepting, let responses under way leave, and return within ``STOP_TIMEOUT_S``.

        The application must have ended its streams.
        """
        if self._task is not None:
            self._server.shutdown()
            await asyncio.wait({self._task}, timeout=STOP_TIMEOUT_S)
            if self._task.done() and not self._task.cancelled():
                self._task.exception()
        for bound in self._sockets:
            bound.close()
