"""Clients: they propose and read at every member, leading or not, at random moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from chaos.sim.options import BATCHES, SECOND_US

if TYPE_CHECKING:
    from chaos.sim.member import Member
    from chaos.sim.world import World

LARGE_BYTES_MAX: Final = 4_000


class Clients:
    """The load of one world, until ``stop``."""

    def __init__(self, world: World) -> None:
        self.commands = 0
        self._world = world
        self._prng = world.stream("clients")
        self._on = True

    def schedule(self) -> None:
        """Begin."""
        self._repeat(self._world.options.calls_per_s, self._propose)
        self._repeat(self._world.options.reads_per_s, self._read)

    def stop(self) -> None:
        """No more calls."""
        self._on = False

    def _repeat(self, per_second: float, call: Callable[[Member], None]) -> None:
        prng = self._prng
        mean_us = SECOND_US / per_second

        def again(_: None) -> None:
            if not self._on:
                return
            world = self._world
            member = prng.choice(world.reachable)
            if member.available:
                call(member)
            world.at(world.now + 1 + int(prng.expovariate(1.0) * mean_us), again, None)

        self._world.at(self._world.now, again, None)

    def _propose(self, member: Member) -> None:
        prng = self._prng
        commands = []
        for _ in range(prng.choice(BATCHES)):
            self.commands += 1
            command = b"c%d" % self.commands
            if prng.random() < self._world.options.large_commands:
                command = command.ljust(prng.randrange(LARGE_BYTES_MAX), b".")
            commands.append(command)
        member.propose(commands)

    def _read(self, member: Member) -> None:
        member.read()
