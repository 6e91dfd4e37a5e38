"""Carrying out a plan: strike, see the effect, mend, and write all of it into the history.

A fault that nobody can see proves nothing. After each strike a member that was struck is asked for
a linearizable read, straight and on no proxied link, until one fails; slow links are seen by a read
that takes as long as they are slow. What was seen is the fault event's evidence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import Final

from chaos.cluster.cluster import Cluster, ClusterFailed
from chaos.history.recorder import Recorder
from chaos.nemesis.plan import FaultKind, PlannedFault, Role

PROBE_TIMEOUT_S: Final = 0.4
PROBE_PAUSE_S: Final = 0.05
LINK_LATENCY_MS: Final = 60
LINK_JITTER_MS: Final = 20
LEADER_TIMEOUT_S: Final = 10.0

_EVENT_KIND: Final = {
    FaultKind.KILL: "proc.kill",
    FaultKind.KILL_ALL: "proc.kill",
    FaultKind.PAUSE: "proc.pause",
    FaultKind.PARTITION: "net.partition",
    FaultKind.SLOW_LINKS: "net.latency",
}


class Nemesis:
    """Breaks a cluster according to a plan.

    Args:
        cluster: what to break.
        plan: what to do.
        recorder: where it is written down.
        rng: chooses among members of one role.
    """

    def __init__(
        self,
        cluster: Cluster,
        plan: Sequence[PlannedFault],
        recorder: Recorder,
        rng: Random,
    ) -> None:
        self._cluster = cluster
        self._plan = plan
        self._recorder = recorder
        self._rng = rng
        self.current: PlannedFault | None = None

    async def run(self) -> None:
        """Carry out the whole plan; at the end nothing is broken that can be mended here."""
        began = time.monotonic()
        for fault in self._plan:
            await asyncio.sleep(max(0.0, began + fault.at_s - time.monotonic()))
            self.current = fault
            try:
                await self._carry_out(fault)
            finally:
                self.current = None

    async def _carry_out(self, fault: PlannedFault) -> None:
        kind = _EVENT_KIND[fault.kind]
        try:
            victims = await self._victims(fault.role)
        except ClusterFailed as error:
            self._recorder.fault(kind, "effect", [fault.role.value], str(error)[:200], False)
            return
        began = time.monotonic()
        self._recorder.fault(kind, "start", victims)
        await self._strike(fault, victims)
        evidence = await self._effect(fault, victims, began + fault.for_s)
        label = f"{fault.role.value}{f', {fault.mode}' if fault.mode else ''}"
        self._recorder.fault(
            kind,
            "effect",
            victims,
            f"{label}: {evidence or 'every probe was answered as if nothing had happened'}",
            bool(evidence),
        )
        await asyncio.sleep(max(0.0, began + fault.for_s - time.monotonic()))
        await self._cluster.mend()
        self._recorder.fault(kind, "end", victims)

    async def _victims(self, role: Role) -> list[str]:
        members = list(self._cluster.members)
        if role is Role.ALL:
            return members
        leader = await self._cluster.leader(LEADER_TIMEOUT_S)
        if role is Role.LEADER:
            return [leader]
        return [self._rng.choice([member for member in members if member != leader])]

    async def _strike(self, fault: PlannedFault, victims: Sequence[str]) -> None:
        cluster = self._cluster
        if fault.kind in (FaultKind.KILL, FaultKind.KILL_ALL):
            await cluster.kill(victims)
        elif fault.kind is FaultKind.PAUSE:
            await cluster.pause(victims)
        elif fault.kind is FaultKind.PARTITION:
            rest = [member for member in cluster.members if member not in victims]
            await cluster.partition([victims, rest], fault.mode)
        else:
            await cluster.slow_links(LINK_LATENCY_MS, LINK_JITTER_MS)

    async def _effect(self, fault: PlannedFault, victims: Sequence[str], deadline: float) -> str:
        """What shows that the fault is there, or "" if nothing did before ``deadline``."""
        victim = victims[0]
        slow_s = (LINK_LATENCY_MS - LINK_JITTER_MS) / 1000
        while time.monotonic() < deadline:
            began = time.monotonic()
            served = await self._cluster.serves(victim, PROBE_TIMEOUT_S)
            took_s = time.monotonic() - began
            if fault.kind is FaultKind.SLOW_LINKS:
                if took_s >= slow_s:
                    return f"a linearizable read at {victim} took {took_s * 1000:.0f} ms"
            elif not served:
                code = self._cluster.processes[victim].exit_code
                ended = "" if code is None else f", exit code {code}"
                return f"{victim} did not serve a linearizable read{ended}"
            await asyncio.sleep(PROBE_PAUSE_S)
        return ""
