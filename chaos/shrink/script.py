"""What a seed did, as an explicit list, and a world that does what a list says.

Everything that the simulator's faults, clients and operator do is an *act*: a time, a name, and the
random draws that it made. Recording changes nothing: the draws come from the seed's own streams in
their own order. A world that is given a list draws nothing itself: each act is served its own
draws, so that an act does the same whichever others are left out. Draws between acts (when a member
that died comes back) are served in their order.

A list may say more than what was done: that the luck of network and disks is another one (``salt``;
a bug that needs one late message is soon lost with any other luck), that members take snapshots
sooner (a bug of snapshots then needs fewer calls), that everything is healed earlier, and that
probes of its own ask for progress after that, so that a run of few operations, or of none, is not
taken for a cluster that is stuck.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from chaos.sim.admin import Admin
from chaos.sim.clients import Clients
from chaos.sim.faults import Faults
from chaos.sim.invariants import Violation
from chaos.sim.member import Member
from chaos.sim.options import SECOND_US
from chaos.sim.runner import PROFILES, SWARM, options_of
from chaos.sim.world import LOOP, PULSE_EVENTS, World

Draw = float
OPERATIONS: Final = frozenset({"_propose", "_read"})
"""Acts of clients; all others are faults."""

PROBE_EVERY_US: Final = SECOND_US // 5
ASK_EVERY_US: Final = SECOND_US // 4
"""How often, in virtual time, a run is asked whether it is to be given up."""


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
    """All acts of a run, and each actor's draws between them.

    Args:
        seed: decides everything that is no act.
        seconds: virtual length of the seed's run.
        acts: what is done.
        between: what each actor draws between its acts.
        profile: how the seed draws its options.
        salt: another luck of the same seed; 0 is the seed's own.
        faulty_s: when everything is healed, in virtual seconds; None for when the seed does it.
        probes: whether clients of the list's own ask for progress after that.
        snapshot_entries: see ``Options``; None for what the seed draws.
    """

    seed: int
    seconds: float
    acts: tuple[Act, ...] = ()
    between: Mapping[str, tuple[Draw, ...]] = attrs.field(factory=dict)
    profile: str = SWARM
    salt: int = 0
    faulty_s: float | None = None
    probes: bool = False
    snapshot_entries: int | None = None

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
            "profile": self.profile,
            "salt": self.salt,
            "faulty_s": self.faulty_s,
            "probes": self.probes,
            "snapshot_entries": self.snapshot_entries,
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
        profile = document.get("profile", SWARM)
        if profile not in PROFILES:
            raise ValueError(f"profile {profile!r} is none of {', '.join(PROFILES)}")
        faulty_s = document.get("faulty_s")
        snapshot_entries = document.get("snapshot_entries")
        if snapshot_entries is not None and int(snapshot_entries) < 1:
            raise ValueError(f"snapshot_entries {snapshot_entries} is less than one")
        return cls(
            seed=int(document["seed"]),
            seconds=float(document["seconds"]),
            acts=acts,
            between=between,
            profile=profile,
            salt=int(document.get("salt", 0)),
            faulty_s=None if faulty_s is None else float(faulty_s),
            probes=bool(document.get("probes", False)),
            snapshot_entries=None if snapshot_entries is None else int(snapshot_entries),
        )


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
        profile: how options are drawn, if there is no script that says it.
        say: see ``World``.
    """

    def __init__(
        self,
        seed: int,
        script: Script | None = None,
        profile: str = SWARM,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.script = script
        self.profile = script.profile if script else profile
        self.acts: list[Act] = []
        self.tapes: dict[str, Tape] = {}
        self._pulses: list[int] = []
        self._enough: Callable[[], bool] | None = None
        self.loop_pulses: int | None = None
        """So many thousands of events between two questions are a loop; None: see ``World``."""
        options = options_of(seed, self.profile)
        if script is not None and script.snapshot_entries is not None:
            options = attrs.evolve(options, snapshot_entries=script.snapshot_entries)
        super().__init__(seed, options, say)
        self.faults = _Faults(self)
        self.clients: _Clients = _Clients(self)
        self.admin = _Admin(self)

    def stream(self, purpose: str) -> random.Random:
        """See ``World``; with a salt it is another source of the same kind."""
        salt = self.script.salt if self.script else 0
        return super().stream(f"{purpose}, salt {salt}" if salt else purpose)

    def play(
        self,
        until_us: int | None = None,
        enough: Callable[[], bool] | None = None,
        loop_pulses: int | None = None,
    ) -> bool:
        """Run the script; False if it was given up before its end.

        Args:
            until_us: give up at this virtual time.
            enough: asked every now and then whether to give up.
            loop_pulses: see the attribute.

        Raises:
            Violation: see ``World.run``.
        """
        assert self.script is not None
        if until_us is not None:
            self.at(until_us, self._give_up, None)
        self._enough, self.loop_pulses = enough, loop_pulses
        if enough is not None:
            self._ask(enough)
        try:
            self.run(self.script.seconds, self.script.faulty_s)
        except _GivenUp:
            return False
        return True

    def _ask(self, enough: Callable[[], bool]) -> None:
        if enough():
            self._give_up(None)
        self.at(self.now + ASK_EVERY_US, self._ask, enough)

    def _give_up(self, _: None) -> None:
        raise _GivenUp

    def pulse(self) -> None:
        """See ``World``: in a loop no time passes, and yet it may be enough."""
        self._pulses.append(self.now)
        if self._enough is not None and self._enough():
            self._give_up(None)
        most = self.loop_pulses
        if most is None or len(self._pulses) < most:
            return
        if self.now - self._pulses[-most] < ASK_EVERY_US:
            raise Violation(f"more than {most * PULSE_EVENTS} events in one phase: {LOOP}")

    @property
    def busiest_before(self) -> int:
        """Most pulses between two questions, until shortly before now: without a loop of now."""
        calm = [at for at in self._pulses if at < self.now - ASK_EVERY_US]
        return max(
            (sum(0 <= at - first < ASK_EVERY_US for at in calm) for first in calm), default=0
        )

    def heal(self) -> None:
        """See ``World``; from now on there are probes, if the script wants them."""
        super().heal()
        if self.script is not None and self.script.probes:
            self.clients.probe()

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
        return Script(self.seed, seconds, tuple(self.acts), between, self.profile)


class _GivenUp(Exception):
    """A run was ended before its end."""


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

    def probe(self) -> None:
        """Propose at every member, again and again until the end of all calls."""
        if self._on:
            for member in self._scripted.reachable:
                if member.available:
                    self.commands += 1
                    member.propose([b"c%d" % self.commands])
            self._scripted.at(self._scripted.now + PROBE_EVERY_US, lambda _: self.probe(), None)

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
