"""The ``chaos`` command: run cells against a cluster, check a history, serve proxies."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import click

from chaos.calibrate.cli import calibrate_command
from chaos.cell import CellOptions, CellResult, run_cell, run_command
from chaos.checkers.pipeline import check_history
from chaos.cluster.cluster import ClusterFailed, ClusterOptions
from chaos.cluster.process import ProcessFailed
from chaos.cluster.proxies import ProxyServerError
from chaos.cluster.proxyserver import TOXIPROXY_PROGRAM, find_toxiproxy
from chaos.cluster.targets import TARGETS, target_of
from chaos.cluster.targets.base import Api, Target, TargetUnavailable
from chaos.history.format import HistoryError
from chaos.history.reader import read_history
from chaos.matrix.cli import matrix
from chaos.nemesis.cli import plan
from chaos.nemesis.packages import PACKAGES
from chaos.nemesis.plan import Plan, PlanError, read_plan
from chaos.report.cli import report
from chaos.report.console import Console
from chaos.shrink.cli import shrink
from chaos.sim.cli import sim
from chaos.sim.exhaustive.cli import explore
from chaos.sim.mutants import mutants
from chaos.toxid.cli import toxid
from chaos.verdict import Verdict, worst
from chaos.workloads.base import Workload, WorkloadFailed, WorkloadOptions
from chaos.workloads.registry import WORKLOADS, find_workload

EXIT_CODES: Final = {
    Verdict.OK: 0,
    Verdict.VIOLATED: 1,
    Verdict.UNKNOWN: 2,
    Verdict.INVALID: 2,
}
CONTROL_SECONDS_MAX: Final = 5.0
NODES_MAX: Final = 9

_PACKAGE_NAMES: Final = ", ".join(PACKAGES)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Break clusters on purpose, and prove whether any promise was broken.

    Exit status: 0 every promise was kept, 1 one was broken, 2 nothing was proved (too little load,
    a fault without effect, an undecided check, or the run could not be made).
    """


main.add_command(plan)
main.add_command(shrink)
main.add_command(sim)
main.add_command(explore)
main.add_command(mutants)
main.add_command(report)
main.add_command(calibrate_command)
main.add_command(matrix)
main.add_command(toxid)


def _parse_faults(text: str) -> list[tuple[str, ...]]:
    cells = []
    for cell in filter(None, text.split(",")):
        names = tuple(name.strip() for name in cell.split("+"))
        for name in names:
            if name not in PACKAGES:
                raise click.BadParameter(
                    f"{name!r} is not a package of faults; there are {_PACKAGE_NAMES}. A comma "
                    "separates cells, a plus lets packages take turns in one cell.",
                    param_hint="--faults",
                )
        cells.append(names)
    return cells


def _workload(name: str) -> type[Workload[Any]]:
    try:
        return find_workload(name)
    except WorkloadFailed as error:
        raise click.BadParameter(str(error), param_hint="--workload") from error


def _target(name: str, engine: str, workload: type[Workload[Any]], machine: str) -> Target:
    """The target: a machine where the workload speaks to one, else the server of that name."""
    if workload.api is Api.MACHINE:
        served = machine or workload.machine
        if not served:
            raise click.BadParameter(
                f"the workload {workload.name} needs one: --machine module:Machine",
                param_hint="--machine",
            )
        return target_of(name, engine, served)
    if machine:
        raise click.BadParameter(
            f"the workload {workload.name} works on etcd's API, not on a machine; give a "
            "--workload for it (docs/CHAOS.md has an example)",
            param_hint="--machine",
        )
    return target_of(name, engine)


def _load(defaults: WorkloadOptions, clients: int | None, rate: float | None) -> WorkloadOptions:
    return attrs.evolve(
        defaults,
        clients=defaults.clients if clients is None else clients,
        rate=defaults.rate if rate is None else rate,
    )


def _proxy_program(choice: str) -> str | None:
    if choice == "toxid":
        return None
    found = find_toxiproxy()
    if found is None and choice == "toxiproxy":
        raise click.BadParameter(
            f"{TOXIPROXY_PROGRAM} is not on PATH; take --proxy toxid", param_hint="--proxy"
        )
    return found


