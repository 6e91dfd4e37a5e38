"""The only place that reads real time, so that everything else can be run on another clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of wall-clock time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""


class SystemClock:
    """This machine's wall clock."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as the operating system has it; it may jump."""
        return time.time_ns() // 1_000_000
