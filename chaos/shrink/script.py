"""What a seed did, as an explicit list, and a world that does what a list says.

Everything that the simulator's faults, clients and operator do is an *act*: a time, a name, and the
random draws that it made. Recording changes nothing: the draws come from the seed's own streams in
their own order. A world that is given a list draws nothing itself: each act is served its own
draws, so that an act does the same whichever others are left out. Draws between acts (when a member
that died comes back) are served in their order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from chaos.sim.admin import Admin
from chaos.sim.clients import Clients
from chaos.sim.faults import Faults
from chaos.sim.member import Member
from chaos.sim.options import SECOND_US, Options
from chaos.sim.world import World

Draw = float
OPERATIONS: Final = frozenset({"_propose", "_read"})
"""Acts of clients; all others are faults."""


@attrs.frozen(slots=True)
class Act:
    """One thing that was done.

    Args:
        at_us: when, in microseconds of virtual time.
        actor: ``faults``, ``clients`` or ``admin``.
        name: what.
        draws: what it drew, in order.
    """

    at_us: int
    actor: str
    name: str
    draws: tuple[Draw, ...] = ()

    @property
    def is_operation(self) -> bool:
        """Whether a client did it."""
        return self.name in OPERATIONS


@attrs.frozen(slots=True)
class Script:
    """All acts of a run, and each actor's draws between them."""

    seed: int
    seconds: float
    acts: tuple[Act, ...] = ()
    between: Mapping[str, tuple[Draw, ...]] = attrs.field(factory=dict)

    def only(self, acts: Iterable[Act]) -> Script:
        """The same with these acts alone."""
        return attrs.evolve(self, acts=tuple(acts))

    @property
    def operations(self) -> list[Act]:
        """What clients do."""
        return [act for act in self.acts if act.is_operation]

    @property
    def faults(self) -> list[Act]:
        """What is done to the cluster."""
        return [act for act in self.acts if not act.is_operation]

    def as_json(self) -> dict[str, Any]:
        """For a file; ``from_json`` reads it back."""
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "acts": [[act.at_us, act.actor, act.name, list(act.draws)] for act in self.acts],
            "between": {actor: list(draws) for actor, draws in self.between.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Script:
        """Read what ``as_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        acts = tuple(
            Act(int(at_us), str(actor), str(name), tuple(draws))
            for at_us, actor, name, draws in document["acts"]
        )
        between = {actor: tuple(draws) for actor, draws in document["between"].items()}
        return cls(int(document["seed"]), float(document["seconds"]), acts, between)


class Tape(random.Random):
    """A source of randomness that remembers what it gave, or gives what it is told.

    Args:
        source: where draws come from when none are told.
        between: draws to serve outside of acts; None to take them from the source.
    """

    def __init__(self, source: random.Random, between: Iterable[Draw] | None = None) -> None:
        super().__init__(0)
        self.between: list[Draw] = []
        """What was drawn outside of acts."""
        self._source = source
        self._told = None if between is None else iter(between)
        self._act: list[Draw] | None = None
        self._served: Any = None
        self._is_hidden = False

    def random(self) -> float:
        """See ``random.Random``."""
        return self._draw(self._source.random, lambda told: told % 1.0)

    def getrandbits(self, bits: int, /) -> int:
        """See ``random.Random``."""
        return int(
            self._draw(lambda: self._source.getrandbits(bits), lambda told: int(told) % (1 << bits))
        )

    def begin(self, draws: Iterable[Draw] | None = None) -> None:
        """An act begins; with ``draws`` it is served those."""
        self._act = []
        self._served = None if draws is None else iter(draws)

    def end(self) -> tuple[Draw, ...]:
        """The act is over; return what it drew."""
        drawn, self._act, self._served = self._act or [], None, None
        return tuple(drawn)

    def hidden(self, draw: Callable[[], int]) -> int:
        """Draw something that a list does not need: when the next act comes."""
        self._is_hidden = True
        try:
            return draw()
        finally:
            self._is_hidden = False

    def _draw(self, fresh: Callable[[], float], fit: Callable[[float], float]) -> float:
        served = self._served if self._act is not None else self._told
        told = next(served, None) if served is not None else None
        value = fresh() if told is None else fit(told)
        if not self._is_hidden:
            (self.between if self._act is None else self._act).append(value)
        return value


class ScriptedWorld(World):
    """A run of a seed whose acts are recorded, or told.

    Args:
        seed: decides everything that is no act: options, network, disks.
        script: what to do; None to do what the seed does, and to record it.
        say: see ``World``.
    """

    def __init__(
        self,
        seed: int,
        script: Script | None = None,
        options: Options | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.script = script
        self.acts: list[Act] = []
        self.tapes: dict[str, Tape] = {}
        super().__init__(seed, options, say)
        self.faults = _Faults(self)
        self.clients = _Clients(self)
        self.admin = _Admin(self)

    def tape(self, actor: str) -> Tape:
        """An actor's source of randomness."""
        told = None if self.script is None else self.script.between.get(actor, ())
        self.tapes[actor] = Tape(self.stream(actor), told)
        return self.tapes[actor]

    def do(self, actor: str, name: str, action: Callable[[], None]) -> None:
        """Do something that the seed decided, and record it."""
        tape = self.tapes[actor]
        act = Act(self.now, actor, name)
        tape.begin()
        try:
            action()
        finally:
            self.acts.append(attrs.evolve(act, draws=tape.end()))

    def tell(self, actor: str, perform: Callable[[str], None]) -> bool:
        """Let an actor's acts come as the script says; False if there is none."""
        if self.script is None:
            return False
        tape = self.tapes[actor]

        def play(act: Act) -> None:
            tape.begin(act.draws)
            try:
                perform(act.name)
            finally:
                tape.end()

        for act in self.script.acts:
            if act.actor == actor:
                self.at(act.at_us, play, act)
        return True

    def recorded(self, seconds: float) -> Script:
        """What was done so far."""
        between = {actor: tuple(tape.between) for actor, tape in self.tapes.items()}
        return Script(self.seed, seconds, tuple(self.acts), between)


class _Faults(Faults):
    """See ``Faults``; each injection is an act."""

    def __init__(self, world: ScriptedWorld) -> None:
        super().__init__(world)
        self._scripted = world
        self._prng = self._tape = world.tape("faults")

    def schedule(self) -> None:
        if not self._scripted.tell("faults", self._perform):
            super().schedule()

    def _perform(self, name: str) -> None:
        if self._on:
            getattr(self, name)()

    def _repeat(self, every_s: float, inject: Callable[[], None]) -> None:
        if not every_s:
            return
        world = self._scripted

        def again(_: None) -> None:
            if self._on:
                world.do("faults", inject.__name__, inject)
                world.at(world.now + self._tape.hidden(lambda: self.soon(every_s)), again, None)

        world.at(world.now + self._tape.hidden(lambda: self.soon(every_s)), again, None)


class _Clients(Clients):
    """See ``Clients``; each call is an act."""

    def __init__(self, world: ScriptedWorld) -> None:
        super().__init__(world)
        self._scripted = world
        self._prng = self._tape = world.tape("clients")

    def schedule(self) -> None:
        if not self._scripted.tell("clients", self._perform):
            super().schedule()

    def _perform(self, name: str) -> None:
        if self._on:
            self._call(getattr(self, name))

    def _call(self, call: Callable[[Member], None]) -> None:
        member = self._prng.choice(self._scripted.reachable)
        if member.available:
            call(member)

    def _repeat(self, per_second: float, call: Callable[[Member], None]) -> None:
        world, tape = self._scripted, self._tape
        mean_us = SECOND_US / per_second

        def wait() -> int:
            return 1 + int(tape.expovariate(1.0) * mean_us)

        def again(_: None) -> None:
            if self._on:
                world.do("clients", call.__name__, lambda: self._call(call))
                world.at(world.now + tape.hidden(wait), again, None)

        world.at(world.now, again, None)


class _Admin(Admin):
    """See ``Admin``; each handover and each change is an act."""

    def __init__(self, world: ScriptedWorld) -> None:
        super().__init__(world)
        self._scripted = world
        self._prng = self._tape = world.tape("admin")

    def schedule(self) -> None:
        if not self._scripted.tell("admin", self._perform):
            super().schedule()

    def _perform(self, name: str) -> None:
        leader = self._scripted.leader()
        if self._on and leader is not None:
            (self._transfer if name == "transfer" else self._change)(leader)

    def _again(self, every_s: float, what: str) -> None:
        world = self._scripted

        def act(_: None) -> None:
            if self._on:
                world.do("admin", what, lambda: self._perform(what))
                self._again(every_s, what)

        def wait() -> int:
            return 1 + int(self._tape.expovariate(1 / every_s) * SECOND_US)

        world.at(world.now + self._tape.hidden(wait), act, None)
