"""Tables: one list of texts for a person's terminal (rich) and for the README (Markdown)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs
import click
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.figures import LoadResult
from benchmarks.summary import ETCD, Figures, Row

NOTHING: Final = "–"
BESIDE: Final = " / "
"""Between our figure and etcd's; a terminal shows one above the other instead."""

MARK: Final = "!"
FILE_WIDTH: Final = 100


@attrs.frozen(slots=True)
class Sheet:
    """A table before it has a form. The first ``texts`` columns are words, the others figures."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return it for the README."""
        rule = ["---" if index < self.texts else "---:" for index in range(len(self.headings))]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.headings, rule, *self.rows)]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def show(self, about: str, *, markdown: bool = False) -> None:
        """Print it for a person, on a terminal or into a file; or as Markdown."""
        if markdown:
            click.echo(f"{about}\n\n{self.markdown()}")
            return
        console = Console()
        if not console.is_terminal:
            console.width = FILE_WIDTH
        two_lines = any(BESIDE in cell for cells in self.rows for cell in cells)
        table = Table(box=box.SIMPLE, padding=0, show_lines=two_lines)
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if index < self.texts else "right")
        for cells in self.rows:
            table.add_row(*(cell.replace(BESIDE, "\n") for cell in cells))
        console.print(about, table, *self.notes, sep="\n", highlight=False)


def side_by_side(rows: Sequence[Row]) -> Sheet:
    """Return the table of kvstore beside etcd: both figures, and the ratio of some."""
    headings = (
        *("client", "operation", "callers", "system"),
        *("ops/s", "ratio", "p50 ms", "p99 ms", "CPU µs", "ratio", "gap ms"),
    )
    table = []
    for row in rows:
        mark = f" {MARK}" if row.bad_rounds else ""
        table.append(
            (
                row.client,
                row.operation,
                f"{row.callers}{mark}",
                row.system + (BESIDE + ETCD if row.etcd else ""),
                both(row, lambda figures: figures.rate, ",.0f"),
                number(row.rate_ratio, ".2f"),
                both(row, lambda figures: figures.p50_ms, ".2f"),
                both(row, lambda figures: figures.p99_ms, ".1f"),
                both(row, lambda figures: figures.cpu_us, ",.0f"),
                number(row.cpu_ratio, ".1f"),
                number(row.loop_gap_ms, ".0f"),
            )
        )
    return Sheet(headings, tuple(table), 4, error_notes(rows))


def error_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return a line for each row in which requests failed."""
    notes = []
    for row in rows:
        for name, figures in ((row.system, row.ours), (ETCD, row.etcd)):
            if figures is not None and figures.errors:
                notes.append(error_note(row, name, figures))
    return tuple(notes)


def error_note(row: Row, system: str, figures: Figures) -> str:
    """Return what went wrong on one system in one row."""
    rounds = ", ".join(map(str, row.bad_rounds))
    return (
        f"{MARK} {row.client} {row.operation} {row.callers} on {system}: {figures.errors} of "
        f"{figures.errors + figures.operations} requests failed (round {rounds}), "
        f"the first with: {figures.first_error}"
    )


def both(row: Row, figure: Callable[[Figures], float | None], form: str) -> str:
    """Return our figure, and etcd's beside it where there is one."""
    ours = number(figure(row.ours), form)
    return ours if row.etcd is None else ours + BESIDE + number(figure(row.etcd), form)


def number(value: float | None, form: str) -> str:
    """Return a figure, or a dash where there is none."""
    return NOTHING if value is None else format(value, form)


def one_line(load: LoadResult) -> str:
    """Return a measurement's figures for the progress line."""
    errors = f", {load.errors} ERRORS" if load.errors else ""
    return f"{load.rate:8,.0f}/s  p50 {load.p50_ms:8.2f} ms  p99 {load.p99_ms:8.2f} ms{errors}"
