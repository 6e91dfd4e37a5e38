"""The contract of an injector: one fault under way on real processes.

``strike`` breaks, ``evidence`` says what shows that it had an effect, ``mend`` undoes this fault
and no other: faults overlap, so each works through the cluster's bookkeeping, as its own owner.
"""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from random import Random
from typing import ClassVar, Final, TypeVar

from chaos.cluster.cluster import Cluster
from chaos.history.recorder import Recorder
from chaos.nemesis.plan import PlannedFault
from chaos.nemesis.vocabulary import Value

PROBE_TIMEOUT_S = 0.4
EVIDENCE_TIMEOUT_S: Final = 10.0
"""A fault whose effect is not seen lasts up to this long."""

_T = TypeVar("_T", bound=Value)


class Injector(abc.ABC):
    """One fault.

    Args:
        cluster: what to break.
        fault: what was planned.
        victims: whom it strikes, members by name.
        rng: of what the plan leaves open.
        recorder: where it notes what checkers have to know of it.
    """

    evidence_timeout_s: ClassVar[float] = EVIDENCE_TIMEOUT_S

    def __init__(
        self,
        cluster: Cluster,
        fault: PlannedFault,
        victims: Sequence[str],
        rng: Random,
        recorder: Recorder,
    ) -> None:
        self.cluster = cluster
        self.recorder = recorder
        self.fault = fault
        self.victims = list(victims)
        self.rng = rng
        self._loop: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    @abc.abstractmethod
    async def strike(self) -> None:
        """Begin."""

    @abc.abstractmethod
    async def evidence(self) -> str:
        """What shows that it has an effect, for a person; "" if nothing does (yet)."""

    @abc.abstractmethod
    async def mend(self) -> None:
        """Undo it."""

    # What injectors share.

    def option(self, name: str, kind: type[_T]) -> _T:
        """An option's value; the plan's reader saw to it that it is of this type."""
        value = self.fault.options[name]
        if not isinstance(value, kind):
            raise TypeError(f"{self.fault.kind}: {name} = {value!r} is no {kind.__name__}")
        return value

    @property
    def others(self) -> list[str]:
        """The members that are not struck."""
        return [member for member in self.cluster.members if member not in self.victims]

    async def not_serving(self, members: Sequence[str]) -> str:
        """The first of these members that does not answer a linearizable read, or ""."""
        for member in members:
            if not await self.cluster.serves(member, PROBE_TIMEOUT_S):
                return member
        return ""

    async def slow_read(self, at_least_s: float) -> str:
        """Evidence that a linearizable read takes long, or ""."""
        member = self.victims[0]
        began = time.monotonic()
        served = await self.cluster.serves(member)
        took_s = time.monotonic() - began
        if not served:
            return f"{member} did not serve a linearizable read"
        if took_s < at_least_s:
            return ""
        return f"a linearizable read at {member} took {took_s * 1000:.0f} ms"

    def begin_loop(self, work: Coroutine[None, None, None]) -> None:
        """Go on with something until ``end_loop``; it rests with ``rest`` only."""
        self._loop = asyncio.create_task(work)

    async def rest(self, seconds: float) -> bool:
        """Sleep between two steps of the loop; False if it is to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        return not self._ending.is_set()

    async def end_loop(self) -> None:
        """Let the loop end after its present step: a process half started would be lost.

        What it failed with is raised here. Safe to call twice.
        """
        self._ending.set()
        if self._loop is not None:
            await self._loop
