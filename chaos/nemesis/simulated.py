"""A plan of faults in the simulator: those of its classes that have a simulated twin.

The plan is the same file; time is virtual. What clients do to links, toxics of single bytes and
calls of administrators beyond a transfer have no twin: the simulator knows whole messages, and no
clients' network.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from chaos.nemesis.plan import Plan, PlanError, PlannedFault
from chaos.nemesis.shapes import flows_of
from chaos.sim.disk import CrashMode

if TYPE_CHECKING:
    from chaos.sim.member import Member
    from chaos.sim.world import World

SECOND_US: Final = 1_000_000
POLL_US: Final = SECOND_US // 20
PATIENCE_US: Final = 10 * SECOND_US
"""A fault that waits until all serve comes after this long in any case."""

TWINS: Final = frozenset(
    {
        *("net.partition", "net.stall", "net.flap"),
        *("proc.kill", "proc.pause", "proc.restart_loop", "proc.rolling_restart"),
        *("disk.power_loss", "disk.sync_error", "disk.full", "disk.stall", "disk.slow"),
        *("clock.skew", "clock.strobe", "admin.transfer"),
    }
)
"""The kinds that can be simulated."""

_LEAVES: Final = {
    "all": CrashMode.LOSE_ALL,
    "torn": CrashMode.KEEP_PREFIX,
    "some": CrashMode.KEEP_SOME,
}


def check_simulable(plan: Plan) -> None:
    """See that every fault of a plan has a twin.

    Raises:
        PlanError: one has not; the text names it.
    """
    for number, fault in enumerate(plan.faults, start=1):
        if fault.kind not in TWINS or fault.options.get("shape") == "clients":
            raise PlanError(
                f"fault {number}: {fault.label} cannot be simulated; there are "
                f"{', '.join(sorted(TWINS))} (and no clients to cut off)"
            )


class SimulatedPlan:
    """A plan under way in a world.

    Args:
        plan: checked by ``check_simulable``.
        world: not yet run; it draws no faults of its own.
        until_us: no fault begins after this.
    """

    def __init__(self, plan: Plan, world: World, until_us: int) -> None:
        self._plan = plan
        self._world = world
        self._until = until_us
        self._late = 0
        self._under_way = 0

    def schedule(self) -> None:
        """Begin."""
        self._come(0)

    def _come(self, place: int) -> None:
        """Let the fault at this place come when it is time, and those after it."""
        if place >= len(self._plan.faults):
            return
        fault = self._plan.faults[place]
        due = int(fault.at_s * SECOND_US)
        late = 0 if fault.when_serving else self._late
        self._world.at(due + late, lambda _: self._due(place, due), None)

    def _due(self, place: int, due: int) -> None:
        fault, world = self._plan.faults[place], self._world
        if world.now > self._until:
            return
        if fault.when_serving:
            if not self._all_serve() and world.now < due + PATIENCE_US:
                world.at(world.now + POLL_US, lambda _: self._due(place, due), None)
                return
            self._late = world.now - due
        self._strike(place, fault)
        self._come(place + 1)

    def _all_serve(self) -> bool:
        members = self._world.members.values()
        up = all(member.driver is not None for member in members)
        return up and not self._under_way and self._world.leader() is not None

    def _strike(self, place: int, fault: PlannedFault) -> None:
        world = self._world
        rng = Random(f"{self._plan.seed}/fault/{place + 1}")
        victims = [world.members[name] for name in self._victims(fault, rng)]
        ends = world.now + int(fault.for_s * SECOND_US)
        world.trace.note(world.now, fault.kind, *(member.name for member in victims))
        world.count(fault.kind)
        mend = self._break(fault, victims, ends, rng)
        self._under_way += 1

        def end(_: None) -> None:
            self._under_way -= 1
            world.trace.note(world.now, "end", fault.kind)
            mend()

        world.at(ends, end, None)

    def _victims(self, fault: PlannedFault, rng: Random) -> list[str]:
        names = list(self._world.members)
        leader = self._world.leader()
        match fault.target:
            case "all":
                return names
            case "minority":
                return rng.sample(names, (len(names) - 1) // 2)
            case "majority":
                return rng.sample(names, len(names) // 2 + 1)
            case "leader":
                return [leader.name if leader else rng.choice(names)]
            case "follower":
                return [rng.choice([n for n in names if leader is None or n != leader.name])]
            case member:
                return [member]

    def _break(
        self, fault: PlannedFault, victims: list[Member], ends: int, rng: Random
    ) -> Callable[[], None]:
        """Do it, and return what undoes it."""
        layer = fault.kind.partition(".")[0]
        if layer == "net":
            return self._break_links(fault, victims, ends, rng)
        if layer == "disk" and fault.kind != "disk.power_loss":
            return self._break_disks(fault, victims, ends)
        if layer == "clock":
            return self._shift_clocks(fault, victims, ends)
        if fault.kind == "admin.transfer":
            return self._again(fault, ends, self._transfer)
        if fault.kind == "proc.pause":
            for member in victims:
                member.paused_until = ends
            return _nothing
        if fault.kind == "proc.restart_loop":
            return self._again(fault, ends, lambda: self._restart(victims))
        if fault.kind == "proc.rolling_restart":
            for number, member in enumerate(victims):
                self._world.at(self._world.now + number * SECOND_US, self._restart, [member])
            return _nothing
        mode = _LEAVES.get(str(fault.options.get("leaves")), CrashMode.KEEP_ALL)
        for member in victims:
            if member.driver is not None:
                member.crash(mode)
        return lambda: self._start(victims)

    def _break_links(
        self, fault: PlannedFault, victims: list[Member], ends: int, rng: Random
    ) -> Callable[[], None]:
        network = self._world.network
        names, all_names = [member.name for member in victims], list(self._world.members)
        touched = [
            (one, other)
            for one in all_names
            for other in all_names
            if one != other and (one in names or other in names)
        ]
        if fault.kind == "net.flap":
            return self._flap(fault, touched, ends)
        links = touched if fault.kind == "net.stall" else flows_of(fault, names, all_names, rng)
        if fault.kind == "net.stall" or fault.options["mode"] == "stall":
            network.stall(links, ends)
            return _nothing
        network.cut(links)
        return lambda: network.mend(links)

    def _flap(
        self, fault: PlannedFault, links: list[tuple[str, str]], ends: int
    ) -> Callable[[], None]:
        network, cut = self._world.network, [False]

        def turn() -> None:
            (network.mend if cut[0] else network.cut)(links)
            cut[0] = not cut[0]

        self._again(fault, ends, turn)
        return lambda: turn() if cut[0] else None

    def _break_disks(
        self, fault: PlannedFault, victims: list[Member], ends: int
    ) -> Callable[[], None]:
        for member in victims:
            if fault.kind == "disk.full":
                member.disk.full = True
            elif fault.kind == "disk.sync_error":
                member.disk.fail_next_sync = True
            else:
                member.slow_until = ends

        def mend() -> None:
            for member in victims:
                member.disk.full = member.disk.fail_next_sync = False
            self._start(victims)

        return mend

    def _shift_clocks(
        self, fault: PlannedFault, victims: list[Member], ends: int
    ) -> Callable[[], None]:
        by_ms = int(fault.options["by_ms"])
        wrong = [False]

        def shift(to_ms: int) -> None:
            for member in victims:
                member.clock_offset_ms = to_ms

        def turn() -> None:
            wrong[0] = not wrong[0]
            shift(by_ms if wrong[0] else 0)

        if fault.kind == "clock.strobe":
            self._again(fault, ends, turn)
        else:
            shift(by_ms)
        return lambda: shift(0)

    def _again(self, fault: PlannedFault, ends: int, act: Callable[[], None]) -> Callable[[], None]:
        """Do something at once and again and again until ``ends``."""
        every_s = float(fault.options.get("every_s", 0)) or float(fault.options["every_ms"]) / 1000

        def turn(_: None) -> None:
            if self._world.now < ends:
                act()
                self._world.at(self._world.now + int(every_s * SECOND_US), turn, None)

        turn(None)
        return _nothing

    def _transfer(self) -> None:
        leader = self._world.leader()
        if leader is None or leader.driver is None:
            return
        voters = list(leader.driver.core.configuration.voters)
        heir = voters[(voters.index(leader.name) + 1) % len(voters)]
        if heir != leader.name:
            leader.driver.transfer_leadership(heir)
            leader.pump()

    def _restart(self, victims: list[Member]) -> None:
        for member in victims:
            if member.driver is not None:
                member.crash(CrashMode.KEEP_ALL)
        self._start(victims)

    def _start(self, victims: list[Member]) -> None:
        for member in victims:
            member.start()


def _nothing() -> None:
    """There is nothing to undo: the world ends it by itself."""
