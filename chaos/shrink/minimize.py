"""From a seed that fails to the few faults and operations without which it does not.

A try counts as failing only if it fails *in the same way*. It is cheap: it ends a little after the
moment at which the violation is due, and a loop without end is known by the events that the seed's
run had before its own. The run is made short first (its last second, its last two, and so on:
earlier acts go, later ones move to the front); if that is not enough, snapshots come sooner. Then
operations are dropped, and faults, in big pieces first, until nothing more can go; where many
operations stay all are made as large as the largest, for a bug may want bytes. Dropping an act
moves every later draw of the network, and a bug that wants one late message is gone by mere luck;
so short runs and big pieces are tried with several lucks, and a list that is still long when
nothing more can go is tried with others. The time is bounded, and what is left by then is the
answer.

A cluster that is stuck for want of calls is not stuck: the lists have probes that call once all is
healed (``Script.probes``). With them a list that failed tells whether a fix helps: it plays on a
product without the bug, and every promise is kept.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from chaos.shrink.delta import drop_needless
from chaos.shrink.script import Act, Script, ScriptedWorld
from chaos.sim.invariants import Violation
from chaos.sim.options import SECOND_US
from chaos.sim.runner import SWARM, options_of
from chaos.sim.world import FAULTY_SHARE, LOOP, SECONDS

TIME_LIMIT_S: Final = 50.0
"""With what a loaded machine adds to the last try, and writing it down, within a minute."""
FAULTS_FEW: Final = 15
OPERATIONS_FEW: Final = 30
"""A list as short as this is done when nothing more can go."""
SLACK_US: Final = SECOND_US
"""How much later than before a violation may come."""
WINDOWS_S: Final = (1.0, 2.0, 4.0, 8.0)
SETTLED_TIMEOUTS: Final = 4
"""Least election timeouts before the first act of a run that was made short."""
SHORT_LUCKS: Final = 5
"""Lucks with which each short run is tried."""
LUCKS: Final = 3
"""Lucks with which a big piece is tried."""
BIG: Final = 1 / 5
"""A piece is big if it is such a part of all acts."""
PARTS_FIRST: Final = 8
"""Pieces into which the operations are cut before other things are tried."""
SHORT_SHARE: Final = 1 / 4
"""Of the time, for making a run short with one luck after the other."""
SNAPSHOT_ENTRIES: Final = 20
"""After how many entries members take snapshots in a list that needs fewer calls so: the least
that the simulator draws."""
LOOP_PULSES: Final = 20
"""So many thousands of events in a quarter of a second of virtual time are a loop without end: a
hundred times what is usual. The simulator itself waits longer, and comes to the same."""
TRY_PULSES: Final = 5
TRY_FACTOR: Final = 2
"""Where a loop is wanted, so many are one in a try, and as many times the most that the seed's run
had before its own loop: fewer acts do not make more events."""
KIND_CHARS: Final = 60


@attrs.frozen(slots=True)
class Shrunk:
    """What is left of a failing seed.

    Args:
        script: the least list that was found to fail.
        error: how it fails.
        faults_before: faults of the seed, up to its violation.
        operations_before: operations of the seed, up to its violation.
        runs: how often the simulator was run.
        seconds: how long it took.
    """

    script: Script
    error: str
    faults_before: int
    operations_before: int
    runs: int
    seconds: float


class DoesNotFail(Exception):
    """There is nothing to shrink; the text says why."""


def failure_of(
    seed: int, seconds: float, profile: str = SWARM, say: Callable[[str], None] | None = None
) -> tuple[str, Script]:
    """Run a seed; return how it fails ("" if it does not) and what was done."""
    world = ScriptedWorld(seed, profile=profile, say=say)
    error = _error_of(lambda: world.run(seconds))
    return error, world.recorded(seconds)


def failure_of_script(script: Script, say: Callable[[str], None] | None = None) -> str:
    """Play a list to its end; return how it fails, "" if it does not."""
    world = ScriptedWorld(script.seed, script, say=say)
    return _error_of(world.play)


def _error_of(run: Callable[[], object]) -> str:
    try:
        run()
    except Violation as violation:
        return str(violation)
    except Exception as unexpected:
        return f"{type(unexpected).__name__}: {unexpected}"
    return ""


def kind_of(error: str) -> str:
    """What is common to failures of one kind: the text without names and numbers."""
    return re.sub(r"\bn?\d+(\.\d+)?\b|\bc\d+\b|b'[^']*'", "#", error)[:KIND_CHARS]


def shrink_seed(
    seed: int,
    seconds: float = SECONDS,
    time_limit_s: float = TIME_LIMIT_S,
    progress: Callable[[Script], None] = lambda _script: None,
    profile: str = SWARM,
) -> Shrunk:
    """Shrink a seed that fails.

    Args:
        seed: as ``chaos sim`` takes it.
        seconds: virtual length of its run.
        time_limit_s: real seconds after which what is left is the answer.
        progress: is told of every shorter list.
        profile: how the seed draws its options.

    Raises:
        DoesNotFail: it does not; or its list of acts, which would be a defect of the simulator.
    """
    began = time.monotonic()
    world = ScriptedWorld(seed, profile=profile)
    world.loop_pulses = LOOP_PULSES
    error = _error_of(lambda: world.run(seconds))
    if not error:
        raise DoesNotFail(f"seed {seed} keeps every promise: there is nothing to shrink")
    recorded = world.recorded(seconds)
    loop_pulses = LOOP_PULSES
    if error.endswith(LOOP):
        loop_pulses = min(LOOP_PULSES, TRY_PULSES + TRY_FACTOR * world.busiest_before)
    search = _Search(recorded, error, began + time_limit_s, progress, loop_pulses)
    if not search.begin():
        raise DoesNotFail(f"seed {seed} fails ({error}), and the list of its acts does not")
    search.shorten()
    search.drop()
    return Shrunk(
        search.best,
        search.error,
        len(recorded.faults),
        len(recorded.operations),
        search.runs,
        time.monotonic() - began,
    )


class _Search:
    """The shortest list so far.

    Args:
        recorded: what the seed did.
        error: how it failed.
        deadline: on the monotonic clock.
        progress: is told of every shorter list.
        loop_pulses: what is a loop in a try, see ``ScriptedWorld``.
    """

    def __init__(
        self,
        recorded: Script,
        error: str,
        deadline: float,
        progress: Callable[[Script], None],
        loop_pulses: int,
    ) -> None:
        self.best = recorded
        self.error = error
        self.runs = 1
        self._wanted = kind_of(error)
        self._deadline = deadline
        self._loop_pulses = loop_pulses
        self._progress = progress
        self._limit_us: int | None = None
        self._after_us = 0
        self._salts = 0
        self._prng = random.Random(recorded.seed)

    def begin(self) -> bool:
        """See whether what was recorded fails when it is played, with probes if that can be."""
        recorded = self.best
        heals_us = int(recorded.seconds * FAULTY_SHARE * SECOND_US)
        calm = [act for act in recorded.acts if act.at_us <= heals_us]
        candidates = (
            attrs.evolve(recorded, probes=True, acts=tuple(calm)),
            attrs.evolve(recorded, probes=True),
            recorded,
        )
        fails = any(self._fails(candidate, is_due=False) for candidate in candidates)
        if self._limit_us is not None:
            self._after_us = max(0, self._limit_us - heals_us)
        return fails

    def shorten(self) -> None:
        """Keep the last acts only, and let them come early; with snapshots taken sooner, too."""
        shorter = [self._last(window_s) for window_s in WINDOWS_S]
        now = time.monotonic()
        enough = now + SHORT_SHARE * (self._deadline - now)
        for luck in range(SHORT_LUCKS):
            for script in shorter:
                if script is not None:
                    if self._fails(attrs.evolve(script, salt=self._salts)):
                        return
                    self._salts += 1
            if luck == 0 and self._compact_sooner():
                self.shorten()
                return
            if time.monotonic() >= enough:
                return

    def _compact_sooner(self) -> bool:
        """Let members take snapshots after few entries, if they do not: some bugs want one."""
        whole = self.best
        drawn = options_of(whole.seed, whole.profile).snapshot_entries
        if whole.snapshot_entries is not None or drawn <= SNAPSHOT_ENTRIES:
            return False
        return self._fails_with_luck(attrs.evolve(whole, snapshot_entries=SNAPSHOT_ENTRIES), LUCKS)

    def _last(self, window_s: float) -> Script | None:
        """The last so many seconds alone; None if that is little less than what there is."""
        whole = self.best
        timeout_us = options_of(whole.seed, whole.profile).election_timeout_us
        newest_us = max((act.at_us for act in whole.acts), default=0)
        first_us = newest_us - int(window_s * SECOND_US)
        earlier_us = first_us - SETTLED_TIMEOUTS * timeout_us
        if earlier_us <= SECOND_US:
            return None
        acts = tuple(
            attrs.evolve(act, at_us=act.at_us - earlier_us)
            for act in whole.acts
            if act.at_us >= first_us
        )
        healed_s = whole.seconds * FAULTY_SHARE
        faulty_s = min((newest_us - earlier_us) / SECOND_US + 1.0, healed_s)
        return attrs.evolve(whole, acts=acts, faulty_s=faulty_s)

    def drop(self) -> None:
        """Drop operations and faults until nothing more can go, or time is up."""
        while not self._is_over():
            before = len(self.best.acts)
            drop_needless(self.best.operations, self._do_without, PARTS_FIRST)
            if len(self.best.operations) > OPERATIONS_FEW:
                self._enlarge()
            drop_needless(self.best.operations, self._do_without)
            drop_needless(self.best.faults, self._do_without)
            if len(self.best.acts) < before:
                continue
            few = len(self.best.faults) <= FAULTS_FEW
            if few and len(self.best.operations) <= OPERATIONS_FEW:
                return
            self._gamble()

    def _do_without(self, acts: Sequence[Act]) -> bool:
        if self._is_over():
            return False
        dropped = set(acts) & set(self.best.acts)
        if not dropped:
            return True
        lucks = LUCKS if len(dropped) >= BIG * len(self.best.acts) else 0
        return self._fails_with_luck(self._best_without(dropped), lucks)

    def _enlarge(self) -> None:
        """Let every call be as large as the largest: where it takes bytes, fewer will do."""
        largest = max(self.best.operations, key=lambda act: len(act.draws), default=None)
        if largest is None:
            return
        acts = [
            attrs.evolve(act, name=largest.name, draws=largest.draws) if act.is_operation else act
            for act in self.best.acts
        ]
        larger = self.best.only(acts)
        if larger != self.best:
            self._fails_with_luck(larger, LUCKS)

    def _gamble(self) -> None:
        """Drop acts at random with a luck that was not tried, until one of them fails."""
        part = 0.5
        while not self._is_over():
            dropped = {act for act in self.best.acts if self._prng.random() < part}
            if dropped and self._fails_with_luck(self._best_without(dropped), 1):
                return
            part = max(0.05, part * 0.9)

    def _best_without(self, dropped: Iterable[Act]) -> Script:
        gone = set(dropped)
        return self.best.only(act for act in self.best.acts if act not in gone)

    def _fails_with_luck(self, script: Script, lucks: int) -> bool:
        """Whether a list fails as it is, or with one of so many lucks not tried before."""
        if self._fails(script):
            return True
        for _ in range(lucks):
            self._salts += 1
            if self._fails(attrs.evolve(script, salt=self._salts)):
                return True
        return False

    def _fails(self, script: Script, is_due: bool = True) -> bool:
        """Play a list; if it fails as wanted it is the best, without what came afterwards."""
        if is_due and self._is_over():
            return False
        self.runs += 1
        world = ScriptedWorld(script.seed, script)
        until, enough = (self._until_us(script), self._is_over) if is_due else (None, None)
        error = _error_of(lambda: world.play(until, enough, self._loop_pulses))
        if not error or kind_of(error) != self._wanted:
            return False
        self.error = error
        self.best = script.only(act for act in script.acts if act.at_us <= world.now)
        limit_us = world.now + SLACK_US
        self._limit_us = limit_us if self._limit_us is None else min(self._limit_us, limit_us)
        self._progress(self.best)
        return True

    def _until_us(self, script: Script) -> int | None:
        """When a try is given up: a run that is healed early fails as much earlier, if it does."""
        if self._limit_us is None or script.faulty_s is None:
            return self._limit_us
        after_us = max(SLACK_US, self._after_us)
        return min(self._limit_us, int(script.faulty_s * SECOND_US) + after_us)

    def _is_over(self) -> bool:
        return time.monotonic() >= self._deadline
