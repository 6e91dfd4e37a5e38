"""The background scrub: every stored value is checked again and again, read or not.

Disks forget silently. A value that nobody reads would be found damaged only on the day it is
needed; the scrub finds it while the other members still have it. It takes small slices and pauses
far longer than it works, so that it costs a few percent of one core while it runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import Final

import lmdb

from consensus.errors import StorageError

PAUSE_FACTOR: Final = 20
"""A slice is followed by a pause this many times as long: about five percent of a core."""

PAUSE_MIN_S: Final = 0.005
INTERVAL_S: Final = 30.0
"""Seconds between the end of one scrub and the start of the next."""


class Scrubber:
    """Scrubs for as long as it is left running.

    Args:
        steps: begins one scrub; it yields between slices and returns how many values it checked.
        damaged: told, for a person, of the first damage.
        interval_s: seconds between two scrubs.
    """

    def __init__(
        self,
        steps: Callable[[], Generator[None, None, int]],
        damaged: Callable[[str], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._steps = steps
        self._damaged = damaged
        self._interval_s = interval_s
        self.rounds = 0

    async def run(self) -> None:
        """Scrub, wait, scrub again; end at the first damage."""
        while True:
            try:
                await self.once()
            except (StorageError, lmdb.Error) as error:
                self._damaged(f"the scrub found damage: {error}")
                return
            await asyncio.sleep(self._interval_s)

    async def once(self) -> int:
        """Check everything once, with pauses; return how many values were checked.

        Raises:
            StorageError, lmdb.Error: what was found damaged.
        """
        steps = self._steps()
        while True:
            # Its own work, not the time in which others had the processor: it must not starve.
            started = time.thread_time()
            try:
                next(steps)
            except StopIteration as end:
                self.rounds += 1
                return int(end.value)
            took = time.thread_time() - started
            await asyncio.sleep(max(PAUSE_MIN_S, took * PAUSE_FACTOR))
