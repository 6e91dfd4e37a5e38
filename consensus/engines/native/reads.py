"""Linearizable reads: each waits for an index that a round of heartbeats has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from consensus.engines.native.driver import Driver
from consensus.errors import ReadFailed

ROUND_TICKS: Final = 5
"""Ticks that one try waits for its round: the message may be lost, or the leader be gone."""
RETRY_TICKS: Final = 0.25
"""Ticks until the next try, where no leader took this one."""


class Reads:
    """The reads of one member.

    Args:
        running: returns the driver; raises ``Stopped`` when there is none any more.
        wake: has the driver pumped soon.
        tick_s: the length of a tick, in seconds.
    """

    def __init__(
        self, running: Callable[[], Driver], wake: Callable[[], None], tick_s: float
    ) -> None:
        self._running = running
        self._wake = wake
        self._tick_s = tick_s

    async def index(self, timeout_s: float) -> int:
        """Return an applied index that is safe to read at; try again while leadership moves.

        Raises:
            ReadFailed: no leader confirmed it in time.
            Stopped: the engine was stopped.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            left = deadline - loop.time()
            if left <= 0:
                raise ReadFailed(f"no leader confirmed the read in {timeout_s:g} s")
            index = await self.once(min(left, ROUND_TICKS * self._tick_s))
            if index is not None:
                return index

    async def once(self, timeout_s: float) -> int | None:
        """Try once. None: no leader confirmed it in time, or none took it."""
        driver = self._running()
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def done(index: int | None) -> None:
            if not future.done():
                future.set_result(index)

        driver.read_index(done)
        self._wake()
        try:
            async with asyncio.timeout(timeout_s):
                index = await future
        except TimeoutError:
            driver.forget_read(done)
            return None
        if index is None:
            await asyncio.sleep(min(timeout_s, RETRY_TICKS * self._tick_s))
        return index
