"""What a load generator reports, and the arithmetic that all reports share."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
UTIME_FIELD: Final = 11
"""Where utime stands in /proc/PID/stat after the name in parentheses; stime follows (proc(5))."""


@attrs.frozen(slots=True)
class LoadResult:
    """One measured stretch of load, without its warm-up.

    ``operations`` succeeded and are what the times are of; ``errors`` failed. ``seconds`` is how
    long it took in all, ``client_cpu_s`` the generator's own CPU time in it.
    """

    operations: int
    errors: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    client_cpu_s: float
    first_error: str = ""

    @property
    def rate(self) -> float:
        """Successful operations per second."""
        return self.operations / self.seconds

    @classmethod
    def of(
        cls,
        times_s: Iterable[float],
        seconds: float,
        client_cpu_s: float,
        errors: int = 0,
        first_error: str = "",
    ) -> LoadResult:
        """Return the result of operations that took ``times_s`` each."""
        ordered = sorted(times_s)
        return cls(
            operations=len(ordered),
            errors=errors,
            seconds=seconds,
            p50_ms=quantile(ordered, 0.5) * 1000,
            p99_ms=quantile(ordered, 0.99) * 1000,
            max_ms=quantile(ordered, 1) * 1000,
            client_cpu_s=client_cpu_s,
            first_error=first_error,
        )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` (0 to 1) of the sorted values lie; 0.0 of none."""
    if not ordered:
        return 0.0
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of what is there; None of nothing."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Return ours/theirs; None where one is missing or nothing can be divided by it."""
    if ours is None or not theirs:
        return None
    return ours / theirs


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time, user and system, that these processes have used since they started.

    Raises:
        FileNotFoundError: a process is gone.
    """
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        ticks += int(fields[UTIME_FIELD]) + int(fields[UTIME_FIELD + 1])
    return ticks / CLOCK_TICKS