@main.command()
@click.option(
    "--target",
    type=click.Choice(sorted(TARGETS)),
    default="kvstore",
    show_default=True,
    help="What to test; etcd is the control target.",
)
@click.option(
    "--engine",
    type=click.Choice(["native", "pysyncobj"]),
    default="native",
    show_default=True,
    help="What replicates kvstore, or the machine; etcd has its own.",
)
@click.option(
    "--workload",
    default="register",
    show_default=True,
    help=f"What the clients do: {', '.join(WORKLOADS)}; or your own, module:Workload.",
)
@click.option("--machine", default="", help="Serve and test this machine: module:Machine.")
@click.option("--model", default="", help="What it should do, step by step: module:Model.")
@click.option(
    "--faults",
    default="kill,pause,partition",
    show_default=True,
    help=f"Cells, separated by commas: {_PACKAGE_NAMES}; a plus lets packages take turns in one "
    f"cell. A control cell without faults always runs first.",
)
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="A plan of faults (see chaos plan) to carry out whole, instead of --faults.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=2, max=3600),
    default=10.0,
    show_default=True,
    help="Length of the load in each cell.",
)
@click.option("--seed", type=int, default=None, help="Of every choice [default: drawn].")
@click.option("--nodes", type=click.IntRange(3, NODES_MAX), default=3, show_default=True)
@click.option(
    "--clients", type=click.IntRange(1, 100), default=None, help="[default: the workload's]"
)
@click.option(
    "--rate",
    type=click.FloatRange(min=10),
    default=None,
    help="Operations a second over all clients, at most [default: the workload's].",
)
@click.option(
    "--proxy",
    type=click.Choice(["auto", "toxid", "toxiproxy"]),
    default="toxid",
    show_default=True,
    help="The proxy server of all links; auto takes a toxiproxy-server on PATH.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Directory for histories and logs [default: runs/DATE-TIME].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def run(
    target: str,
    engine: str,
    workload: str,
    machine: str,
    model: str,
    faults: str,
    plan_path: Path | None,
    seconds: float,
    seed: int | None,
    nodes: int,
    clients: int | None,
    rate: float | None,
    proxy: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run a workload on real processes while they are broken, and check its history.

    \b
    Examples:
      chaos run --target etcd --faults kill --seconds 10
      chaos run --faults kill,kill-all,partition+pause --seed 7
      chaos plan --seed 7 --faults storm > plan.toml && chaos run --plan plan.toml
      chaos run --machine shop:Shop --model shop:Model --workload shop:Buyers
    """
    seed = secrets.randbelow(2**31) if seed is None else seed
    kind = _workload(workload)
    chosen = _target(target, engine, kind, machine)
    load = _load(kind.defaults, clients, rate)
    given_plan = _read_plan(plan_path)
    cells: list[tuple[str, ...]] = [(), *([] if given_plan else _parse_faults(faults))]
    cluster = ClusterOptions(nodes=nodes, seed=seed, proxy_program=_proxy_program(proxy))
    out = out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}"
    cell = CellOptions(chosen, (), seconds, seed, cluster, workload, load, model)
    options = [
        attrs.evolve(
            cell,
            faults=kinds,
            seconds=seconds if kinds else min(seconds, CONTROL_SECONDS_MAX),
            replay=run_command(cell, f"--faults '{'+'.join(kinds)}'"),
        )
        for kinds in cells
    ]
    whole = run_command(cell, f"--plan {plan_path}" if given_plan else f"--faults '{faults}'")
    if given_plan is not None:
        options.append(attrs.evolve(cell, given_plan=given_plan, replay=whole))
    console = Console(quiet=as_json)
    console.heading(chosen.name, chosen.version(), seed, out)
    try:
        chosen.check()
        for option in options:
            option.plan()
        results = asyncio.run(_run_cells(options, out, console))
    except (
        *(TargetUnavailable, ClusterFailed, ProcessFailed, ProxyServerError),
        *(WorkloadFailed, PlanError, OSError),
    ) as error:
        _fail(str(error), as_json)
    except KeyboardInterrupt:
        _fail("interrupted", as_json)
    verdict = worst(result.verdict for result in results)
    if as_json:
        document = {
            "target": chosen.name,
            "engine": chosen.engine,
            "workload": workload,
            "seed": seed,
            "verdict": verdict.value,
            "replay": whole,
            "cells": [result.as_json() for result in results],
        }
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        console.summary(results, chosen.engine, verdict, whole)
    sys.exit(EXIT_CODES[verdict])


def _read_plan(path: Path | None) -> Plan | None:
    if path is None:
        return None
    try:
        plan = read_plan(path)
    except PlanError as error:
        raise click.BadParameter(str(error), param_hint="--plan") from error
    if not plan.faults:
        raise click.BadParameter(f"{path} has no [[fault]]", param_hint="--plan")
    return plan


async def _run_cells(options: list[CellOptions], out: Path, console: Console) -> list[CellResult]:
    """Run the cells in order; after a control that is not ok the others would prove nothing."""
    results = []
    for option in options:
        with console.cell(option.name) as progress:
            result = await run_cell(option, out / option.name, progress)
        console.finished(result)
        results.append(result)
        if option.is_control and result.verdict is not Verdict.OK:
            console.say("the control cell is not ok: the other cells would prove nothing")
            break
    return results


def _fail(message: str, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"verdict": Verdict.INVALID.value, "error": message}))
    else:
        click.echo(f"chaos: {message}", err=True)
    sys.exit(EXIT_CODES[Verdict.INVALID])


@main.command()
@click.argument("history", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def check(history: Path, as_json: bool) -> None:
    """Check a recorded HISTORY again."""
    try:
        result = check_history(read_history(history))
    except (HistoryError, WorkloadFailed) as error:
        _fail(str(error), as_json)
    if as_json:
        click.echo(json.dumps(result.as_json(), ensure_ascii=False, indent=2))
    else:
        Console(quiet=False).report(result)
    sys.exit(EXIT_CODES[result.verdict])


if __name__ == "__main__":
    main()
