"""kvstore beside a real etcd: ``python -m benchmarks.sidebyside``.

Three nodes each, the same load, alternating rounds in one run, and the ratios. What the figures
mean, and what they do not, is in README.md here.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TextIO

import attrs
import click
from rich.console import Console

from benchmarks.counts import counts
from benchmarks.interrupts import end_on_signals
from benchmarks.load import KEYS, OPERATIONS, VALUE_BYTES
from benchmarks.machine import describe
from benchmarks.rounds import BenchmarkFailed, Cell, Client, Measurement, Settings, run_rounds
from benchmarks.summary import ETCD, as_json, summarize
from benchmarks.tables import one_line, side_by_side
from tests.clusters import Program

CLIENTS: Final = ("python", "go")
CALLERS: Final = "1,64,256"


@attrs.frozen(slots=True)
class Length:
    """How long a run is: rounds, and seconds of each measurement and of its warm-up."""

    rounds: int
    seconds: float
    warmup_s: float


FULL: Final = Length(rounds=3, seconds=4.0, warmup_s=1.0)
QUICK: Final = Length(rounds=1, seconds=1.5, warmup_s=0.5)


def programs_of(engines: Sequence[str], console: Console) -> list[Program]:
    """Return kvstore on each engine, and etcd where it is installed; say where it is not."""
    found = [Program.kvstore(engine) for engine in engines]
    if len(found) > 1:
        found = [
            attrs.evolve(program, name=f"{program.name}-{engine}")
            for program, engine in zip(found, engines, strict=True)
        ]
    if shutil.which("etcd"):
        found.append(Program.etcd())
    else:
        console.print(
            "etcd is not on PATH (`make setup` tries to install it): skipped, so no ratios"
        )
    return found


def clients_of(names: Iterable[str], console: Console) -> list[Client]:
    """Return the load generators; say which is not there."""
    found = []
    for name in names:
        client = Client.python() if name == "python" else Client.go()
        if client is None:
            console.print("Go's client was not built (`make setup` builds it where Go is): skipped")
        else:
            found.append(client)
    return found


def measure_all(
    programs: Sequence[Program],
    cells: Sequence[Cell],
    rounds: int,
    settings: Settings,
    console: Console,
) -> list[Measurement]:
    """Run everything, with a line for each measurement as it is made."""
    total, start = rounds * len(cells) * len(programs), time.monotonic()
    width = max(len(program.name) for program in programs)
    done: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="raftyard-bench-") as directory:
        for one in run_rounds(programs, cells, rounds, settings, Path(directory)):
            done.append(one)
            left_s = (time.monotonic() - start) / len(done) * (total - len(done))
            console.print(
                f"[{len(done):3}/{total}, {left_s:4.0f} s left] round {one.round} "
                f"{one.client:6} {one.operation:12} {one.callers:5} {one.system:{width}} "
                f"{one_line(one.load)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    return done


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--engine", "engines", multiple=True, default=["native"], help="Of kvstore.")
@click.option(
    "--client", "clients", type=click.Choice(CLIENTS), multiple=True, default=CLIENTS,
    help="Load generator.",
)  # fmt: skip
@click.option(
    "--operation", "operations", type=click.Choice(OPERATIONS), multiple=True, default=OPERATIONS,
    help="What is asked; get is linearizable.",
)  # fmt: skip
@click.option("--callers", callback=counts, default=CALLERS, help="Requests in flight.")
@click.option("--rounds", type=click.IntRange(min=1), help=f"Default {FULL.rounds}.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), help=f"Of a measurement; default {FULL.seconds:g}."
)
@click.option(
    "--warmup", type=click.FloatRange(min=0), help=f"Seconds before it; default {FULL.warmup_s:g}."
)
@click.option("--keys", type=click.IntRange(min=1), default=KEYS, help="How many there are.")
@click.option(
    "--value", type=click.IntRange(0, 1_000_000), default=VALUE_BYTES, help="Bytes of one."
)
@click.option(
    "--quick", is_flag=True,
    help=f"{QUICK.rounds} round of {QUICK.seconds:g} s each: a first look, not a figure to quote.",
)  # fmt: skip
@click.option(
    "--json", "json_file", type=click.File("w", lazy=False), help="Write everything here as JSON."
)
@click.option("--markdown", is_flag=True, help="Print Markdown, as in the README.")
def main(
    engines: tuple[str, ...],
    clients: tuple[str, ...],
    operations: tuple[str, ...],
    callers: tuple[int, ...],
    rounds: int | None,
    seconds: float | None,
    warmup: float | None,
    keys: int,
    value: int,
    quick: bool,
    json_file: TextIO | None,
    markdown: bool,
) -> None:
    """Measure a three-node kvstore beside a three-node etcd, in alternating rounds of one run."""
    end_on_signals()
    progress = Console(stderr=True)
    length = QUICK if quick else FULL
    rounds = rounds or length.rounds
    settings = Settings(
        warmup_s=length.warmup_s if warmup is None else warmup,
        seconds=seconds or length.seconds,
        keys=keys,
        value_bytes=value,
    )
    programs = programs_of(list(dict.fromkeys(engines)), progress)
    cells = [
        Cell(client, operation, count)
        for client in clients_of(clients, progress)
        for operation in operations
        for count in callers
    ]
    if not cells:
        raise click.ClickException("nothing to measure: no load generator is there")
    machine = describe(Path(tempfile.gettempdir()))
    for name, text in machine.items():
        progress.print(f"{name:>12}: {text}", markup=False, highlight=False, soft_wrap=True)
    try:
        measurements = measure_all(programs, cells, rounds, settings, progress)
    except BenchmarkFailed as error:
        raise click.ClickException(str(error)) from None
    rows = summarize(measurements)
    sheet = side_by_side(rows)
    about = (
        f"kvstore ({', '.join(engines)}) / {ETCD}; {settings.members} nodes each, "
        f"{rounds} round(s) of {settings.seconds:g} s after "
        f"{settings.warmup_s:g} s of warm-up; {keys} keys, {value} bytes a value; "
        "medians over the rounds; CPU of all servers for each operation"
    )
    if markdown:
        click.echo("\n".join(f"- {name}: {text}" for name, text in machine.items()) + "\n")
    sheet.show(about, markdown=markdown)
    if json_file is not None:
        options = {"engines": engines, "rounds": rounds, **attrs.asdict(settings)}
        json.dump(as_json(machine, options, measurements, rows), json_file, indent=1)


if __name__ == "__main__":
    main()
