"""Faults of wall clocks, through the file that ``consensus.clock`` reads."""

from __future__ import annotations

import os
import struct

from chaos.nemesis.injectors.base import Injector
from consensus.clock import CLOCK_FILE

_SHIFT = struct.Struct("<q")


class Skew(Injector):
    """clock.skew, and the base of every fault of clocks."""

    async def strike(self) -> None:
        """See ``Injector``."""
        self._before = self._readings()
        self.shift(self.option("by_ms", int))

    async def evidence(self) -> str:
        """The target stamped something with the wrong time."""
        for victim, readings in self._readings().items():
            times = readings - self._before[victim]
            if times > 0:
                by_s = self.option("by_ms", int) / 1000
                return f"{victim} read its clock {times} times, which is wrong by {by_s:g} s"
        return ""

    async def mend(self) -> None:
        """See ``Injector``."""
        self.shift(0)

    def shift(self, by_ms: int) -> None:
        """Let the targets' clocks be wrong by so much."""
        for victim in self.victims:
            handle = os.open(self.cluster.clocks[victim], os.O_WRONLY)
            try:
                os.pwrite(handle, _SHIFT.pack(by_ms), 0)
            finally:
                os.close(handle)

    def _readings(self) -> dict[str, int]:
        return {
            victim: CLOCK_FILE.unpack(self.cluster.clocks[victim].read_bytes())[1]
            for victim in self.victims
        }


class Strobe(Skew):
    """clock.strobe."""

    async def strike(self) -> None:
        """See ``Injector``."""
        await super().strike()
        self.begin_loop(self._strobe())

    async def _strobe(self) -> None:
        pause_s = self.option("every_ms", int) / 1000
        wrong = True
        while await self.rest(pause_s):
            wrong = not wrong
            self.shift(self.option("by_ms", int) if wrong else 0)

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.end_loop()
        self.shift(0)
