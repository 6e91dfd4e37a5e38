"""A received snapshot on its way into the machine, slice by slice.

The log makes way for a snapshot at once, and the member goes on to follow and to acknowledge. The
machine takes longer, up to minutes for gigabytes: it takes a slice in each turn of the loop, and
what is committed meanwhile waits here, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from consensus.engines.native.batches import commands_in
from consensus.raft.messages import LogEntry
from consensus.types import Position

HELD_APPLIED: Final = 200
"""Commands that waited and are applied in one slice; the entry that reaches it is applied whole."""


@attrs.define(slots=True)
class Restore:
    """One restore under way.

    ``position`` is where the machine will stand after the last step; None once it does. ``held``
    has what was committed since. It needs no bound of its own: the log holds the same entries.
    """

    _steps: Iterator[None]
    position: Position | None
    held: list[LogEntry] = attrs.field(factory=list)

    def step(self) -> bool:
        """Do the next step; return whether there was one."""
        for _ in self._steps:
            return True
        return False

    def take_held(self) -> list[LogEntry]:
        """Return what is to be applied next of what is held, and hold it no longer."""
        commands = taken = 0
        while taken < len(self.held) and commands < HELD_APPLIED:
            commands += commands_in(self.held[taken])
            taken += 1
        batch, self.held = self.held[:taken], self.held[taken:]
        return batch
