"""``chaos shrink``: the least of a failing seed or run, and playing it again."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

import click
import rich.console
from click.core import ParameterSource
from rich.markup import escape

from chaos.cell import run_command
from chaos.cluster.targets.base import TargetUnavailable
from chaos.history.format import HistoryError
from chaos.nemesis.plan import PlanError
from chaos.shrink.minimize import TIME_LIMIT_S, DoesNotFail, failure_of_script, shrink_seed
from chaos.shrink.processes import (
    REPEATS,
    RUN_TIME_LIMIT_S,
    ShrunkRun,
    failed_run,
    shrink_run,
)
from chaos.shrink.script import Script
from chaos.sim.runner import PROFILES, SWARM
from chaos.sim.world import SECONDS
from chaos.workloads.base import WorkloadFailed

KEPT, VIOLATED, INVALID = 0, 1, 2
_OF_SEEDS: Final = ("seconds", "profile")
_OF_RUNS: Final = ("repeats",)


@click.command()
@click.argument("what", metavar="[SEED|RUN]", required=False)
@click.option(
    "--seconds",
    type=click.FloatRange(min=10, max=3600),
    default=SECONDS,
    show_default=True,
    help="Of a seed: simulated length of its run, as chaos sim was told.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default=SWARM,
    show_default=True,
    help="Of a seed: how it draws its faults, as chaos sim was told.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 100),
    default=REPEATS,
    show_default=True,
    help="Of a run: runs of each try; it fails if one of them does.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=None,
    help="Real seconds after which what is left is the answer "
    f"[default: {TIME_LIMIT_S:g} for a seed, {RUN_TIME_LIMIT_S:g} for a run].",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="Where to write the list of a seed [default: shrunk-SEED.json], or the directory for the "
    "plan and the tries of a run [default: runs/shrink-DATE-TIME].",
)
@click.option(
    "--replay",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Play the list of a seed again, and print everything that happens.",
)
def shrink(
    what: str | None,
    seconds: float,
    profile: str,
    repeats: int,
    time_limit: float | None,
    out: Path | None,
    replay: Path | None,
) -> None:
    """Find the few faults and operations without which a run does not fail.

    SEED is one on which `chaos sim` fails; a list of what is left is written. RUN is the directory
    of a cell of `chaos run` or `chaos matrix` that broke a promise: it is run again and again with
    fewer faults, and a plan is written.

    \b
    Examples:
      chaos shrink 7841
      chaos shrink runs/20260131-120000/storm --repeats 3 --time-limit 300

    Exit status: 1 if it fails (a list or a plan was written, or a list was played and fails), 0 if
    it does not, 2 if there is nothing to run.
    """
    if (what is None) == (replay is None):
        raise click.UsageError("name a SEED or a RUN, or a list with --replay")
    if replay is not None:
        _play(replay)
    assert what is not None
    is_seed = what.isdecimal()
    context = click.get_current_context()
    for name in _OF_RUNS if is_seed else _OF_SEEDS:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} does not go with a {'SEED' if is_seed else 'RUN'}")
    try:
        if is_seed:
            _shrink_seed(int(what), seconds, profile, time_limit or TIME_LIMIT_S, out)
        _shrink_run(Path(what), repeats, time_limit or RUN_TIME_LIMIT_S, out)
    except DoesNotFail as error:
        click.echo(f"chaos: {error}")
        sys.exit(KEPT)


def _shrink_seed(
    seed: int, seconds: float, profile: str, time_limit: float, out: Path | None
) -> NoReturn:
    console = rich.console.Console(highlight=False)
    with console.status(f"seed {seed}") as status:

        def progress(script: Script) -> None:
            status.update(
                f"seed {seed}: {len(script.faults)} faults and "
                f"{len(script.operations)} operations left"
            )

        found = shrink_seed(seed, seconds, time_limit, progress, profile)
    path = out or Path(f"shrunk-{seed}.json")
    _write(path, json.dumps(found.script.as_json(), indent=1) + "\n")
    console.print(f"[bold red]violated[/]: {escape(found.error)}", soft_wrap=True)
    console.print(
        f"{len(found.script.faults)} of {found.faults_before} faults and "
        f"{len(found.script.operations)} of {found.operations_before} operations are enough "
        f"({found.runs} runs in {found.seconds:.1f} s)"
    )
    for act in found.script.acts:
        console.print(f"  {act.at_us / 1e6:10.6f} s  {act.actor:<8} {act.name.lstrip('_')}")
    console.print(f"play it again: chaos shrink --replay {escape(str(path))}", soft_wrap=True)
    sys.exit(VIOLATED)


def _shrink_run(path: Path, repeats: int, time_limit: float, out: Path | None) -> NoReturn:
    console = rich.console.Console(highlight=False)
    directory = out or Path("runs") / f"shrink-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        run = failed_run(path)
        run.options.target.check()
        with console.status("starting") as status:
            said = ""

            def progress(text: str) -> None:
                nonlocal said
                status.update(escape(text))
                which = text.partition(":")[0]
                if not console.is_terminal and which != said:
                    said = which
                    console.print(escape(which), soft_wrap=True)

            found = shrink_run(
                run, directory, time_limit_s=time_limit, repeats=repeats, progress=progress
            )
    except (HistoryError, TargetUnavailable, WorkloadFailed, PlanError, OSError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        _refuse("interrupted")
    _tell(console, len(run.plan.faults), found, directory / "plan.toml")
    sys.exit(VIOLATED)


def _tell(console: rich.console.Console, before: int, found: ShrunkRun, path: Path) -> None:
    _write(path, found.plan.as_toml())
    kinds = ", ".join(sorted(kind.value for kind in found.kinds))
    console.print(f"[bold red]violated[/]: {escape(kinds)}", soft_wrap=True)
    console.print(
        f"{len(found.plan.faults)} of {before} faults are enough "
        f"({found.tries} runs in {found.seconds:.1f} s"
        f"{'' if found.is_whole else '; time was up, fewer may do'})"
    )
    for fault in found.plan.faults:
        console.print(f"  {fault.at_s:6.2f} s, for {fault.for_s:.2f} s: {escape(fault.label)}")
    faults = f"--plan {path}" if found.plan.faults else "--faults ''"
    console.print(f"its history: {escape(str(found.history))}", soft_wrap=True)
    again = run_command(found.options, faults)
    console.print(f"run it again: {escape(again)}", soft_wrap=True)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        _refuse(str(error))


def _refuse(text: str) -> NoReturn:
    click.echo(f"chaos: {text}", err=True)
    sys.exit(INVALID)


def _play(path: Path) -> NoReturn:
    try:
        script = Script.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        _refuse(f"{path} is no list of acts: {error}")
    failure = failure_of_script(script, click.echo)
    click.echo(f"violated: {failure}" if failure else "every promise was kept")
    sys.exit(VIOLATED if failure else KEPT)
