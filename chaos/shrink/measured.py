"""``chaos mutants --shrink``: how little is left of the seeds on which known bugs are found.

The simulator looks for a seed that fails with each bug in the product; that seed is shrunk; its
list is then played with the bug, which must show again, and without it, when every promise must be
kept.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Final

import attrs
import click

from chaos import guardian
from chaos.shrink.minimize import (
    FAULTS_FEW,
    OPERATIONS_FEW,
    Shrunk,
    failure_of_script,
    kind_of,
    shrink_seed,
)
from chaos.sim.checkout import MUTANTS_MODULE, module_of_tests
from chaos.sim.quiet import without_logs
from chaos.sim.runner import SWARM, profile_of, run_seed

SECONDS_MAX: Final = 60.0


@attrs.frozen(slots=True)
class ShrunkRow:
    """What is left of a seed on which a bug was found.

    Args:
        name: of the bug.
        seed: on which it was found; None if on none.
        profile: of the seed.
        shrunk: what came of it.
        problem: why this proves nothing; empty where it does.
    """

    name: str
    seed: int | None = None
    profile: str = SWARM
    shrunk: Shrunk | None = None
    problem: str = ""

    @property
    def is_little(self) -> bool:
        """Whether it is few acts, soon found, that show the bug and nothing else."""
        found = self.shrunk
        return (
            found is not None
            and not self.problem
            and len(found.script.faults) <= FAULTS_FEW
            and len(found.script.operations) <= OPERATIONS_FEW
            and found.seconds <= SECONDS_MAX
        )


def run_shrunk(
    names: Sequence[str], seeds: Iterable[int], seconds: float, jobs: int, out: Path | None
) -> bool:
    """Shrink what the simulator finds, and print it; return whether all of it shrank to little.

    Args:
        names: of mutants.
        seeds: looked for in this order.
        seconds: simulated length of each.
        jobs: processes.
        out: a file that gets the table.
    """
    rows: list[ShrunkRow] = []
    for row in _judged(names, list(seeds), seconds, jobs):
        rows.append(row)
        click.echo(_line(row))
        if out is not None:  # each time: it takes long, and may be ended before its end
            out.write_text(table(rows), encoding="utf-8")
    found = [row for row in rows if row.seed is not None]
    little = [row for row in found if row.is_little]
    lost = len(rows) - len(found)
    click.echo(f"{len(little)} of {len(found)} shrank to little; {lost} were not found")
    return bool(found) and len(little) == len(found)


def _judged(
    names: Sequence[str], seeds: Sequence[int], seconds: float, jobs: int
) -> Iterable[ShrunkRow]:
    if jobs == 1:
        yield from map(judge, names, repeat(seeds), repeat(seconds))
        return
    guardian.engage()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        yield from pool.map(judge, names, repeat(seeds), repeat(seconds))


@without_logs()
def judge(name: str, seeds: Sequence[int], seconds: float) -> ShrunkRow:
    """Find a seed that fails with a mutant, and shrink it."""
    module = module_of_tests(MUTANTS_MODULE)
    (mutant,) = [each for each in module.MUTANTS if each.name == name]
    with module.applied(mutant):
        for seed in seeds:
            if run_seed(seed, seconds, profile=profile_of(seed)).error:
                break
        else:
            return ShrunkRow(name)
        found = shrink_seed(seed, seconds, profile=profile_of(seed))
        with_bug = failure_of_script(found.script)
    without = failure_of_script(found.script)
    problem = ""
    if kind_of(with_bug) != kind_of(found.error):
        problem = f"played again: {with_bug or 'every promise was kept'}"
    elif without:
        problem = f"played without the bug: {without}"
    return ShrunkRow(name, seed, profile_of(seed), found, problem)


def table(rows: Sequence[ShrunkRow]) -> str:
    """The bugs that were found, as a table of a document."""
    lines = [
        "| bug | seed | faults | operations | runs | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if (found := row.shrunk) is not None:
            profile = "" if row.profile == SWARM else f" ({row.profile})"
            remark = "" if row.is_little else " **not little**"
            script = found.script
            lines.append(
                f"| {row.name} | {row.seed}{profile} "
                f"| {found.faults_before} → {len(script.faults)} "
                f"| {found.operations_before} → {len(script.operations)} "
                f"| {found.runs} | {found.seconds:.1f}{remark} |"
            )
    return "\n".join(lines) + "\n"


def _line(row: ShrunkRow) -> str:
    if row.shrunk is None:
        return f"{row.name}: not found"
    found = row.shrunk
    left = f"{len(found.script.faults)} faults, {len(found.script.operations)} operations left"
    return f"{row.name}: seed {row.seed}, {left} in {found.seconds:.1f} s {row.problem}".rstrip()
