"""Carrying out a plan: strike, see the effect, mend, and write all of it into the history.

A fault that nobody can see proves nothing. After each strike its injector is asked what shows an
effect (a member that does not serve, a refused connection, held bytes, an exit code) until
something does; the fault lasts at least that long. What was seen is the fault event's evidence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Final

from chaos.cluster.cluster import Cluster, ClusterFailed
from chaos.history.recorder import Recorder
from chaos.nemesis.injectors import INJECTORS
from chaos.nemesis.injectors.base import Injector
from chaos.nemesis.packages import PAUSE_S
from chaos.nemesis.plan import Plan, PlanError, PlannedFault

PROBE_PAUSE_S: Final = 0.05
LEADER_TIMEOUT_S: Final = 10.0
LEADER_PATIENCE_S: Final = 2.0
"""In the middle of other faults nobody may lead; then a "leader" fault takes any member."""

SERVE_AGAIN_TIMEOUT_S: Final = 10.0
"""After this long the next fault comes, whether every member serves again or not."""


class Nemesis:
    """Breaks a cluster according to a plan.

    Args:
        cluster: what to break.
        plan: what to do.
        recorder: where it is written down.
        seconds: length of the load. A fault that waits for the cluster to serve may begin late, and
            is left out, with all after it, if it would not end in time (the first never is). None:
            every fault comes.
    """

    def __init__(
        self, cluster: Cluster, plan: Plan, recorder: Recorder, seconds: float | None
    ) -> None:
        self._cluster = cluster
        self._plan = plan
        self._recorder = recorder
        self._seconds = seconds
        self._under_way: list[PlannedFault] = []

    @property
    def current(self) -> Sequence[PlannedFault]:
        """The faults that are there now."""
        return tuple(self._under_way)

    async def run(self) -> None:
        """Carry out the plan; at the end nothing is broken that can be mended here.

        Raises:
            PlanError: a fault strikes a member that this cluster does not have.
        """
        self._check_targets()
        began = time.monotonic()
        late_s = 0.0
        tasks: list[asyncio.Task[None]] = []
        try:
            for number, fault in enumerate(self._plan.faults, start=1):
                begin = began + fault.at_s + late_s
                if fault.when_serving:
                    await self._finish(tasks)
                    begin = began + fault.at_s
                    if number > 1:
                        with suppress(ClusterFailed):
                            await self._cluster.wait_serving(SERVE_AGAIN_TIMEOUT_S)
                        begin = max(begin, time.monotonic() + PAUSE_S[0])
                    late_s = begin - began - fault.at_s
                    ends = begin + fault.for_s
                    if number > 1 and self._seconds and ends > began + self._seconds:
                        break
                await _until(begin, tasks)
                tasks.append(asyncio.create_task(self._carry_out(number, fault)))
            await self._finish(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait until all these faults have ended; the first failure is raised."""
        await asyncio.gather(*tasks)
        tasks.clear()

    async def _carry_out(self, number: int, fault: PlannedFault) -> None:
        rng = Random(f"{self._plan.seed}/fault/{number}")
        self._under_way.append(fault)
        try:
            try:
                victims = await self._victims(fault, rng)
            except ClusterFailed as error:
                text = str(error)[:200]
                self._recorder.fault(fault.kind, "effect", [fault.target], text, False, number)
                return
            await self._on(number, fault, victims, rng)
        finally:
            self._under_way.remove(fault)

    async def _on(
        self, number: int, fault: PlannedFault, victims: Sequence[str], rng: Random
    ) -> None:
        injector = INJECTORS[fault.kind](self._cluster, fault, victims, rng, self._recorder)
        began = time.monotonic()
        self._recorder.fault(fault.kind, "start", victims, fault.label, number=number)
        try:
            await self._strike(number, injector, began)
        finally:
            await injector.end_loop()
        self._recorder.fault(fault.kind, "end", victims, number=number)

    async def _strike(self, number: int, injector: Injector, began: float) -> None:
        fault, victims = injector.fault, injector.victims
        await injector.strike()
        evidence = await self._seen(injector, began + max(fault.for_s, injector.evidence_timeout_s))
        self._recorder.fault(
            fault.kind,
            "effect",
            victims,
            f"{fault.target}: {evidence or 'everything went on as if nothing had happened'}",
            bool(evidence),
            number,
        )
        await asyncio.sleep(max(0.0, began + fault.for_s - time.monotonic()))
        await injector.mend()

    @staticmethod
    async def _seen(injector: Injector, deadline: float) -> str:
        while True:
            evidence = await injector.evidence()
            if evidence or time.monotonic() > deadline:
                return evidence
            await asyncio.sleep(PROBE_PAUSE_S)

    def _check_targets(self) -> None:
        for fault in self._plan.faults:
            if fault.target[1:].isdigit() and fault.target not in self._cluster.members:
                raise PlanError(
                    f"{fault.kind} strikes {fault.target}; the members are "
                    f"{', '.join(self._cluster.members)}"
                )

    async def _victims(self, fault: PlannedFault, rng: Random) -> list[str]:
        members = list(self._cluster.members)
        match fault.target:
            case "all":
                return members
            case "minority":
                return rng.sample(members, (len(members) - 1) // 2)
            case "majority":
                return rng.sample(members, len(members) // 2 + 1)
            case "leader":
                return [await self._leader(fault, rng)]
            case "follower":
                leader = await self._leader(fault, rng)
                return [rng.choice([member for member in members if member != leader])]
            case member:
                return [member]

    async def _leader(self, fault: PlannedFault, rng: Random) -> str:
        if fault.when_serving or len(self._under_way) == 1:
            return await self._cluster.leader(LEADER_TIMEOUT_S)
        try:
            return await self._cluster.leader(LEADER_PATIENCE_S)
        except ClusterFailed:
            return rng.choice(self._cluster.members)


async def _until(when: float, tasks: list[asyncio.Task[None]]) -> None:
    """Sleep until a moment of the monotonic clock, unless a task fails before."""
    while (left := when - time.monotonic()) > 0:
        running = {task for task in tasks if not task.done()}
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                await task
        if running:
            await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(left)
