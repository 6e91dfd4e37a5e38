"""``chaos sim``: run simulated clusters by seed, and replay what they find."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import click
import rich.console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from chaos.nemesis.plan import PlanError, read_plan
from chaos.nemesis.simulated import check_simulable
from chaos.sim.runner import (
    ENGINES,
    NATIVE,
    PROFILES,
    SWARM,
    Outcome,
    Summary,
    digests_elsewhere,
    run_seed,
    run_seeds,
    seeds_of_commit,
)
from chaos.sim.world import FAULTY_SHARE, SECONDS
from chaos.verdict import Verdict

EXIT_CODES: Final = {Verdict.OK: 0, Verdict.VIOLATED: 1, Verdict.INVALID: 2}
VIOLATIONS_SHOWN_MAX: Final = 5
JOBS_MAX: Final = 256
PROGRESS_EVERY_S: Final = 60.0
"""Real seconds between two lines of progress where the output is not a terminal."""


@attrs.frozen(slots=True)
class _Request:
    seconds: float
    jobs: int
    time_limit: float | None
    replay: int
    as_json: bool
    engine: str = NATIVE
    profile: str = SWARM
    planned: range | None = None
    """The fixed seeds asked for; None for one seed alone."""


@click.command()
@click.option(
    "--seeds", type=click.IntRange(min=0), default=200, show_default=True, help="How many seeds."
)
@click.option(
    "--start", type=click.IntRange(min=0), default=0, show_default=True, help="The first seed."
)
@click.option(
    "--from-commit",
    default=None,
    metavar="HASH",
    help="After those, go on with seeds drawn from this commit id until the time limit.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=10, max=3600),
    default=SECONDS,
    show_default=True,
    help="Simulated length of each run.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, JOBS_MAX),
    default=2,
    show_default=True,
    help="Processes to run on.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=None,
    help="Start no more seeds after this many real seconds.",
)
@click.option(
    "--replay",
    type=click.IntRange(min=0),
    default=0,
    help="Run so many of the seeds again in another process and compare what happened.",
)
@click.option("--seed", type=click.IntRange(min=0), default=None, help="Run this one seed only.")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=NATIVE,
    show_default=True,
    help="native: our own. pysyncobj: the library as it is, which breaks its promises.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default=SWARM,
    show_default=True,
    help="swarm: each seed draws its faults. kill-all: every member loses its power at once.",
)
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Let the faults of this plan come (see chaos plan), and no others.",
)
@click.option("--trace", is_flag=True, help="With --seed: print everything that happens.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def sim(
    seeds: int,
    start: int,
    from_commit: str | None,
    seconds: float,
    jobs: int,
    time_limit: float | None,
    replay: int,
    seed: int | None,
    engine: str,
    profile: str,
    plan_path: Path | None,
    trace: bool,
    as_json: bool,
) -> None:
    """Run whole clusters of an engine in one process each, under faults, by seed.

    Clock, network and disks are simulated; core, log and driver are the real ones. Raft's promises
    are checked after every event. A seed decides everything and replays exactly. PySyncObj runs
    unmodified, its processes are only ever killed, and what its callers see is checked.

    \b
    Examples:
      chaos sim --seeds 1000 --jobs 2
      chaos sim --seed 7841 --trace
      chaos sim --seeds 200 --from-commit $(git rev-parse HEAD) --time-limit 180 --replay 50
    """
    if engine != NATIVE and profile != SWARM:
        raise click.UsageError("--profile goes with --engine native: PySyncObj has its own faults")
    if trace and (seed is None or as_json):
        raise click.UsageError("--trace goes with --seed and without --json: name the one seed")
    if from_commit is not None and time_limit is None:
        raise click.UsageError("--from-commit goes on without end: give --time-limit too")
    if plan_path is not None:
        if (engine, profile, from_commit, replay) != (NATIVE, SWARM, None, 0):
            raise click.UsageError("--plan goes with --seed or --seeds, --start and --seconds only")
        seeds_of_plan = range(start, start + seeds) if seed is None else range(seed, seed + 1)
        _planned(plan_path, seeds_of_plan, seconds, trace=trace, as_json=as_json)
    planned = range(start, start + seeds) if seed is None else None
    request = _Request(seconds, jobs, time_limit, replay, as_json, engine, profile, planned)
    if seed is not None:
        _one(seed, request, trace=trace)
    chosen: Iterable[int] = range(start, start + seeds)
    if from_commit is not None:
        chosen = chain(chosen, seeds_of_commit(from_commit))
    elif not seeds:
        raise click.UsageError("--seeds 0 runs nothing without --from-commit")
    _many(chosen, request)


def _one(seed: int, request: _Request, *, trace: bool) -> None:
    say = click.echo if trace else None
    outcome = run_seed(seed, request.seconds, say, request.engine, request.profile)
    summary = Summary()
    summary.add(outcome)
    if request.as_json:
        click.echo(json.dumps(_document(summary, request, {}), ensure_ascii=False, indent=2))
    else:
        console = rich.console.Console(highlight=False)
        settings = ", ".join(f"{name}={value}" for name, value in outcome.options.items())
        _say(console, f"seed {seed}: {settings or 'nothing special'}")
        _show(console, summary, request, {})
        _say(console, f"trace hash {outcome.digest}")
    sys.exit(EXIT_CODES[outcome.verdict])


def _planned(
    path: Path, seeds: Iterable[int], seconds: float, *, trace: bool, as_json: bool
) -> NoReturn:
    """Run a plan under each seed, long enough for all of it."""
    try:
        plan = read_plan(path)
        check_simulable(plan)
    except PlanError as error:
        raise click.BadParameter(str(error), param_hint="--plan") from error
    request = _Request(
        max(seconds, (plan.seconds + 1) / FAULTY_SHARE), 1, None, 0, as_json, NATIVE, "plan", None
    )
    summary = Summary()
    say = click.echo if trace else None
    for seed in seeds:
        summary.add(run_seed(seed, request.seconds, say, plan=plan))
    if as_json:
        click.echo(json.dumps(_document(summary, request, {}), ensure_ascii=False, indent=2))
    else:
        _show(rich.console.Console(highlight=False), summary, request, {})
        click.echo(f"again: chaos sim --plan {path} --seed N --seconds {seconds:g} --trace")
    sys.exit(EXIT_CODES[summary.verdict])


def _many(chosen: Iterable[int], request: _Request) -> None:
    summary = Summary()
    console = rich.console.Console(quiet=request.as_json, highlight=False)
    differing: dict[int, tuple[str, str]] = {}
    interrupted = False
    try:
        with _progress(console, summary) as show:

            def report(outcome: Outcome) -> None:
                summary.add(outcome)
                if outcome.verdict is not Verdict.OK:
                    _violation(console, outcome, request)
                show()

            run_seeds(
                chosen,
                report,
                seconds=request.seconds,
                jobs=request.jobs,
                time_limit_s=request.time_limit,
                engine=request.engine,
                profile=request.profile,
            )
        rest = set() if request.planned is None else set(request.planned) - set(summary.digests)
        if rest and not request.as_json:
            _say(console, f"the time was up; the rest: --start {min(rest)} --seeds {len(rest)}")
        differing = _replay(summary, request)
    except KeyboardInterrupt:
        interrupted = True
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
    verdict = _verdict(summary, differing)
    if interrupted and verdict is Verdict.OK:
        verdict = Verdict.INVALID
    if request.as_json:
        document = _document(summary, request, differing)
        document["verdict"] = verdict.value
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        if interrupted:
            _say(console, "interrupted")
        _show(console, summary, request, differing)
    sys.exit(EXIT_CODES[verdict])


def _replay(summary: Summary, request: _Request) -> dict[int, tuple[str, str]]:
    """Run the first seeds again elsewhere; return those whose hashes differ."""
    again = sorted(summary.digests)[: request.replay]
    if not again:
        return {}
    elsewhere = digests_elsewhere(again, request.seconds, request.engine, request.profile)
    return {
        seed: (summary.digests[seed], elsewhere[seed])
        for seed in again
        if summary.digests[seed] != elsewhere[seed]
    }


def _swarming(request: _Request) -> bool:
    return request.engine == NATIVE and request.profile == SWARM


def _verdict(summary: Summary, differing: dict[int, tuple[str, str]]) -> Verdict:
    return Verdict.VIOLATED if differing else summary.verdict


def _command(outcome: Outcome, request: _Request) -> str:
    """Return the one command that replays a seed."""
    asked = "" if request.engine == NATIVE else f" --engine {request.engine}"
    asked += "" if request.profile == SWARM else f" --profile {request.profile}"
    return f"chaos sim --seed {outcome.seed} --seconds {request.seconds:g}{asked} --trace"


def _document(
    summary: Summary, request: _Request, differing: dict[int, tuple[str, str]]
) -> dict[str, Any]:
    return {
        "verdict": _verdict(summary, differing).value,
        "seeds": summary.seeds,
        "simulated_hours": round(summary.simulated_s / 3600, 4),
        "cpu_s": round(summary.cpu_s, 2),
        "times_real_time": round(summary.ratio, 1),
        "events": summary.events,
        "acknowledged": summary.acknowledged,
        "replayed": min(request.replay, summary.seeds),
        "replayed_differently": sorted(differing),
        "counts": dict(sorted(summary.counts.items())),
        "without_effect": summary.without_effect if _swarming(request) else [],
        "violations": [
            {
                "seed": outcome.seed,
                "error": outcome.error,
                "options": outcome.options,
                "replay": _command(outcome, request),
            }
            for outcome in summary.violations
        ],
        "hashes": {str(seed): digest for seed, digest in summary.digests.items()}
        if summary.seeds == 1
        else {},
    }


# -- for people -------------------------------------------------------------------------------


@contextmanager
def _progress(console: rich.console.Console, summary: Summary) -> Iterator[Any]:
    began = said = time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show() -> None:
            nonlocal said
            now = time.monotonic()
            text = (
                f"{summary.seeds} seeds, {summary.simulated_s / 3600:.2f} simulated hours, "
                f"{summary.ratio:.0f} times real time per core, "
                f"{len(summary.violations)} violated, {now - began:.0f} s"
            )
            if console.is_terminal:
                live.update(Text(text), refresh=True)
            elif now - said >= PROGRESS_EVERY_S:
                said = now
                _say(console, text)

        yield show


def _say(console: rich.console.Console, text: str) -> None:
    console.print(escape(text), soft_wrap=True)


def _violation(console: rich.console.Console, outcome: Outcome, request: _Request) -> None:
    console.print(f"[bold red]violated[/]: {escape(outcome.error)}", soft_wrap=True)
    _say(console, f"  seed {outcome.seed} at {outcome.seconds:.3f} s")
    _say(console, f"  options {json.dumps(outcome.options, sort_keys=True)}")
    _say(console, f"  replay: {_command(outcome, request)}")
    if request.engine == NATIVE and request.profile in PROFILES:
        profile = "" if request.profile == SWARM else f" --profile {request.profile}"
        seed_s = f"{outcome.seed} --seconds {request.seconds:g}"
        _say(console, f"  shrink: chaos shrink {seed_s}{profile}")


def _show(
    console: rich.console.Console,
    summary: Summary,
    request: _Request,
    differing: dict[int, tuple[str, str]],
) -> None:
    table = Table(title="what happened", title_justify="left")
    table.add_column("what")
    table.add_column("times", justify="right")
    for what, times in sorted(summary.counts.items()):
        table.add_row(escape(what), f"{times:,}")
    console.print(table)
    if summary.seeds > 1 and _swarming(request) and summary.without_effect:
        _say(console, f"never in these seeds: {', '.join(summary.without_effect)}")
    for outcome in summary.violations[:VIOLATIONS_SHOWN_MAX]:
        _violation(console, outcome, request)
    if len(summary.violations) > VIOLATIONS_SHOWN_MAX:
        _say(console, f"and {len(summary.violations) - VIOLATIONS_SHOWN_MAX} more seeds")
    for seed, (here, there) in sorted(differing.items()):
        _say(console, f"seed {seed} does not replay: {here[:16]} here, {there[:16]} elsewhere")
    if request.replay and not differing:
        replayed = min(request.replay, summary.seeds)
        _say(console, f"{replayed} seeds replayed in another process: the same, event by event")
    _say(
        console,
        f"{summary.seeds} seeds, {summary.simulated_s / 3600:.2f} simulated hours in "
        f"{summary.cpu_s:.1f} s of CPU: {summary.ratio:.0f} times real time per core; "
        f"{summary.events:,} events, {summary.acknowledged:,} commands acknowledged",
    )
    verdict = _verdict(summary, differing)
    _say(console, f"verdict {verdict.value}")
