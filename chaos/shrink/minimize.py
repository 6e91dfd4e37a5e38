"""Delta debugging (Zeller and Hildebrandt, 2002) over the acts of a failing seed.

A subset counts as failing only if it fails *in the same way*: a run that does nothing at all breaks
the promise of liveness, and that is not what was looked for. Faults are dropped first, then
operations, and again until nothing more can go; the time is bounded, and what is left by then is
the answer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from chaos.shrink.script import Act, Script, ScriptedWorld
from chaos.sim.invariants import Violation
from chaos.sim.world import SECONDS

TIME_LIMIT_S: Final = 60.0
ROUNDS_MAX: Final = 6


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
    seed: int, seconds: float, script: Script | None, say: Callable[[str], None] | None = None
) -> tuple[str, Script]:
    """Run a seed, or a script; return how it fails ("" if it does not) and what was done."""
    world = ScriptedWorld(seed, script, say=say)
    error = ""
    try:
        world.run(seconds)
    except Violation as violation:
        error = str(violation)
    except Exception as unexpected:
        error = f"{type(unexpected).__name__}: {unexpected}"
    return error, world.recorded(seconds)


def kind_of(error: str) -> str:
    """What is common to failures of one kind: the text without names and numbers."""
    plain = re.sub(r"\bn?\d+(\.\d+)?\b|b'[^']*'", "#", error)
    return plain.partition(":")[0] if plain.startswith("liveness") else plain[:60]


def shrink_seed(
    seed: int,
    seconds: float = SECONDS,
    time_limit_s: float = TIME_LIMIT_S,
    progress: Callable[[Script], None] = lambda _script: None,
) -> Shrunk:
    """Shrink a seed that fails.

    Raises:
        DoesNotFail: it does not; or its list of acts, which would be a defect of the simulator.
    """
    began = time.monotonic()
    error, recorded = failure_of(seed, seconds, None)
    if not error:
        raise DoesNotFail(f"seed {seed} keeps every promise: there is nothing to shrink")
    wanted, runs = kind_of(error), 1

    def fails(script: Script) -> bool:
        nonlocal error, runs
        runs += 1
        found, _ = failure_of(seed, seconds, script)
        if found and kind_of(found) == wanted:
            error = found
            return True
        return False

    if not fails(recorded):
        raise DoesNotFail(f"seed {seed} fails ({error}), and the list of its acts does not")
    deadline = began + time_limit_s
    script = recorded
    for _ in range(ROUNDS_MAX):
        before = len(script.acts)
        script = _without_needless(script, script.faults, fails, deadline, progress)
        script = _without_needless(script, script.operations, fails, deadline, progress)
        if len(script.acts) == before or time.monotonic() > deadline:
            break
    return Shrunk(
        script,
        error,
        len(recorded.faults),
        len(recorded.operations),
        runs,
        time.monotonic() - began,
    )


def _without_needless(
    script: Script,
    candidates: Sequence[Act],
    fails: Callable[[Script], bool],
    deadline: float,
    progress: Callable[[Script], None],
) -> Script:
    """Drop of the candidates what can go: in halves first, in single acts last."""
    left = list(candidates)
    size = len(left)
    while size and left:
        place = 0
        while place < len(left) and time.monotonic() < deadline:
            dropped = set(map(id, left[place : place + size]))
            smaller = script.only(act for act in script.acts if id(act) not in dropped)
            if fails(smaller):
                script = smaller
                del left[place : place + size]
                progress(script)
            else:
                place += size
        size //= 2
    return script
