"""``chaos matrix``: run the matrix, show how it goes, write its pages."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Final

import click
import rich.console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from chaos.matrix.cells import (
    ENGINES,
    MatrixCell,
    NoSuchCell,
    choose,
    controls_first,
    full,
    smoke,
)
from chaos.matrix.page import JSON_NAME, write_pages
from chaos.matrix.results import CellStanding, MatrixResult, Standing
from chaos.matrix.runner import MatrixOptions, run_matrix
from chaos.nemesis.packages import PACKAGES
from chaos.verdict import Verdict
from chaos.workloads.registry import WORKLOADS

EXIT_CODES: Final = {Verdict.OK: 0, Verdict.VIOLATED: 1, Verdict.INVALID: 2}
JOBS_MAX: Final = 16
REFRESHES_PER_S: Final = 4
_COLOURS: Final = {
    Standing.OK: "green",
    Standing.EXPECTED: "magenta",
    Standing.VIOLATED: "bold red",
    Standing.UNKNOWN: "yellow",
    Standing.INVALID: "yellow",
    Standing.ABSENT: "dim",
}


class _Screen:
    """What a person sees while it goes on: a line for each cell that is over, and what runs."""

    def __init__(self, quiet: bool, cells: int) -> None:
        self._console = rich.console.Console(quiet=quiet, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=REFRESHES_PER_S, transient=True)
        self._running: dict[MatrixCell, str] = {}
        self._cells = cells
        self._over = 0
        self._began = time.monotonic()

    def __enter__(self) -> _Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def watch(self, cell: MatrixCell, text: str) -> None:
        """See ``chaos.matrix.runner.Watcher``."""
        if text:
            self._running[cell] = text
        else:
            self._running.pop(cell, None)
        self._refresh()

    def finished(self, standing: CellStanding) -> None:
        """A cell is over."""
        self._over += 1
        again = " (second attempt)" if standing.attempts > 1 else ""
        counts = ", ".join(f"{number} {name}" for name, number in standing.operations.items())
        self._console.print(
            f"{self._over:>4}/{self._cells} [{_COLOURS[standing.standing]}]"
            f"{standing.standing.value:<9}[/]{escape(standing.cell.name):<44}"
            f"{standing.seconds:5.1f} s  {counts}{again}",
            soft_wrap=True,
        )
        if standing.standing not in (Standing.OK, Standing.ABSENT):
            self._console.print(f"          {escape(standing.reason)}", soft_wrap=True)
        if standing.standing is Standing.VIOLATED:
            self._console.print(f"          again: {escape(standing.replay)}", soft_wrap=True)

    def _refresh(self) -> None:
        table = Table(box=None, pad_edge=False, show_header=False)
        took = time.monotonic() - self._began
        table.add_row(f"{self._over} of {self._cells} cells", f"{took:.0f} s")
        for cell, text in self._running.items():
            table.add_row(escape(cell.name), escape(text))
        self._live.update(table)

    def summary(self, result: MatrixResult, path: Path) -> None:
        """The end of it."""
        counts = ", ".join(f"{number} {word.value}" for word, number in result.counts.items())
        self._console.print(f"{counts}; {result.run} cells in {result.seconds:.0f} s")
        if result.missing:
            self._console.print(result.missing)
        if result.run < result.needed:
            self._console.print(f"at least {result.needed} cells are needed")
        self._console.print(f"page {escape(str(path))}", soft_wrap=True)
        self._console.print(f"verdict {result.verdict.value}")


@click.command()
@click.option(
    "--engines", default="native", show_default=True, help=f"{', '.join(ENGINES)}, or all."
)
@click.option(
    "--workloads", default="all", show_default=True, help=f"{', '.join(WORKLOADS)}, or all."
)
@click.option(
    "--packages", default="all", show_default=True, help=f"{', '.join(PACKAGES)}, or all."
)
@click.option("--controls", is_flag=True, help="Only the cells without faults.")
@click.option(
    "--smoke",
    "is_smoke",
    is_flag=True,
    help="The short list for every change, on native and pysyncobj, in place of those options.",
)
@click.option(
    "--rotate",
    default="",
    metavar="COMMIT",
    help="With --smoke: this commit id decides which cells follow the fixed ones.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=2, max=3600),
    default=8.0,
    show_default=True,
    help="Length of the load in each cell.",
)
@click.option(
    "--seed",
    type=int,
    default=None,
    help="Of every choice [default: drawn, or with --resume that of before].",
)
@click.option(
    "--jobs", type=click.IntRange(1, JOBS_MAX), default=2, show_default=True, help="Cells at once."
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=None,
    help="Begin no cell that would end after this many seconds.",
)
@click.option(
    "--at-least",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Fewer cells than this in the time prove nothing.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Directory for pages, histories and logs [default: runs/matrix-DATE-TIME].",
)
@click.option(
    "--resume", is_flag=True, help="Go on with the matrix in --out: only what it has not proved."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def matrix(
    engines: str,
    workloads: str,
    packages: str,
    controls: bool,
    is_smoke: bool,
    rotate: str,
    seconds: float,
    seed: int | None,
    jobs: int,
    time_limit: float | None,
    at_least: int,
    out: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Run workloads under packages of faults on engines, and write one page of them all.

    A control cell without faults is run for each workload on each engine, before all others.
    A violation that the engine or the workload declares counts as expected. The pages are written
    after each cell, so that a matrix that was interrupted can be read, and goes on with --resume.

    \b
    Examples:
      chaos matrix --engines native --workloads all --packages all
      chaos matrix --smoke --rotate $(git rev-parse HEAD) --time-limit 600 --at-least 16
    """
    if rotate and not is_smoke:
        raise click.UsageError("--rotate goes with --smoke")
    if resume and out is None:
        raise click.UsageError("--resume goes with --out: name the directory of the matrix")
    try:
        if is_smoke:
            chosen = smoke(rotate)
        else:
            chosen = full(
                choose("an engine", engines, ENGINES),
                choose("a workload", workloads, WORKLOADS),
                [] if controls else choose("a package of faults", packages, PACKAGES),
            )
    except NoSuchCell as error:
        raise click.UsageError(str(error)) from error
    if not chosen:
        raise click.UsageError("etcd serves no machines: choose other workloads for it")
    before = _earlier(out) if resume and out is not None else None
    if seed is None:
        seed = _seed_of(before) if before is not None else secrets.randbelow(2**31)
    out = out or Path("runs") / f"matrix-{datetime.now():%Y%m%d-%H%M%S}"
    about = {
        "seed": str(seed),
        "load": f"{seconds:g} s in each cell, {jobs} cells at once",
        "date": f"{datetime.now():%Y-%m-%d}",
    }
    options = MatrixOptions(out, seconds, seed, jobs, time_limit, at_least, about)
    cells = list(controls_first(chosen)) if not is_smoke else chosen
    screen = _Screen(as_json, len(cells))

    def keep(result: MatrixResult) -> None:
        write_pages(result, out)

    try:
        with screen:
            result = asyncio.run(
                run_matrix(cells, options, screen.watch, screen.finished, before, keep)
            )
        path = write_pages(result, out)
    except OSError as error:
        click.echo(f"chaos: {error}", err=True)
        sys.exit(EXIT_CODES[Verdict.INVALID])
    except KeyboardInterrupt:
        click.echo(
            f"chaos: interrupted; the same command with --resume --out {out} goes on", err=True
        )
        sys.exit(EXIT_CODES[Verdict.INVALID])
    if as_json:
        click.echo((out / JSON_NAME).read_text(encoding="utf-8"), nl=False)
    else:
        screen.summary(result, path)
    sys.exit(EXIT_CODES[result.verdict])


def _seed_of(before: MatrixResult) -> int:
    """The seed of a matrix of before."""
    try:
        return int(before.about["seed"])
    except (KeyError, ValueError) as error:
        raise click.UsageError("--resume: the matrix tells no seed; name it with --seed") from error


def _earlier(directory: Path) -> MatrixResult:
    """What came of the matrix in a directory."""
    path = directory / JSON_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cells = [CellStanding.from_json(cell) for cell in document["cells"]]
        return MatrixResult(cells, seconds=float(document["seconds"]), about=document["about"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"--resume: {path} is no matrix of before: {error}") from error
