"""Running toxid: the HTTP API and the proxies on one event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Final

import structlog

from chaos.toxid.api import application
from chaos.toxid.registry import Registry
from consensus.http1 import Http1Server

STOP_TIMEOUT_S: Final = 1.0

_log = structlog.get_logger()


class ToxidServer:
    """One toxid on the running event loop.

    Args:
        host: address of the API; port 0 lets the system choose.
        port: port of the API.
        seed: every random choice of every toxic follows from it.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, seed: int = 0) -> None:
        self.registry = Registry(seed)
        self._host, self._port = host, port
        self._server: Http1Server | None = None
        self.address = ""
        """The API's "host:port" once started."""

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        bound = socket.create_server((self._host, self._port))
        host, port = bound.getsockname()[:2]
        self.address = f"{host}:{port}"
        self._server = Http1Server(application(self.registry), [bound])
        await self._server.start()

    async def stop(self) -> None:
        """Drop every connection and stop listening."""
        self.registry.close()
        if self._server is not None:
            await self._server.stop(STOP_TIMEOUT_S)
            self._server = None


async def serve(host: str, port: int, seed: int, started: Callable[[str], None]) -> None:
    """Run a toxid until SIGINT or SIGTERM; ``started`` gets its address.

    Raises:
        OSError: the address cannot be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = ToxidServer(host, port, seed)
    await server.start()
    started(server.address)
    try:
        await stop.wait()
    finally:
        await server.stop()
