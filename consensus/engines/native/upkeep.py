"""Work that a member does beside its messages: shortening its log, restoring its machine.

Both may take seconds for a large machine, so both go in slices, one in each turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from consensus.engine import EngineHost
from consensus.engines.native.driver import Driver
from consensus.errors import StorageError


class Upkeep:
    """The tasks of one running member, at most one of each kind.

    Args:
        driver: the member's driver.
        host: the node.
        spawn: runs a task that ends with the engine.
        wake: has the driver pumped soon.
        halt: stops the member, with the reason.
    """

    def __init__(
        self,
        driver: Driver,
        host: EngineHost,
        spawn: Callable[[Coroutine[None, None, None]], object],
        wake: Callable[[], None],
        halt: Callable[[str], None],
    ) -> None:
        self._driver = driver
        self._host = host
        self._spawn = spawn
        self._wake = wake
        self._halt = halt
        self._stopped = False
        self._writing = False
        self._restoring = False

    def pumped(self) -> None:
        """Something happened: begin what is due now."""
        if self._driver.wants_compaction:
            self.compact()
        if self._driver.restoring and not self._restoring:
            self._restoring = True
            self._spawn(self._restore())

    def compact(self) -> None:
        """Shorten the log, at once where the machine is durable, soon where it is not."""
        if self._writing or self._driver.restoring:
            return
        position = self._host.position()
        if position.index:
            self._driver.shorten_to_command(position.index)
            return
        self._writing = True
        self._spawn(self._write_snapshot())

    def stop(self) -> None:
        """Do no more: the driver is being closed."""
        self._stopped = True

    async def _write_snapshot(self) -> None:
        try:
            for _ in self._driver.take_snapshot():
                await asyncio.sleep(0)
        except StorageError as error:
            self._halt(str(error))
        finally:
            self._writing = False

    async def _restore(self) -> None:
        """Put a received snapshot into the machine."""
        try:
            while not self._stopped and self._driver.restore_slice():  # noqa: ASYNC110 - it works
                await asyncio.sleep(0)
        except StorageError as error:
            self._halt(str(error))
        finally:
            self._restoring = False
        self._wake()
