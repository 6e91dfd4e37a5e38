"""Machines in which something expires.

A state machine must not look at a clock, or its copies would differ. Time reaches it only as
``entry.clock_ms``, which the proposer of each entry stamped and which never runs backwards. So
every command first ends what is due by its own stamp, and only then does its work. Where no
commands come, no time passes; ``tick_while_leading`` has the leader propose a ``tick`` when
something is due.

What that means for a lease: it never ends in the middle of a command, all members agree at which
entry it ended, and it may end late (nobody proposed) or early (a member whose clock is ahead of the
others proposed). A holder that must be certain needs a fencing token: see ``statemachines.lock``.
"""

from __future__ import annotations

import abc
import asyncio
import heapq
from collections.abc import Iterator
from typing import Any, Final

import structlog

from consensus import ConsensusError, Consistency, Entry, Node, Role, command, query
from consensus.clock import SystemClock
from statemachines.rows import RowsMachine

log = structlog.get_logger(__name__)

TICK_INTERVAL_S: Final = 0.5
"""How often ``tick_while_leading`` looks whether something is due, in seconds."""

_STALE_MAX: Final = 64

Key = tuple[str, ...]


class Deadlines:
    """When each of many keys is due: set, move, cancel and pop in order, each O(log n).

    Ties go by key, so that the order is the same on every member. Derived from the state and
    rebuilt when that is restored, so it is no part of a snapshot.
    """

    def __init__(self) -> None:
        self._due: dict[Key, int] = {}
        self._heap: list[tuple[int, Key]] = []

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: Key, deadline_ms: int) -> None:
        """Make ``key`` due at ``deadline_ms``, in place of any earlier deadline of it."""
        self._due[key] = deadline_ms
        heapq.heappush(self._heap, (deadline_ms, key))
        if len(self._heap) > 2 * len(self._due) + _STALE_MAX:
            self._heap = [(deadline, key) for key, deadline in self._due.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: Key) -> None:
        """Forget ``key``; nothing happens if it is not there."""
        self._due.pop(key, None)

    def next_ms(self) -> int | None:
        """Return the earliest deadline, or None."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now_ms: int) -> Iterator[Key]:
        """Yield and forget each key that is due at ``now_ms``, the earliest first."""
        while (first := self.next_ms()) is not None and first <= now_ms:
            key = heapq.heappop(self._heap)[1]
            del self._due[key]
            yield key


class TimedMachine(RowsMachine):
    """A machine that ends what is due before it runs each command.

    A subclass sets deadlines in ``self.deadlines`` and says in ``lapse`` what happens at one.
    """

    def reset(self) -> None:
        """Become as new. Subclasses extend it, and call it to begin and before they load rows."""
        self.deadlines = Deadlines()

    @abc.abstractmethod
    def lapse(self, key: Key, now_ms: int) -> None:
        """The deadline of ``key`` has passed: end what it stands for. Never refuses."""

    def apply(self, entry: Entry) -> Any:
        """End what is due by the entry's clock, then run the command in it."""
        for key in self.deadlines.pop_due(entry.clock_ms):
            self.lapse(key, entry.clock_ms)
        return super().apply(entry)

    @command
    def tick(self) -> dict[str, Any]:
        """Let time pass: what is due by now has ended when this returns."""
        return {"clock_ms": self.entry.clock_ms, "next_expiry_ms": self.deadlines.next_ms()}

    @query
    def next_expiry(self) -> dict[str, Any]:
        """Return when the next thing is due, in milliseconds since the epoch, or None."""
        return {"next_expiry_ms": self.deadlines.next_ms()}


async def tick_while_leading(
    node: Node, machine: type[TimedMachine], interval_s: float = TICK_INTERVAL_S
) -> None:
    """Propose a ``tick`` whenever this node leads and something is due; run it as a task.

    Run one on every member: whichever leads does the work. It proposes nothing while nothing is
    due, so an idle group's log does not grow. Ends when it is cancelled or the node stops.

    Args:
        node: a node whose machine is a ``machine``.
        machine: the machine's class.
        interval_s: how often to look, in seconds; the most by which an expiry comes late.
    """
    clock = SystemClock()
    while not node.status().halted:
        if node.status().engine.role is Role.LEADER:
            try:
                upcoming = await node.query(machine.encode("next_expiry"), Consistency.SERIALIZABLE)
                due_ms = upcoming["next_expiry_ms"]
                if due_ms is not None and due_ms <= clock.now_ms():
                    await node.propose(machine.encode("tick"))
            except ConsensusError as error:
                # A lost tick costs nothing: the next one does its work too.
                log.debug("tick not applied", reason=str(error))
        await asyncio.sleep(interval_s)
