"""Members that come and go: each fault brings one new member and removes one.

A change has to go through whatever else is broken meanwhile, so it takes as long as it takes, and
the fault lasts at least that long. One group changes one step at a time: changes of several faults
wait for each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from chaos.cluster.cluster import ClusterFailed
from chaos.cluster.membership import GivenUp, add_learner, promote, remove
from chaos.nemesis.injectors.base import PROBE_TIMEOUT_S, Injector

CHANGE_TIMEOUT_S: Final = 120.0
"""For one change, once others are over; after that the run fails, and says which one it was."""

MEMBERS_MIN: Final = 3
"""Where fewer would be left to agree, the new member comes before the old one goes."""


class MemberChange(Injector):
    """What both kinds share."""

    evidence_timeout_s = CHANGE_TIMEOUT_S

    _newcomer = ""
    _gone = ""

    def _going_on(self) -> bool:
        return time.monotonic() < self._deadline

    async def _add(self) -> None:
        """Bring the new member, a learner first."""
        name = await add_learner(self.cluster, self._going_on)
        await promote(self.cluster, name, self._going_on)
        self._newcomer = name

    async def _remove(self) -> None:
        """Remove the target, or another one if it has gone already."""
        members = [one for one in self.cluster.members if one != self._newcomer]
        victim = self.victims[0] if self.victims[0] in members else self.rng.choice(members)
        await remove(self.cluster, victim, self._going_on)
        self._gone = victim

    async def _change(self, change: Callable[[], Awaitable[None]]) -> None:
        """Make a change as soon as nobody else makes one."""
        lock = self.cluster.changing
        try:
            await asyncio.wait_for(lock.acquire(), CHANGE_TIMEOUT_S)
        except TimeoutError:
            text = f"other changes of the members took more than {CHANGE_TIMEOUT_S:g} s"
            raise ClusterFailed(f"{self.fault.kind}: {text}") from None
        self._deadline = time.monotonic() + CHANGE_TIMEOUT_S
        try:
            await change()
        except GivenUp as error:
            raise ClusterFailed(f"{self.fault.kind}: {error}") from error
        finally:
            lock.release()


class AddMember(MemberChange):
    """member.add."""

    async def strike(self) -> None:
        """See ``Injector``."""
        self.begin_loop(self._change(self._add))
        await asyncio.sleep(0)

    async def evidence(self) -> str:
        """See ``Injector``."""
        return f"{self._newcomer} joined as a learner and was promoted" if self._newcomer else ""

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.end_loop()
        await self._change(self._remove)


class RemoveMember(MemberChange):
    """member.remove."""

    async def _replace(self) -> None:
        """Remove it, after the new one has come if too few would be left."""
        if len(self.cluster.members) < MEMBERS_MIN:
            await self._add()
        await self._remove()

    async def strike(self) -> None:
        """See ``Injector``."""
        self.begin_loop(self._change(self._replace))
        await asyncio.sleep(0)

    async def evidence(self) -> str:
        """See ``Injector``."""
        if not self._gone or await self.cluster.serves(self._gone, PROBE_TIMEOUT_S):
            return ""
        return f"{self._gone} was removed and serves no more"

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.end_loop()
        if not self._newcomer:
            await self._change(self._add)
