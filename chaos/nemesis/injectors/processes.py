"""Faults of processes: killed, stopped, starved, restarted in turns or again and again."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from chaos.cluster.cluster import ClusterFailed
from chaos.nemesis.injectors.base import Injector

SERVE_TIMEOUT_S: Final = 15.0
"""A rolling restart goes on to the next member after this, whether the last one serves or not."""

STARVED_TURNS: Final = 3
"""Turns after which starving counts as seen."""


class Kill(Injector):
    """proc.kill."""

    async def strike(self) -> None:
        """See ``Injector``."""
        await self.cluster.kill(self.victims, self)

    async def evidence(self) -> str:
        """See ``Injector``."""
        for victim in self.victims:
            code = self.cluster.processes[victim].exit_code
            if code is not None and not await self.cluster.serves(victim):
                return f"{victim} did not serve a linearizable read, exit code {code}"
        return ""

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.cluster.restart(self.victims, self)


class Pause(Injector):
    """proc.pause."""

    async def strike(self) -> None:
        """See ``Injector``."""
        await self.cluster.pause(self.victims, self)

    async def evidence(self) -> str:
        """See ``Injector``."""
        member = await self.not_serving(self.victims)
        return f"{member} did not serve a linearizable read" if member else ""

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.cluster.resume(self.victims, self)


class Starve(Injector):
    """proc.starve: SIGSTOP and SIGCONT in turns."""

    async def strike(self) -> None:
        """See ``Injector``."""
        self._turns = 0
        self.begin_loop(self._starve())

    async def _starve(self) -> None:
        run_s, stop_s = self.option("run_ms", int) / 1000, self.option("stop_ms", int) / 1000
        going_on = True
        while going_on:
            await self.cluster.pause(self.victims, self)
            self._turns += any(self.cluster.processes[one].paused for one in self.victims)
            await self.rest(stop_s)
            await self.cluster.resume(self.victims, self)
            going_on = await self.rest(run_s)

    async def evidence(self) -> str:
        """See ``Injector``."""
        if self._turns < STARVED_TURNS:
            return ""
        return f"{self.victims[0]} was stopped and let run {self._turns} times"

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.end_loop()
        await self.cluster.resume(self.victims, self)


class RestartLoop(Injector):
    """proc.restart_loop."""

    async def strike(self) -> None:
        """See ``Injector``."""
        self._kills = 0
        self.begin_loop(self._again_and_again())

    async def _again_and_again(self) -> None:
        every_s = self.option("every_s", float)
        going_on = True
        while going_on:
            await self.cluster.kill(self.victims, self)
            self._kills += 1
            await self.cluster.restart(self.victims, self)
            going_on = await self.rest(every_s)

    async def evidence(self) -> str:
        """See ``Injector``."""
        if self._kills < 2:
            return ""
        starts = self.cluster.processes[self.victims[0]].starts
        return f"{self.victims[0]} was killed {self._kills} times and has started {starts} times"

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.end_loop()
        await self.cluster.restart(self.victims, self)


class RollingRestart(Injector):
    """proc.rolling_restart: one after the other; it takes as long as it takes."""

    async def strike(self) -> None:
        """See ``Injector``."""
        self._restarted: list[str] = []
        self.begin_loop(self._roll())

    async def _roll(self) -> None:
        for member in self.victims:
            if self.option("graceful", bool):
                await self.cluster.end(member)
            await self.cluster.kill([member], self)
            await self.cluster.restart([member], self)
            self._restarted.append(member)
            with suppress(ClusterFailed):
                await self.cluster.wait_serving(SERVE_TIMEOUT_S, [member])

    async def evidence(self) -> str:
        """See ``Injector``."""
        if not self._restarted:
            return ""
        return f"{', '.join(self._restarted)} ended and started again"

    async def mend(self) -> None:
        """Let it come to its end first: each member's turn has a limit."""
        await self.end_loop()
        await self.cluster.restart(self.victims, self)
