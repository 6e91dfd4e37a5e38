"""``chaos shrink``: the least of a failing seed, and playing it again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import rich.console
from rich.markup import escape

from chaos.shrink.minimize import TIME_LIMIT_S, DoesNotFail, failure_of_script, shrink_seed
from chaos.shrink.script import Script
from chaos.sim.runner import PROFILES, SWARM
from chaos.sim.world import SECONDS

KEPT, VIOLATED, INVALID = 0, 1, 2


@click.command()
@click.argument("seed", type=click.IntRange(min=0), required=False)
@click.option(
    "--seconds",
    type=click.FloatRange(min=10, max=3600),
    default=SECONDS,
    show_default=True,
    help="Simulated length of the run, as chaos sim was told.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default=SWARM,
    show_default=True,
    help="How the seed draws its faults, as chaos sim was told.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=TIME_LIMIT_S,
    show_default=True,
    help="Real seconds after which what is left is the answer.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Where to write the list [default: shrunk-SEED.json].",
)
@click.option(
    "--replay",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Play such a list again, and print everything that happens.",
)
def shrink(
    seed: int | None,
    seconds: float,
    profile: str,
    time_limit: float,
    out: Path | None,
    replay: Path | None,
) -> None:
    """Find the few faults and operations without which SEED of `chaos sim` does not fail.

    Exit status: 1 if it fails (a list was written, or was played and fails), 0 if it does not,
    2 if there is nothing to run.
    """
    if (seed is None) == (replay is None):
        raise click.UsageError("name a SEED, or a list with --replay")
    if replay is not None:
        _play(replay)
    assert seed is not None
    console = rich.console.Console(highlight=False)
    try:
        with console.status(f"seed {seed}") as status:

            def progress(script: Script) -> None:
                status.update(
                    f"seed {seed}: {len(script.faults)} faults and "
                    f"{len(script.operations)} operations left"
                )

            found = shrink_seed(seed, seconds, time_limit, progress, profile)
    except DoesNotFail as error:
        click.echo(f"chaos: {error}")
        sys.exit(KEPT)
    path = out or Path(f"shrunk-{seed}.json")
    try:
        path.write_text(json.dumps(found.script.as_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        click.echo(f"chaos: {error}", err=True)
        sys.exit(INVALID)
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


def _play(path: Path) -> None:
    try:
        script = Script.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        click.echo(f"chaos: {path} is no list of acts: {error}", err=True)
        sys.exit(INVALID)
    failure = failure_of_script(script, click.echo)
    click.echo(f"violated: {failure}" if failure else "every promise was kept")
    sys.exit(VIOLATED if failure else KEPT)
