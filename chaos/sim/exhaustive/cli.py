"""``chaos explore``: search small worlds of the real core for a broken promise."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import attrs
import click

from chaos import guardian
from chaos.sim.exhaustive.search import SCOPES, Found, Scope, Search

STATES: Final = 1_000_000
JOBS_MAX: Final = 256

_NAMES: Final = [scope.name for scope in SCOPES]


@click.command()
@click.option(
    "--scope",
    "names",
    type=click.Choice(_NAMES),
    multiple=True,
    help="A world to search; may be repeated. All, where none is named.",
)
@click.option(
    "--states",
    type=click.IntRange(min=1),
    default=STATES,
    show_default=True,
    help="Stop after this many distinct states, shared among the worlds.",
)
@click.option(
    "--time-limit", type=click.FloatRange(min=1), default=None, help="Stop after these seconds."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, JOBS_MAX),
    default=2,
    show_default=True,
    help="Processes to run on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def explore(
    names: Sequence[str], states: int, time_limit: float | None, jobs: int, as_json: bool
) -> None:
    """Search small worlds of the real Raft core, state by state.

    A world has three members, some terms and entries, and a budget for everything that can go
    wrong: messages lost, repeated and reordered, members that crash and lose what was not synced.
    Every promise is checked in every distinct state.

    \b
    Examples:
      chaos explore --time-limit 120
      chaos explore --scope repair --states 5000000 --jobs 1
    """
    scopes = [scope for scope in SCOPES if not names or scope.name in names]
    jobs = min(jobs, len(scopes))
    each_s = None if time_limit is None else time_limit * jobs / len(scopes)
    began = time.monotonic()
    every: list[Found] = []
    try:
        for found in _searched(scopes, states // len(scopes) + 1, each_s, jobs):
            every.append(found)
            if not as_json:
                _say(found)
    except KeyboardInterrupt:
        raise click.Abort from None
    broken = [found for found in every if found.violation]
    total = sum(found.states for found in every)
    if as_json:
        document = {
            "verdict": "violated" if broken else "ok",
            "states": total,
            "scopes": [attrs.asdict(found) for found in every],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        took = time.monotonic() - began
        click.echo(f"{total:,} distinct states in {took:.0f} s, {len(broken)} violations")
        click.echo(f"verdict {'violated' if broken else 'ok'}")
    sys.exit(1 if broken else 0)


def _searched(
    scopes: Sequence[Scope], states_max: int, time_limit_s: float | None, jobs: int
) -> Iterable[Found]:
    if jobs == 1:
        return (search(scope, states_max, time_limit_s) for scope in scopes)
    guardian.engage()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        futures = [pool.submit(search, scope, states_max, time_limit_s) for scope in scopes]
        return [future.result() for future in futures]


def search(scope: Scope, states_max: int, time_limit_s: float | None) -> Found:
    """Search one world."""
    return Search(scope).run(states_max, time_limit_s)


def _say(found: Found) -> None:
    rate = found.states / found.seconds if found.seconds else 0
    click.echo(
        f"{found.scope}: {found.states:,} distinct states, {found.transitions:,} events followed, "
        f"{found.depth} events deep, {'all there are' if found.complete else 'not all'}; "
        f"{found.steps:,} different steps of a member; {found.seconds:.0f} s, {rate:,.0f} a second"
    )
    if found.violation:
        click.echo(f"violated: {found.violation}, after")
        for number, what in enumerate(found.path, 1):
            click.echo(f"  {number:3} {what}")
