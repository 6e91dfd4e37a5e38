"""``chaos calibrate``: see that the harness finds what is known to be wrong."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

import click
import rich.console
from rich.markup import escape

from chaos.calibrate.etcd import SCENARIOS as ETCD
from chaos.calibrate.pysyncobj import SCENARIOS as PYSYNCOBJ
from chaos.calibrate.scene import Calibration, Scenario, calibrate, pick
from chaos.cluster.cluster import ClusterFailed
from chaos.cluster.process import ProcessFailed
from chaos.cluster.proxies import ProxyServerError
from chaos.cluster.targets.base import TargetUnavailable

SCENARIOS: Final = {"etcd": ETCD, "pysyncobj": PYSYNCOBJ}
SCENARIO_LIMIT_S: Final = 300.0
FOUND, MISSED, INVALID = 0, 1, 2


@click.command("calibrate")
@click.argument("systems", nargs=-1, type=click.Choice(sorted(SCENARIOS)))
@click.option("--only", multiple=True, metavar="NAME", help="This scenario; may be repeated.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=None,
    help="Begin no scenario after this many seconds.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Directory for histories and logs [default: runs/calibrate-DATE-TIME].",
)
@click.option("--list", "is_list", is_flag=True, help="Name the scenarios, and run none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def calibrate_command(
    systems: tuple[str, ...],
    only: tuple[str, ...],
    time_limit: float | None,
    out: Path | None,
    is_list: bool,
    as_json: bool,
) -> None:
    """Look for known defects in unmodified systems: etcd 3.4.23, and PySyncObj as published.

    Exit status: 0 every defect that was looked for was found, 1 one was not, 2 nothing was proved.
    Each scenario has at most 300 seconds.

    \b
    Examples:
      chaos calibrate etcd
      chaos calibrate pysyncobj --only wedged
    """
    chosen = [one for system in systems or sorted(SCENARIOS) for one in SCENARIOS[system]]
    try:
        chosen = pick(chosen, only)
    except KeyError as error:
        raise click.BadParameter(str(error.args[0]), param_hint="--only") from error
    if is_list:
        for scenario in chosen:
            click.echo(f"{scenario.system:<10} {scenario.name:<24} {scenario.defect}")
        return
    out = out or Path("runs") / f"calibrate-{datetime.now():%Y%m%d-%H%M%S}"
    console = rich.console.Console(quiet=as_json, highlight=False)
    try:
        for scenario in chosen:
            scenario.target().check()
        results = _run(chosen, out, console, time_limit)
    except (
        *(TargetUnavailable, ClusterFailed, ProcessFailed),
        *(ProxyServerError, OSError),
    ) as error:
        _give_up(str(error), as_json)
    except KeyboardInterrupt:
        _give_up("interrupted", as_json)
    missed = [result for result in results if not result.found]
    code = MISSED if missed else FOUND if results else INVALID
    if as_json:
        document = {
            "verdict": ("found", "missed", "invalid")[code],
            "not_begun": [one.name for one in chosen[len(results) :]],
            "calibrations": [result.as_json() for result in results],
        }
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        found = len(results) - len(missed)
        click.echo(f"{found} of {len(results)} found; {len(chosen) - len(results)} not begun")
    sys.exit(code)


def _give_up(text: str, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"verdict": "invalid", "error": text}))
    else:
        click.echo(f"chaos: {text}", err=True)
    sys.exit(INVALID)


def _run(
    scenarios: list[Scenario], out: Path, console: rich.console.Console, time_limit: float | None
) -> list[Calibration]:
    began = time.monotonic()
    results: list[Calibration] = []
    for scenario in scenarios:
        if time_limit is not None and time.monotonic() - began > time_limit:
            break
        with console.status(escape(scenario.name)) as status:

            def say(text: str, name: str = scenario.name) -> None:
                status.update(escape(f"{name}: {text}"))

            directory = out / scenario.system / scenario.name
            result = asyncio.run(calibrate(scenario, directory, say, SCENARIO_LIMIT_S))
        results.append(result)
        colour, word = ("green", "found") if result.found else ("bold red", "not found")
        console.print(
            f"[{colour}]{word:<10}[/]{scenario.system} {escape(scenario.name):<24}"
            f"{result.seconds:6.1f} s, {result.rounds} rounds",
            soft_wrap=True,
        )
        console.print(f"          {escape(scenario.defect)}", soft_wrap=True)
        console.print(f"          {escape(result.evidence)}", soft_wrap=True)
        console.print(f"          {escape(str(result.history))}", soft_wrap=True)
    return results
