"""Watches the event loop: how long was it away at worst?

A timer that should fire every ``INTERVAL_S`` notes how much later it fires. Whatever holds the loop
(a long apply, a collection of garbage, a busy machine) shows as a gap, and delays every heartbeat
by as much.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

INTERVAL_S: Final = 0.01
WINDOW_S: Final = 30.0


class LoopMonitor:
    """Measures gaps of the running loop between ``start`` and ``stop``."""

    def __init__(self) -> None:
        self.gap_max_s = 0.0
        """Longest gap since the start, in seconds."""
        self._window_s = 0.0
        self._last_window_s = 0.0
        self._window_ends = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop

    @property
    def gap_s(self) -> float:
        """Longest gap of the last 30 to 60 seconds, in seconds."""
        return max(self._window_s, self._last_window_s)

    def start(self) -> None:
        """Begin to measure; call it on the loop, after start-up is over."""
        self._loop = asyncio.get_running_loop()
        # Not the loop's own clock: uvloop counts whole milliseconds, and once a turn.
        now = time.monotonic()
        self._window_ends = now + WINDOW_S
        self._arm(now)

    def stop(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, now: float) -> None:
        self._due = now + INTERVAL_S
        self._timer = self._loop.call_later(INTERVAL_S, self._fired)

    def _fired(self) -> None:
        now = time.monotonic()
        gap = now - self._due
        if gap > self._window_s:
            self._window_s = gap
            self.gap_max_s = max(self.gap_max_s, gap)
        if now >= self._window_ends:
            self._last_window_s, self._window_s = self._window_s, 0.0
            self._window_ends = now + WINDOW_S
        self._arm(now)
