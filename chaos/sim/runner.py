"""Running seeds: one, or many over some processes, within a time limit.

A seed's verdict is ok or violated. Whatever exception a run ends with, a promise was broken or the
program is: both are violations. Runs in which callers were told next to nothing are invalid.
"""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import attrs

from chaos import guardian
from chaos.nemesis.plan import Plan
from chaos.nemesis.simulated import SimulatedPlan
from chaos.sim.invariants import Violation
from chaos.sim.options import SECOND_US, Options
from chaos.sim.stock.world import StockWorld
from chaos.sim.world import FAULTY_SHARE, SECONDS, World, stream_of
from chaos.verdict import Verdict

NATIVE, PYSYNCOBJ = "native", "pysyncobj"
ENGINES: Final = (NATIVE, PYSYNCOBJ)
SWARM, KILL_ALL = "swarm", "kill-all"
PROFILES: Final = (SWARM, KILL_ALL)
"""How the native engine's options are drawn: anything, or all members killed at once."""
KILL_ALL_EVERY: Final = 5
"""Where profiles take turns, one seed in so many is one in which all lose their power."""
CHUNK: Final = 4
"""Seeds given to a worker at once: few, so that a time limit is kept."""
FRAMES_MAX: Final = 6
"""Innermost calls named when a run ends with an unexpected error."""
ACKNOWLEDGED_PER_S_MIN: Final = 1.0
"""Acknowledged commands per simulated second over all seeds; below it nothing was proved."""
EFFECTS: Final = (
    *("bit flip detected", "bits flipped", "change demote", "change grow", "change leader"),
    *("change learner", "change overhaul", "change promote", "change repair", "change replace"),
    *(
        "change shrink",
        "changes in steps",
        "clock jumps",
        "compactions",
        "crash inside",
        "crash keep_all",
        "crash keep_prefix",
    ),
    *("crash keep_some", "crash lose_all", "cut halves", "cut one", "cut one-way", "cut pair"),
    *("cut ring", "disk full refused", "late repeats", "members retired", "messages cut off"),
    *("messages lost", "messages repeated", "messages stalled", "pauses", "reordered writes"),
    *("leaders gone", "repairs", "restore slices"),
    *("slow sync", "snapshots installed", "snapshots resumed", "sync failed", "torn write"),
    "transfers",
    *("unsynced names lost", "unsynced writes kept", "unsynced writes lost"),
)
"""What faults and changes are counted as once they have had an effect."""
REPLAY_TIMEOUT_S: Final = 600.0


@attrs.frozen(slots=True)
class Outcome:
    """How one seed ended."""

    seed: int
    verdict: Verdict
    error: str
    digest: str
    seconds: float
    cpu_s: float
    events: int
    acknowledged: int
    counts: dict[str, int]
    options: dict[str, Any]


