"""One simulated cluster of PySyncObj: clients, kills and cuts by seed, and three promises.

What is applied is the same everywhere, by place. What a caller was told is applied stays. Once
everything is healed, something new is applied soon, and all members come to the same state.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import shutil
import tempfile
import zlib
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from chaos.sim.disk import SimulatedCrash
from chaos.sim.invariants import Violation, require
from chaos.sim.options import SECOND_US
from chaos.sim.stock.library import POISON, Instance, Settings, simulated
from chaos.sim.trace import Trace

TICK_US: Final = 50_000
DELAY_US: Final = (200, 5_000)
CALLS_PER_S: Final = 10.0
BATCHES: Final = (1, 1, 5, 10)
WAKE_US: Final = 2_000
READ_US: Final = 10
SEND_US: Final = 100
"""What a look at the clock and a message cost: the library sends in a loop until time is up."""
IN_MEMORY: Final = Path("/dev/shm")
"""Where files are quick; they need not outlive the run."""
FUSE_MAX: Final = 40
FAULTY_SHARE: Final = 0.6
HEALED_SHARE: Final = 0.3


@attrs.frozen(slots=True, kw_only=True)
class StockOptions:
    """One run's settings; ``*_every_s`` as in the other simulator.

    Args:
        poison: one command makes the machine raise.
    """

    settings: Settings = attrs.field(factory=Settings)
    kill_every_s: float = 0.0
    kill_all: float = 0.0
    kill_inside: float = 0.0
    cut_every_s: float = 0.0
    poison: bool = False

    @classmethod
    def draw(cls, prng: random.Random) -> StockOptions:
        """Draw every option from one stream."""
        return cls(
            settings=Settings(
                dump=prng.random() < 0.7,
                batch=prng.random() < 0.5,
                compaction_entries=prng.choice((30, 200, 5_000)),
                batch_bytes=prng.choice((400, 65_536)),
            ),
            kill_every_s=prng.choice((0.0, 1.0, 4.0)),
            kill_all=prng.choice((0.0, 0.5)),
            kill_inside=prng.choice((0.0, 0.7)),
            cut_every_s=prng.choice((0.0, 0.0, 3.0)),
            poison=prng.random() < 0.1,
        )

    def differences(self) -> dict[str, Any]:
        """All of it, for a report."""
        document = attrs.asdict(self)
        return {**document.pop("settings"), **document}


class _Member:
    """A machine: its directory, and its process while it runs."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.instance: Instance | None = None
        self.life = 0
        self.fuse = 0
        self.checked = 0
        self.busy_until = 0
        self.woken = False

    def burn(self) -> None:
        """One more record is to be written; the fuse may end here."""
        if self.fuse:
            self.fuse -= 1
            if not self.fuse:
                raise SimulatedCrash


