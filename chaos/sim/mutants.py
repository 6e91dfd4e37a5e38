"""``chaos mutants``: put known bugs into the engine, one at a time, and say what finds each.

The bugs and the tests that find them are in a checkout's tests (``tests/consensus/raft/mutants``):
a mutant is a piece of the engine's text and what stands there instead. Here the simulator and the
search of small worlds are let loose on each as well, for a bounded number of seeds and of states.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import attrs
import click
from click.core import ParameterSource

from chaos import guardian
from chaos.shrink.measured import run_shrunk
from chaos.sim.checkout import MUTANTS_MODULE, module_of_tests
from chaos.sim.exhaustive.search import SCOPES, Search
from chaos.sim.quiet import without_logs
from chaos.sim.replayed import run_replayed
from chaos.sim.runner import profile_of, run_seed
from chaos.verdict import Verdict

SEEDS: Final = 30
STATES: Final = 5_000
WHAT_CHARS_MAX: Final = 110


@attrs.frozen(slots=True)
class Row:
    """What finds one mutant. Empty text: not found so."""

    name: str
    target: str
    test: str
    seeds: int = 0
    simulated: str = ""
    states: int = 0
    explored: str = ""

    @property
    def found(self) -> bool:
        """Whether anything finds it."""
        return bool(self.test or self.simulated or self.explored)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--seeds", type=click.IntRange(min=0), default=SEEDS, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(min=10, max=3600),
    default=20.0,
    show_default=True,
    help="Simulated length of each seed.",
)
@click.option(
    "--states",
    type=click.IntRange(min=0),
    default=STATES,
    show_default=True,
    help="States searched in each small world; 0 for none.",
)
@click.option("--tests/--no-tests", default=True, help="Run the test named beside each, too.")
@click.option(
    "--replayed",
    is_flag=True,
    help="Bugs of real systems instead: a script each, green as it is and red with its mutant.",
)
@click.option(
    "--shrink",
    "is_shrinking",
    is_flag=True,
    help="Look with the simulator alone, and shrink each seed on which a bug is found.",
)
@click.option("--jobs", type=click.IntRange(1, 256), default=2, show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the table here, too."
)
def mutants(
    names: Sequence[str],
    seeds: int,
    seconds: float,
    states: int,
    tests: bool,
    replayed: bool,
    is_shrinking: bool,
    jobs: int,
    out: Path | None,
) -> None:
    """Put known bugs into the product, and print what finds each. Run it in a checkout.

    NAMES: only mutants whose name contains one of these; with --replayed, scripts whose name or
    whose bug's number does (etcd#15271).

    \b
    Exit status: 0 every mutant was found (with --shrink: what was found shrank to little), 1 one
    was not, 2 nothing could be run.
    """
    if replayed:
        _refuse("--replayed: scripts do not search", "seeds", "seconds", "states", "tests")
        _refuse("--replayed: a script is little as it is", "is_shrinking")
        sys.exit(0 if run_replayed(names, jobs, out) else 1)
    table = _table()
    chosen = [
        mutant.name
        for mutant in table.MUTANTS
        if not names or any(part in mutant.name for part in names)
    ]
    if not chosen:
        raise click.UsageError(f"no mutant has a name with {' or '.join(names)} in it")
    if is_shrinking:
        _refuse("--shrink: only the simulator's seeds shrink", "states", "tests")
        sys.exit(0 if run_shrunk(chosen, range(seeds), seconds, jobs, out) else 1)
    rows = []
    for row in _judged(chosen, Effort(seeds, seconds, states, tests), jobs):
        rows.append(row)
        click.echo(_line(row))
        if out is not None:  # each time: it takes long, and may be ended before its end
            out.write_text(markdown(rows, seeds, seconds, states), encoding="utf-8")
    click.echo(_summary(rows))
    sys.exit(0 if all(row.found for row in rows) else 1)


def _refuse(why: str, *names: str) -> None:
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = name.removeprefix("is_").replace("shrinking", "shrink")
            raise click.UsageError(f"--{option} does not go with {why}")


@attrs.frozen(slots=True)
class Effort:
    """How hard one mutant is looked for.

    Args:
        seeds, seconds: of the simulator, and how long each is.
        states: of each small world.
        tests: whether the test beside it is run.
    """

    seeds: int
    seconds: float
    states: int
    tests: bool


def _table() -> ModuleType:
    return module_of_tests(MUTANTS_MODULE)


def _judged(names: Sequence[str], effort: Effort, jobs: int) -> Iterable[Row]:
    if jobs == 1:
        yield from map(judge, names, repeat(effort))
        return
    guardian.engage()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        yield from pool.map(judge, names, repeat(effort))


@without_logs()
def judge(name: str, effort: Effort) -> Row:
    """Let loose on one mutant what the effort allows."""
    table = _table()
    (mutant,) = [each for each in table.MUTANTS if each.name == name]
    row = Row(name, mutant.target, "")
    if effort.tests:
        with tempfile.TemporaryDirectory(prefix="chaos-mutants-") as directory:
            try:
                found = table.found_by_test(mutant, Path(directory))
            except Exception as error:  # without the bug: nothing is proved
                click.echo(f"{mutant.killer} fails without the bug: {_short(error)}", err=True)
                found = False
            if found:
                row = attrs.evolve(row, test=mutant.killer)
    with table.applied(mutant):
        row = _simulate(row, effort)
        if ".raft." in mutant.target:
            row = _explore(row, effort.states)
    return row


def _simulate(row: Row, effort: Effort) -> Row:
    for seed in range(effort.seeds):
        outcome = run_seed(seed, effort.seconds, profile=profile_of(seed))
        if outcome.verdict is not Verdict.OK:
            return attrs.evolve(row, seeds=seed + 1, simulated=outcome.error)
    return row


def _explore(row: Row, states_max: int) -> Row:
    if not states_max:
        return row
    looked_at = 0
    for scope in SCOPES:
        try:
            found = Search(scope).run(states_max)
        except Exception as error:  # a mutant may break the core in any way: that is found, too
            text = f"{scope.name}: {type(error).__name__}: {error}"
            return attrs.evolve(row, states=looked_at + 1, explored=text)
        looked_at += found.states
        if found.violation:
            text = f"{scope.name}: {found.violation}"
            return attrs.evolve(row, states=looked_at, explored=text)
    return row


# -- the table --------------------------------------------------------------------------------


def markdown(rows: Sequence[Row], seeds: int, seconds: float, states: int) -> str:
    """Return the table as a document."""
    lines = [
        "# Known bugs, and what finds them",
        "",
        "Each row is a bug put into the engine on purpose. The test is the one of the suite that",
        f"fails with it. The simulator had {seeds} seeds of {seconds:g} simulated seconds each,",
        f"the search of small worlds {states:,} states of each world (for the core's bugs only).",
        "A dash: not found so within these bounds. Made by `chaos mutants --out docs/MUTANTS.md`.",
        "",
        _summary(rows),
        "",
        "| bug | in | test | simulator | small worlds |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        simulated = f"seed {row.seeds}: {_short(row.simulated)}" if row.simulated else "–"
        explored = f"{row.states:,} states, {_short(row.explored)}" if row.explored else "–"
        test = f"`{row.test.partition(':')[2]}`" if row.test else "–"
        target = row.target.partition(":")[2]
        lines.append(f"| {row.name} | `{target}` | {test} | {simulated} | {explored} |")
    return "\n".join(lines) + "\n"


def _summary(rows: Sequence[Row]) -> str:
    tests, simulated, explored = (
        sum(map(bool, column))
        for column in zip(*((row.test, row.simulated, row.explored) for row in rows), strict=True)
    )
    lost = [row.name for row in rows if not row.found]
    either = sum(bool(row.simulated or row.explored) for row in rows)
    return (
        f"{len(rows)} bugs: {tests} found by the tests, {simulated} by the simulator, {explored} "
        f"by the search of small worlds ({either} by one of these two); "
        f"{'not found: ' + ', '.join(lost) if lost else 'none survives'}."
    )


def _short(text: Any) -> str:
    line = str(text).splitlines()[0].replace("|", "/")
    return line if len(line) <= WHAT_CHARS_MAX else line[: WHAT_CHARS_MAX - 3] + "..."


def _line(row: Row) -> str:
    found = []
    if row.test:
        found.append(f"test {row.test}")
    if row.simulated:
        found.append(f"{row.seeds} seeds ({_short(row.simulated)})")
    if row.explored:
        found.append(f"{row.states} states ({_short(row.explored)})")
    return f"{row.name}: {'; '.join(found) or 'SURVIVED'}"