@attrs.define(slots=True)
class Summary:
    """What many seeds came to."""

    seeds: int = 0
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    events: int = 0
    acknowledged: int = 0
    counts: Counter[str] = attrs.field(factory=Counter)
    violations: list[Outcome] = attrs.field(factory=list)
    digests: dict[int, str] = attrs.field(factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count one more seed."""
        self.seeds += 1
        self.simulated_s += outcome.seconds
        self.cpu_s += outcome.cpu_s
        self.events += outcome.events
        self.acknowledged += outcome.acknowledged
        self.counts.update(outcome.counts)
        self.digests[outcome.seed] = outcome.digest
        if outcome.verdict is not Verdict.OK:
            self.violations.append(outcome)

    @property
    def without_effect(self) -> list[str]:
        """Faults and changes that no seed so far has seen to have an effect."""
        return [effect for effect in EFFECTS if not self.counts[effect]]

    @property
    def ratio(self) -> float:
        """Simulated seconds per second of CPU."""
        return self.simulated_s / self.cpu_s if self.cpu_s else 0.0

    @property
    def verdict(self) -> Verdict:
        """Violated if any seed was; invalid if nothing worth the name was done."""
        if self.violations:
            return Verdict.VIOLATED
        if not self.seeds or self.acknowledged < ACKNOWLEDGED_PER_S_MIN * self.simulated_s:
            return Verdict.INVALID
        return Verdict.OK


def profile_of(seed: int) -> str:
    """Return the profile that a seed has where profiles take turns."""
    return KILL_ALL if seed % KILL_ALL_EVERY == KILL_ALL_EVERY - 1 else SWARM


def options_of(seed: int, profile: str) -> Options:
    """What a seed of the native engine draws, of a profile."""
    draw = Options.draw_kill_all if profile == KILL_ALL else Options.draw
    return draw(stream_of(seed, "options"))


def run_seed(
    seed: int,
    seconds: float = SECONDS,
    say: Callable[[str], None] | None = None,
    engine: str = NATIVE,
    profile: str = SWARM,
    plan: Plan | None = None,
) -> Outcome:
    """Run one seed; ``say`` is called with a line about everything that happens.

    With a ``plan`` its faults come, and no others.
    """
    # What a run leaves behind in circles is young: looking at nothing else saves a tenth.
    collecting = gc.isenabled()
    gc.disable()
    began = time.process_time()
    try:
        outcome = _run_seed(seed, seconds, say, engine, profile, plan)
        gc.collect(0)
    finally:
        if collecting:
            gc.enable()
    return attrs.evolve(outcome, cpu_s=time.process_time() - began)


def _run_seed(
    seed: int,
    seconds: float,
    say: Callable[[str], None] | None,
    engine: str,
    profile: str,
    plan: Plan | None,
) -> Outcome:
    error = ""
    world: World | StockWorld | None = None
    try:
        if engine == PYSYNCOBJ:
            world = StockWorld(seed, say=say)
        elif plan is not None:
            world = World(seed, Options(), say)
            SimulatedPlan(plan, world, int(seconds * FAULTY_SHARE * SECOND_US)).schedule()
        else:
            world = World(seed, options_of(seed, profile), say)
        world.run(seconds)
    except Violation as violation:
        error = str(violation)
    except Exception as unexpected:
        error = f"{type(unexpected).__name__}: {unexpected} {_places(unexpected)}"
    return Outcome(
        seed=seed,
        verdict=Verdict.VIOLATED if error else Verdict.OK,
        error=error,
        digest=world.trace.digest if world else "",
        seconds=world.now / 1e6 if world else 0.0,
        cpu_s=0.0,
        events=world.events if world else 0,
        acknowledged=world.acknowledgements if world else 0,
        counts=dict(sorted(world.counts.items())) if world else {},
        options=world.options.differences() if world else {},
    )


def _places(error: Exception) -> str:
    """Say where an error came from, innermost call first."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return f"({' < '.join(reversed(places))})"


def seeds_of_commit(commit: str) -> Iterator[int]:
    """Yield seeds drawn from a commit id, without end: the same for the same commit."""
    number = 0
    while True:
        digest = hashlib.sha256(f"{commit} {number}".encode()).digest()
        yield int.from_bytes(digest[:6], "big")
        number += 1


def run_seeds(
    seeds: Iterable[int],
    report: Callable[[Outcome], None],
    *,
    seconds: float = SECONDS,
    jobs: int = 1,
    time_limit_s: float | None = None,
    engine: str = NATIVE,
    profile: str = SWARM,
) -> None:
    """Run seeds in order on ``jobs`` processes, until they or the time are used up."""
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    left = iter(seeds)
    if jobs == 1:
        for seed in left:
            report(run_seed(seed, seconds, engine=engine, profile=profile))
            if deadline is not None and time.monotonic() >= deadline:
                return
        return
    guardian.engage()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        running: set[Future[list[Outcome]]] = set()
        while True:
            while len(running) < jobs + 1 and (deadline is None or time.monotonic() < deadline):
                chunk = list(islice(left, CHUNK))
                if not chunk:
                    break
                running.add(pool.submit(_run_chunk, chunk, seconds, engine, profile))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for outcome in chain.from_iterable(future.result() for future in done):
                report(outcome)


def _run_chunk(seeds: Sequence[int], seconds: float, engine: str, profile: str) -> list[Outcome]:
    return [run_seed(seed, seconds, engine=engine, profile=profile) for seed in seeds]


def digests_elsewhere(
    seeds: Sequence[int], seconds: float = SECONDS, engine: str = NATIVE, profile: str = SWARM
) -> dict[int, str]:
    """Run seeds in a new process with another seed of ``hash``, and return their trace hashes.

    Raises:
        RuntimeError: that process failed; the text has what it said.
    """
    other = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    finished = subprocess.run(
        [sys.executable, "-m", "chaos.sim.runner"],
        input=json.dumps([list(seeds), seconds, engine, profile]),
        capture_output=True,
        text=True,
        timeout=REPLAY_TIMEOUT_S,
        env={**os.environ, "PYTHONHASHSEED": other},
    )
    if finished.returncode:
        raise RuntimeError(f"the replaying process failed: {finished.stderr.strip()}")
    return {int(seed): digest for seed, digest in json.loads(finished.stdout).items()}


def _main() -> None:
    seeds, seconds, engine, profile = json.load(sys.stdin)
    digests = {
        seed: run_seed(seed, seconds, engine=engine, profile=profile).digest for seed in seeds
    }
    json.dump(digests, sys.stdout)


if __name__ == "__main__":
    _main()
