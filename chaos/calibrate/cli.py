"""``chaos calibrate``: see that the harness finds what is known to be wrong."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

import attrs
import click
import rich.console
from rich.markup import escape

from chaos.calibrate.etcd import SCENARIOS as ETCD
from chaos.calibrate.pysyncobj import SCENARIOS as PYSYNCOBJ
from chaos.calibrate.scene import Calibration, Scenario, calibrate, pick, play_control
from chaos.cluster.cluster import ClusterFailed
from chaos.cluster.process import ProcessFailed
from chaos.cluster.proxies import ProxyServerError
from chaos.cluster.targets.base import TargetUnavailable
from chaos.verdict import Verdict

SCENARIOS: Final = {"etcd": ETCD, "pysyncobj": PYSYNCOBJ}
SCENARIO_LIMIT_S: Final = 300.0
FOUND, MISSED, INVALID = 0, 1, 2
FALSE_ALARM: Final = "false-alarm"
"""Something was found on a control: as bad as a defect that was missed."""


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
@click.option(
    "--control",
    "is_controlled",
    is_flag=True,
    help="Play each scenario of etcd on kvstore, native engine, too: nothing may be found there.",
)
@click.option("--list", "is_list", is_flag=True, help="Name the scenarios, and run none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def calibrate_command(
    systems: tuple[str, ...],
    only: tuple[str, ...],
    time_limit: float | None,
    out: Path | None,
    is_controlled: bool,
    is_list: bool,
    as_json: bool,
) -> None:
    """Look for known defects in unmodified systems: etcd 3.4.23, and PySyncObj as published.

    Exit status: 0 every defect that was looked for was found (and with --control nothing on the
    controls), 1 one was not (or something on a control), 2 nothing was proved. Each scenario has at
    most 300 seconds, and its control as many.

    \b
    Examples:
      chaos calibrate etcd
      chaos calibrate pysyncobj --only wedged
      chaos calibrate etcd --control
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
        results = _run(chosen, out, console, time_limit, is_controlled=is_controlled)
    except (
        *(TargetUnavailable, ClusterFailed, ProcessFailed),
        *(ProxyServerError, OSError),
    ) as error:
        _give_up(str(error), as_json)
    except KeyboardInterrupt:
        _give_up("interrupted", as_json)
    missed = [result for result in results if not result.found]
    code, verdict = _judged(results)
    if as_json:
        document = {
            "verdict": verdict,
            "not_begun": [one.name for one in chosen[len(results) :]],
            "calibrations": [result.as_json() for result in results],
        }
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        found = len(results) - len(missed)
        click.echo(f"{found} of {len(results)} found; {len(chosen) - len(results)} not begun")
        controls = [result.control for result in results if result.control is not None]
        if controls:
            kept = sum(control.verdict is Verdict.OK for control in controls)
            click.echo(f"nothing found on {kept} of {len(controls)} controls")
    sys.exit(code)


def _judged(results: list[Calibration]) -> tuple[int, str]:
    """The exit status, and the word for it."""
    controls = [result.control.verdict for result in results if result.control is not None]
    if not all(result.found for result in results):
        return MISSED, "missed"
    if Verdict.VIOLATED in controls:
        return MISSED, FALSE_ALARM
    if not results or any(verdict is not Verdict.OK for verdict in controls):
        return INVALID, "invalid"
    return FOUND, "found"


def _give_up(text: str, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"verdict": "invalid", "error": text}))
    else:
        click.echo(f"chaos: {text}", err=True)
    sys.exit(INVALID)


def _run(
    scenarios: list[Scenario],
    out: Path,
    console: rich.console.Console,
    time_limit: float | None,
    *,
    is_controlled: bool,
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
            if is_controlled and scenario.control is not None:
                say("the same on the control")
                control = asyncio.run(play_control(scenario, directory, say, SCENARIO_LIMIT_S))
                result = attrs.evolve(result, control=control)
        results.append(result)
        _show(console, result)
    return results


def _show(console: rich.console.Console, result: Calibration) -> None:
    scenario, control = result.scenario, result.control
    colour, word = ("green", "found") if result.found else ("bold red", "not found")
    console.print(
        f"[{colour}]{word:<10}[/]{scenario.system} {escape(scenario.name):<24}"
        f"{result.seconds:6.1f} s, {result.rounds} rounds",
        soft_wrap=True,
    )
    for line in (scenario.defect, result.evidence, str(result.history)):
        console.print(f"          {escape(line)}", soft_wrap=True)
    if control is None:
        return
    word = "found" if control.verdict is Verdict.VIOLATED else "not found"
    colour = "green" if control.verdict is Verdict.OK else "bold red"
    console.print(
        f"[{colour}]{word:<10}[/]control: {control.target}, {control.verdict.value}, "
        f"{control.seconds:.1f} s",
        soft_wrap=True,
    )
    if control.evidence:
        console.print(f"          {escape(control.evidence)}", soft_wrap=True)
    console.print(f"          {escape(str(control.history))}", soft_wrap=True)
