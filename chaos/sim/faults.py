"""Faults: what is done to members, their links and their disks, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from chaos.sim.disk import CrashMode
from chaos.sim.options import SECOND_US
from consensus.types import NodeId

if TYPE_CHECKING:
    from chaos.sim.member import Member
    from chaos.sim.network import Link
    from chaos.sim.world import World

CLOCK_JUMP_MS_MAX: Final = 60_000
FUSE_MAX: Final = 25
"""A crash inside comes at one of so many next operations of a member."""


class Faults:
    """The hand that breaks things, until ``stop``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._prng = world.stream("faults")
        self._on = True
        self._flipped: Member | None = None

    def schedule(self) -> None:
        """Let each class of fault come at random moments, as the options say."""
        options = self._world.options
        self._repeat(options.crash_every_s, self._crash)
        self._repeat(options.pause_every_s, self._pause)
        self._repeat(options.cut_every_s, self._cut)
        self._repeat(options.stall_every_s, self._stall)
        self._repeat(options.slow_disk_every_s, self._slow_disk)
        self._repeat(options.sync_failure_every_s, self._sync_failure)
        self._repeat(options.disk_full_every_s, self._disk_full)
        self._repeat(options.clock_jump_every_s, self._clock_jump)
        self._repeat(options.bit_flip_every_s, self._bit_flip)

    def stop(self) -> None:
        """No more faults."""
        self._on = False

    def soon(self, mean_s: float) -> int:
        """Return a random number of microseconds with this mean in seconds."""
        return 1 + int(self._prng.expovariate(1 / mean_s) * SECOND_US)

    def crash_mode(self) -> CrashMode:
        """Draw what the next crash leaves."""
        return self._prng.choice(self._world.options.crash_modes)

    # -- inside -------------------------------------------------------------------------------

    def _repeat(self, every_s: float, inject: Callable[[], None]) -> None:
        if not every_s:
            return

        def again(_: None) -> None:
            if self._on:
                inject()
                self._world.at(self._world.now + self.soon(every_s), again, None)

        self._world.at(self._world.now + self.soon(every_s), again, None)

    def _someone(self) -> Member:
        """Draw a member, often the leader: that is where it hurts."""
        world = self._world
        if self._prng.random() < 0.3:
            leader = world.leader()
            if leader is not None:
                return leader
        return self._prng.choice([m for m in world.members.values() if not m.retired])

    def _crash(self) -> None:
        options = self._world.options
        everyone = self._prng.random() < options.crash_all
        inside = self._prng.random() < options.crash_inside
        mode = self.crash_mode()
        members = list(self._world.members.values()) if everyone else [self._someone()]
        if everyone and all(member.driver is not None for member in members if not member.retired):
            self._world.count("crash of all")
        for member in members:
            if member.driver is None:
                continue
            if inside and self._prng.random() < 0.5:
                member.die_at_sync = True
            elif inside:
                member.fuse = self._prng.randrange(1, FUSE_MAX)
            else:
                member.crash(mode)
                member.restart_later()

    def _pause(self) -> None:
        member = self._someone()
        member.paused_until = self._world.now + self.soon(1.5)
        self._note("pause", member.name, member.paused_until)
        self._world.count("pauses")

    def _slow_disk(self) -> None:
        member = self._someone()
        member.slow_until = self._world.now + self.soon(1.0)
        self._note("slow disk", member.name, member.slow_until)

    def _sync_failure(self) -> None:
        member = self._someone()
        member.disk.fail_next_sync = True
        self._note("sync fails", member.name)

    def _disk_full(self) -> None:
        member = self._someone()
        member.disk.full = True
        self._note("disk full", member.name)

        def free(_: None) -> None:
            member.disk.full = False

        self._world.at(self._world.now + self.soon(2.0), free, None)

    def _clock_jump(self) -> None:
        """Set a member's wall clock forward or back; nothing but the log's clock may notice."""
        member = self._someone()
        member.clock_offset_ms = self._prng.randrange(-CLOCK_JUMP_MS_MAX, CLOCK_JUMP_MS_MAX)
        self._note("clock", member.name, member.clock_offset_ms)
        self._world.count("clock jumps")

    def _bit_flip(self) -> None:
        """Damage a member's disk at rest: always the same one in a run, of three or more."""
        if len(self._world.promises.configuration[1].voters) < 3:
            return
        if self._flipped is None:
            self._flipped = self._someone()
        member = self._flipped
        if member.damaged:
            return  # it waits to be replaced
        down = member.driver is None
        if not down:
            member.crash(CrashMode.LOSE_ALL)
        flipped = member.disk.flip_bits(self._prng)
        member.flipped = member.flipped or flipped
        self._note("bit flip", member.name, flipped)
        if not down:
            member.restart_later()

    # -- links --------------------------------------------------------------------------------

    def _cut(self) -> None:
        links = self._shape()
        if not links:
            return
        self._note("cut", *(f"{one}->{other}" for one, other in links))
        self._world.network.cut(links)

        def mend(_: None) -> None:
            if self._on:
                self._note("mend", *(f"{one}->{other}" for one, other in links))
                self._world.network.mend(links)

        self._world.at(self._world.now + self.soon(2.0), mend, None)

    def _shape(self) -> list[Link]:
        """Draw which links to cut: two sides, one member, one pair, or a ring of majorities."""
        prng = self._prng
        names = [name for name, member in self._world.members.items() if not member.retired]
        if len(names) < 2:
            return []
        shape = prng.choice(("halves", "halves", "one", "pair", "ring"))
        self._world.count(f"cut {shape}")
        if shape == "halves":
            side = {name for name in names if prng.random() < 0.5}
            pairs = [(a, b) for a in names if a in side for b in names if b not in side]
        elif shape == "one":
            alone = self._someone().name
            pairs = [(alone, name) for name in names if name != alone]
        elif shape == "pair":
            # Both still see everybody else: the partial partition that livelocks naive elections.
            one, other = prng.sample(names, 2)
            pairs = [(one, other)]
        else:
            pairs = self._ring(names)
        return self._directions(pairs)

    def _ring(self, names: list[NodeId]) -> list[Link]:
        """Each member sees its neighbours in a ring only; of four or more some pairs are cut."""
        ring = self._prng.sample(names, len(names))
        number = len(ring)
        return [
            (ring[i], ring[j])
            for i in range(number)
            for j in range(i + 2, number)
            if (i, j) != (0, number - 1)
        ]

    def _directions(self, pairs: list[Link]) -> list[Link]:
        links = []
        for one, other in pairs:
            there = back = True
            if self._world.options.one_way_cuts:
                there, back = self._prng.choice(((True, False), (False, True), (True, True)))
                if there != back:
                    self._world.count("cut one-way")
            links.extend([(one, other)] * there + [(other, one)] * back)
        return links

    def _stall(self) -> None:
        """Jam a member's links, or one link: everything comes late and at once."""
        names = [name for name, member in self._world.members.items() if not member.retired]
        if len(names) < 2:
            return
        until = self._world.now + self.soon(1.0)
        one, other = self._prng.sample(names, 2)
        if self._prng.random() < 0.5:
            links = [(one, other)]
        else:
            links = [(one, name) for name in names if name != one]
            links += [(name, one) for name in names if name != one]
        self._note("stall", *(f"{a}->{b}" for a, b in links))
        if self._prng.random() < 0.3:
            for link in links:  # and the connections broke: their leader lives all the same
                self._world.network.close(link)
        self._world.network.stall(links, until)

    def _note(self, what: str, *details: object) -> None:
        self._world.trace.note(self._world.now, what, *details)
