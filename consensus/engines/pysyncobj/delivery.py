"""From PySyncObj's committed frames to the host: counting, skipping, slicing.

PySyncObj numbers frames; the host wants one index for each command. So commands are counted, from
the position that the snapshot tells. What a durable machine has already is skipped. The rest waits
in a queue and reaches the host in slices, so that catching up does not hold the loop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from consensus.engine import EngineHost
from consensus.engines.pysyncobj.codec import Frame
from consensus.engines.pysyncobj.dump import DumpReader
from consensus.types import Committed, Position

DELIVER_BATCH_MAX: Final = 256
"""Commands handed to the host at once."""
DELIVER_SLICE_S: Final = 0.005
"""Delivery goes on for this long, in seconds, before other work gets its turn."""
DELIVER_QUEUE_MAX: Final = 50_000
"""Commands that may wait for the host; beyond it the engine stops taking part until it is less."""


@attrs.frozen(slots=True)
class Barrier:
    """Calls ``reached`` with the index delivered before it."""

    reached: Callable[[int], None]


class Delivery:
    """The queue between PySyncObj and the host.

    Args:
        host: whom to deliver to.
        base: position of the snapshot that the log goes on from.
        has: the machine's own position, when it is ahead of ``base``.
    """

    def __init__(self, host: EngineHost, base: Position, has: Position | None) -> None:
        self._host = host
        self._index = base.index
        self._has = has
        self._queue: deque[Committed | Barrier | DumpReader] = deque()
        self._waiting = 0
        self._restoring: tuple[DumpReader, Iterator[None]] | None = None
        self.delivered_index = max(base.index, has.index if has else 0)

    @property
    def index(self) -> int:
        """Index of the last command that PySyncObj committed and applied here."""
        return self._index

    @property
    def waiting(self) -> int:
        """How much waits for the host: commands, barriers and snapshots."""
        return self._waiting + (self._restoring is not None)

    @property
    def skipping(self) -> bool:
        """Whether the machine is still ahead of what PySyncObj has committed again."""
        return self._has is not None

    def frame(self, frame: Frame, term: int) -> None:
        """Queue the commands of a committed frame."""
        if not frame.proposals:
            return
        first, self._index = self._index + 1, self._index + len(frame.proposals)
        committed = Committed.of(term, first, frame.proposals)
        has = self._has
        if has is not None and first <= has.index:
            if has.index > self._index:
                return
            self._has = None
            if term != has.term:
                self._host.halt(
                    f"the machine stands at index {has.index} of term {has.term}, but the "
                    f"group committed index {has.index} in term {term}: the log was "
                    "replaced under it. Remove this member's data and let it join again"
                )
            if has.index == self._index:
                return
            committed = committed.after(has.index)
        self._waiting += len(committed.commands)
        while len(committed.commands) > DELIVER_BATCH_MAX:
            end = committed.index + DELIVER_BATCH_MAX - 1
            self._queue.append(committed.up_to(end))
            committed = committed.after(end)
        self._queue.append(committed)

    def barrier(self, reached: Callable[[int], None]) -> None:
        """Call ``reached`` once everything queued before has reached the host."""
        self._queue.append(Barrier(reached))
        self._waiting += 1

    def install(self, reader: DumpReader) -> None:
        """Queue a snapshot that takes the place of everything before it."""
        self._index = reader.head.position.index
        self._has = None
        self._queue.append(reader)
        self._waiting += 1

    def pump(self, limit_s: float = DELIVER_SLICE_S) -> bool:
        """Deliver for about ``limit_s`` seconds; return whether anything is left."""
        deadline = time.monotonic() + limit_s
        while (self._queue or self._restoring) and not self._host.is_halted():
            if not self._restore_step():
                self._deliver_some()
            if time.monotonic() >= deadline:
                break
        return self.waiting > 0

    def drain(self) -> None:
        """Deliver everything now."""
        while self.pump(limit_s=1.0) and not self._host.is_halted():
            pass

    def close(self) -> None:
        """Drop what waits."""
        if self._restoring is not None:
            self._restoring[0].close()
            self._restoring = None
        for item in self._queue:
            if isinstance(item, DumpReader):
                item.close()
        self._queue.clear()
        self._waiting = 0

    def _restore_step(self) -> bool:
        """Do one step of a restore that is under way or next; False when none is."""
        if self._restoring is None:
            if not self._queue or not isinstance(self._queue[0], DumpReader):
                return False
            reader = self._queue.popleft()
            assert isinstance(reader, DumpReader)
            self._waiting -= 1
            steps = self._host.restore_steps(reader.head.position, reader.chunks())
            self._restoring = (reader, steps)
        reader, steps = self._restoring
        try:
            next(steps)
        except StopIteration:
            reader.close()
            self._restoring = None
            self.delivered_index = reader.head.position.index
        return True

    def _deliver_some(self) -> None:
        batch: list[Committed] = []
        queue = self._queue
        commands = 0
        while queue and isinstance(item := queue[0], Committed):
            if commands + len(item.commands) > DELIVER_BATCH_MAX:
                break
            queue.popleft()
            batch.append(item)
            commands += len(item.commands)
        if batch:
            self._waiting -= commands
            self._host.committed(batch)
            self.delivered_index = batch[-1].last_index
        while queue and isinstance(queue[0], Barrier):
            barrier = queue.popleft()
            assert isinstance(barrier, Barrier)
            self._waiting -= 1
            barrier.reached(self.delivered_index)
