"""Many deadlines on one timer of the event loop.

Nearly every request has a deadline, and nearly none comes to it. A timer of the loop for each costs
more than the rest of its bookkeeping (uvloop opens and closes a handle for it), so deadlines are
kept in a heap here and the loop is asked for one wake-up, at the earliest.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, Final

CANCELLED_KEPT_MAX: Final = 1_000
"""Cancelled deadlines that may lie in the heap; beyond that, no more than live ones do."""


class Deadline:
    """One deadline; ``cancel`` it when what it guards is done."""

    __slots__ = ("_call", "_deadlines")

    def __init__(self, deadlines: Deadlines, call: Callable[[], Any]) -> None:
        self._deadlines = deadlines
        self._call: Callable[[], Any] | None = call

    @property
    def live(self) -> bool:
        """Whether it is neither cancelled nor passed."""
        return self._call is not None

    def cancel(self) -> None:
        """Forget it. Safe after it has passed, and twice."""
        if self._call is not None:
            self._call = None
            self._deadlines.cancelled()

    def passed(self) -> None:
        """Make the call, unless it was cancelled."""
        call, self._call = self._call, None
        if call is not None:
            call()


class Deadlines:
    """The deadlines of one event loop's requests; the loop is the one that ``add`` is called in."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heap: list[tuple[float, int, Deadline]] = []
        self._number = 0
        self._cancelled = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def __len__(self) -> int:
        """How many lie in the heap, cancelled ones included."""
        return len(self._heap)

    def add(self, delay_s: float, call: Callable[[], Any]) -> Deadline:
        """Have ``call`` called in ``delay_s`` seconds, unless it is cancelled before."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        deadline = Deadline(self, call)
        at = loop.time() + delay_s
        self._number += 1
        heapq.heappush(self._heap, (at, self._number, deadline))
        if self._timer is None or at < self._timer_at:
            self._arm(loop, at)
        return deadline

    def cancelled(self) -> None:
        """A deadline in the heap was cancelled: clear them out once they are many."""
        self._cancelled += 1
        if self._cancelled > max(CANCELLED_KEPT_MAX, len(self._heap) // 2):
            self._heap = [item for item in self._heap if item[2].live]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def _arm(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_at(at, self._wake, loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = max(loop.time(), self._timer_at)  # a timer may come a little early
        try:
            while self._heap and (self._heap[0][0] <= now or not self._heap[0][2].live):
                deadline = heapq.heappop(self._heap)[2]
                if deadline.live:
                    deadline.passed()
                else:
                    self._cancelled -= 1
        finally:
            if self._heap and (self._timer is None or self._heap[0][0] < self._timer_at):
                self._arm(loop, self._heap[0][0])
