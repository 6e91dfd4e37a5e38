"""Running toxid: the HTTP API on h2corn, the proxies on the same event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

import structlog
from h2corn import Config, Server

from chaos.toxid.api import application
from chaos.toxid.registry import Registry

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
        self._server = Server(
            application(self.registry),  # type: ignore[arg-type]
            Config(
                runtime_threads=1,  # one number for all servers of a process
                bind=(f"{host}:{port}",),
                lifespan="off",
                access_log=False,
                timeout_graceful_shutdown=STOP_TIMEOUT_S,
            ),
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The API's "host:port" once started."""
        return str(self._server.addresses[0])

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._task = asyncio.create_task(self._server.serve())
        started = asyncio.create_task(self._server.wait_started())
        await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            started.cancel()
            await self._task
        await started

    async def stop(self) -> None:
        """Drop every connection and stop listening."""
        self.registry.close()
        if self._task is not None:
            self._server.shutdown()
            await self._task
            self._task = None


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
