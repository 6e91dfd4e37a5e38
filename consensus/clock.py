"""The only place that reads real time, so that everything else can be run on another clock.

Fault tests shift the wall clock of one process without touching the machine's: the environment
variable ``RAFTYARD_CLOCK_FILE`` names a file of 16 bytes, two little-endian 64-bit numbers: how
many milliseconds to add to the time (signed; it may change at any moment), and how often the time
has been read, which this process writes.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from typing import Final, Protocol

from consensus.errors import ConfigError

CLOCK_FILE_VARIABLE: Final = "RAFTYARD_CLOCK_FILE"
CLOCK_FILE: Final = struct.Struct("<qQ")
"""What a clock file holds: the shift in milliseconds, and the number of readings."""

_READINGS: Final = struct.Struct("<Q")


class Clock(Protocol):
    """A source of wall-clock time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""


class SystemClock:
    """This machine's wall clock, shifted if ``RAFTYARD_CLOCK_FILE`` says so.

    Raises:
        ConfigError: the file that the variable names cannot be used.
    """

    def __init__(self) -> None:
        path = os.environ.get(CLOCK_FILE_VARIABLE)
        self._shift = _map(path) if path else None

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as the operating system has it; it may jump."""
        now_ms = time.time_ns() // 1_000_000
        if self._shift is None:
            return now_ms
        shift_ms, readings = CLOCK_FILE.unpack_from(self._shift)
        _READINGS.pack_into(self._shift, CLOCK_FILE.size - _READINGS.size, readings + 1)
        return now_ms + int(shift_ms)


def _map(path: str) -> mmap.mmap:
    try:
        with open(path, "r+b") as file:
            return mmap.mmap(file.fileno(), CLOCK_FILE.size)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{CLOCK_FILE_VARIABLE}: {path} is not a file of {CLOCK_FILE.size} bytes that can be "
            f"written: {error}"
        ) from error