class StockWorld:
    """A run of one seed. The same seed gives the same trace in any process."""

    def __init__(
        self,
        seed: int,
        options: StockOptions | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.options = options or StockOptions.draw(self._stream("options"))
        self.now = 0
        self.events = 0
        self.acknowledgements = 0
        self.counts: Counter[str] = Counter()
        self.trace = Trace(say)
        self._prng = self._stream("world")
        self._faulty = True
        self._calling = True
        self._heap: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._number = 0
        self._clock_us = 0
        self._commands = 0
        self._told: list[bytes] = []
        self._canonical: list[bytes] = []
        self._healed_at: int | None = None
        self._told_after = False
        self._members: dict[str, _Member] = {}
        self._links: dict[tuple[str, str], deque[bytes]] = {}
        self._epochs: Counter[tuple[str, str]] = Counter()
        self._arrives: dict[tuple[str, str], int] = {}
        self._cut: set[frozenset[str]] = set()

    def run(self, seconds: float) -> None:
        """Run ``seconds`` of virtual time.

        Raises:
            Violation: a promise was broken; the text says which.
        """
        length = int(seconds * SECOND_US)
        memory = str(IN_MEMORY) if IN_MEMORY.is_dir() else None
        root = Path(tempfile.mkdtemp(prefix="chaos-stock-", dir=memory))
        try:
            with simulated(self._read_clock, self._stream("library")):
                self._begin(root)
                self._advance(int(length * FAULTY_SHARE))
                self._heal()
                self._advance(int(length * HEALED_SHARE))
                self._calling = False
                self._advance(length - self.now)
                self._check_end()
        finally:
            for member in self._members.values():
                if member.instance is not None:
                    member.instance.close()
            shutil.rmtree(root, ignore_errors=True)

    # -- time ---------------------------------------------------------------------------------

    def _stream(self, purpose: str) -> random.Random:
        digest = hashlib.sha256(f"stock {self.seed} {purpose}".encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "big"))

    def _read_clock(self) -> float:
        """The library's clock, in seconds. It loops until time has passed: each look takes some."""
        self._clock_us += READ_US
        return self._clock_us / SECOND_US

    def _at(self, time_us: int, action: Callable[[Any], None], argument: Any = None) -> None:
        self._number += 1
        heapq.heappush(self._heap, (max(time_us, self.now), self._number, action, argument))

    def _advance(self, duration_us: int) -> None:
        end = self.now + duration_us
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action, argument = heapq.heappop(self._heap)
            self.events += 1
            action(argument)
        self.now = end
        self.trace.settle()

    def _soon(self, mean_s: float) -> int:
        return self.now + 1 + int(self._prng.expovariate(1 / mean_s) * SECOND_US)

    def _repeat(self, every_s: float, act: Callable[[], None], going: Callable[[], bool]) -> None:
        def again(_: object) -> None:
            if going():
                act()
                self._at(self._soon(every_s), again)

        if every_s:
            self._at(self._soon(every_s), again)

    # -- members ------------------------------------------------------------------------------

    def _begin(self, root: Path) -> None:
        options = self.options
        for name in ("n1", "n2", "n3"):
            directory = root / name
            directory.mkdir()
            self._members[name] = _Member(name, directory)
        for member in self._members.values():
            self._start(member)
        self._repeat(1 / CALLS_PER_S, self._call, lambda: self._calling)
        self._repeat(options.kill_every_s, self._kill, lambda: self._faulty)
        self._repeat(options.cut_every_s, self._cut_one, lambda: self._faulty)
        if options.poison:
            self._at(self._soon(5.0), self._poison)

    def _start(self, member: _Member) -> None:
        if member.instance is not None:
            return
        member.life += 1
        others = [name for name in self._members if name != member.name]
        self._clock_us = self.now
        self.trace.note(self.now, "start", member.name, member.life)

        def send(receiver: str, payload: bytes) -> None:
            self._send(member.name, receiver, payload)

        member.instance = Instance(
            member.name, others, member.directory, self.options.settings, send, member.burn
        )
        member.checked = 0
        member.busy_until = self.now
        member.woken = False
        for other in others:
            self._connect(member.name, other)
        self._at(self.now + self._prng.randrange(TICK_US), self._tick, (member, member.life))

    def _stop(self, member: _Member) -> None:
        """Kill the process. Its links break; what it wrote stays."""
        if member.instance is None:
            return
        self.trace.note(self.now, "kill", member.name)
        instance, member.instance = member.instance, None
        instance.close()
        member.fuse = 0
        for other in self._members:
            if other != member.name:
                self._disconnect(member.name, other)
        self._at(self._soon(0.7), lambda _: self._start(member))

    def _tick(self, who: tuple[_Member, int]) -> None:
        member, life = who
        if member.instance is None or member.life != life:
            return
        if member.busy_until > self.now:
            self._at(member.busy_until, self._tick, who)
            return
        self._do(member, member.instance.tick)
        self._at(self.now + TICK_US, self._tick, who)

    def _wake(self, who: tuple[_Member, int]) -> None:
        member, life = who
        if member.instance is not None and member.life == life:
            self._do(member, member.instance.tick)
            member.woken = False

    def _do(self, member: _Member, act: Callable[[], None]) -> None:
        """Let a member act, as the library's own thread does: what it raises is not the end."""
        instance = member.instance
        if instance is None:
            return
        led = instance.leads
        self._clock_us = max(self.now, member.busy_until)
        try:
            act()
        except SimulatedCrash:
            self.counts["kills inside"] += 1
            self._stop(member)
            return
        except (Violation, KeyboardInterrupt):
            raise
        except Exception as error:
            self.counts[f"raised {type(error).__name__}"] += 1
            self.trace.note(self.now, "raised", member.name, type(error).__name__)
        member.busy_until = self._clock_us
        if not member.woken:
            member.woken = True  # its poll returns, and a turn of its loop follows
            self._at(member.busy_until + WAKE_US, self._wake, (member, member.life))
        if instance.leads and not led:
            self.counts["elections won"] += 1
        self._check_applied(member, instance)

    # -- links --------------------------------------------------------------------------------

    def _send(self, sender: str, receiver: str, payload: bytes) -> None:
        low, high = DELAY_US
        self._clock_us += SEND_US
        link = (sender, receiver)
        arrives = self.now + low + int(self._prng.random() * (high - low))
        arrives = self._arrives[link] = max(arrives, self._arrives.get(link, 0))
        self._at(arrives, self._deliver, (link, self._epochs[link], payload))

    def _deliver(self, what: tuple[tuple[str, str], int, bytes]) -> None:
        link, epoch, payload = what
        member = self._members[link[1]]
        if epoch != self._epochs[link] or member.instance is None:
            return
        if member.busy_until > self.now:
            self._at(member.busy_until, self._deliver, what)
            return
        # A snapshot says when it was packed, by a clock that is not simulated.
        what_it_says = 0 if b"serialized" in payload else zlib.crc32(payload)
        self.trace.note(self.now, "message", *link, len(payload), what_it_says)
        links = member.instance.links
        self._do(member, lambda: links.received(link[0], payload))

    def _connect(self, one: str, other: str) -> None:
        """Connect two members that both run, where no cut is between them."""
        first, second = self._members[one].instance, self._members[other].instance
        if first is None or second is None or frozenset((one, other)) in self._cut:
            return
        if other not in first.links.up:
            first.links.connected(other)
            second.links.connected(one)

    def _disconnect(self, one: str, other: str) -> None:
        for here, there in ((one, other), (other, one)):
            self._epochs[here, there] += 1
            instance = self._members[here].instance
            if instance is not None and there in instance.links.up:
                instance.links.disconnected(there)

    # -- what happens -------------------------------------------------------------------------

    def _call(self) -> None:
        member = self._prng.choice(list(self._members.values()))
        for _ in range(self._prng.choice(BATCHES)):
            self._commands += 1
            self._propose(member, b"c%d" % self._commands)

    def _poison(self, _: object) -> None:
        self.counts["commands that cannot be applied"] += 1
        for member in self._members.values():
            self._propose(member, POISON)

    def _propose(self, member: _Member, command: bytes) -> None:
        instance = member.instance
        if instance is None:
            return
        life = member.life

        def done(outcome: str) -> None:
            if member.life != life:
                return
            self.trace.note(self.now, outcome, member.name, command)
            if outcome == "applied":
                self._told.append(command)
                self.acknowledgements += 1
                self._told_after = self._told_after or self._healed_at is not None

        self._do(member, lambda: instance.propose(command, done))

    def _kill(self) -> None:
        options, prng = self.options, self._prng
        everyone = prng.random() < options.kill_all
        members = list(self._members.values())
        for member in members if everyone else [prng.choice(members)]:
            self.counts["kills"] += 1
            if prng.random() < options.kill_inside:
                member.fuse = prng.randrange(1, FUSE_MAX)
            else:
                self._stop(member)

    def _cut_one(self) -> None:
        alone = self._prng.choice(list(self._members))
        pairs = [frozenset((alone, other)) for other in self._members if other != alone]
        self.counts["cuts"] += 1
        self.trace.note(self.now, "cut", alone)
        self._cut.update(pairs)
        for other in self._members:
            if other != alone:
                self._disconnect(alone, other)
        self._at(self._soon(1.5), self._mend)

    def _mend(self, _: object = None) -> None:
        self._cut.clear()
        names = list(self._members)
        for number, one in enumerate(names):
            for other in names[:number]:
                self._connect(one, other)

    def _heal(self) -> None:
        self.trace.note(self.now, "heal")
        self._faulty = False
        self._healed_at = self.now
        self._mend()
        for member in self._members.values():
            member.fuse = 0
            self._start(member)

    # -- promises -----------------------------------------------------------------------------

    def _check_applied(self, member: _Member, instance: Instance) -> None:
        """State machine safety, for what is new since the last look."""
        commands, canonical = instance.machine.commands, self._canonical
        if len(commands) < member.checked:
            member.checked = 0  # a snapshot took the place of what it had
        for place in range(member.checked, len(commands)):
            if place == len(canonical):
                canonical.append(commands[place])
                self.trace.note(self.now, "applied", member.name, commands[place])
            elif canonical[place] != commands[place]:
                raise Violation(
                    f"state machine safety: {member.name} applied {commands[place].decode()} as "
                    f"command {place + 1}, others {canonical[place].decode()}"
                )
        member.checked = len(commands)

    def _check_end(self) -> None:
        kept = {
            name: set(member.instance.machine.commands)
            for name, member in self._members.items()
            if member.instance is not None
        }
        everywhere = set.intersection(*kept.values())
        anywhere = set.union(*kept.values())
        gone = [command for command in self._told if command not in anywhere]
        wedged = [what for what in self.counts if what.startswith("raised ")]
        cause = f" (its members raise {wedged[0].removeprefix('raised ')})" if wedged else ""
        require(
            not gone,
            f"durability: {len(gone)} of {len(self._told)} acknowledged commands are on no member "
            "any more",
        )
        require(
            self._told_after,
            f"liveness: nothing was acknowledged after everything was healed{cause}",
        )
        missing = sum(command not in everywhere for command in self._told)
        require(
            not missing,
            f"convergence: {missing} acknowledged commands are missing on some member long after "
            "everything was healed",
        )
