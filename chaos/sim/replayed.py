"""``chaos mutants --replayed``: bugs of real systems, each as a script and as a mutant.

The scripts and the mutants are in a checkout's tests (``tests/replayed``), which also judge them:
a script is green on the code as it is and red with its mutant, and with the mutant the basic path
still works. Here they are run and their table is made.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import attrs
import click
import rich.console
from rich.markup import escape
from rich.table import Table

from chaos import guardian
from chaos.sim.checkout import module_of_tests
from chaos.sim.quiet import without_logs

TABLE_MODULE: Final = "tests.replayed.table"
JUDGE_MODULE: Final = "tests.replayed.bug"


@attrs.frozen(slots=True)
class ReplayedRow:
    """One script and what came of it.

    Args:
        name: the script's.
        sources: (title, address) of each record of the real bug.
        story: what was broken there.
        promise: what that breaks.
        fault: what the mutant does wrong.
        target: where it is, as "module:function".
        caught: what the script says with the mutant; empty: it is green.
        problems: why this row proves nothing; empty where it does.
    """

    name: str
    sources: tuple[tuple[str, str], ...]
    story: str
    promise: str
    fault: str
    target: str
    caught: str
    problems: tuple[str, ...]


def run_replayed(names: Sequence[str], jobs: int, out: Path | None) -> bool:
    """Run scripts and print their table; return whether each is green, and red with its mutant.

    Args:
        names: only scripts whose name, or the number of whose bug, contains one of these.
        jobs: processes.
        out: a file that gets the table as a document.

    Raises:
        click.UsageError: this is no checkout, or no script has such a name.
    """
    chosen = [
        bug.name
        for bug in _table().BUGS
        if not names or any(part in text for part in names for text in _called(bug))
    ]
    if not chosen:
        raise click.UsageError(f"no replayed bug is called {' or '.join(names)}")
    rows = list(_judged(chosen, jobs))
    _show(rows)
    if out is not None:
        out.write_text(document(rows), encoding="utf-8")
    return not any(row.problems for row in rows)


def judge(name: str) -> ReplayedRow:
    """Run one script with and without its mutant."""
    (bug,) = [each for each in _table().BUGS if each.name == name]
    with tempfile.TemporaryDirectory(prefix="chaos-replayed-") as directory, without_logs():
        verdict = module_of_tests(JUDGE_MODULE).judge(bug, Path(directory))
    return row_of(bug, verdict)


def row_of(bug: Any, verdict: Any) -> ReplayedRow:
    """Return the row of a ``tests.replayed.bug.ReplayedBug`` and the ``Verdict`` on it."""
    return ReplayedRow(
        name=bug.name,
        sources=tuple((source.title, source.url) for source in bug.sources),
        story=bug.story,
        promise=bug.promise,
        fault=bug.mutant.name,
        target=bug.mutant.target,
        caught=verdict.mutant,
        problems=tuple(verdict.problems),
    )


def _table() -> ModuleType:
    return module_of_tests(TABLE_MODULE)


def _called(bug: Any) -> Iterator[str]:
    yield bug.name
    for source in bug.sources:
        yield source.title


def _judged(names: Sequence[str], jobs: int) -> Iterable[ReplayedRow]:
    if jobs == 1:
        yield from map(judge, names)
        return
    guardian.engage()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        yield from pool.map(judge, names)


# -- the table --------------------------------------------------------------------------------


def document(rows: Sequence[ReplayedRow]) -> str:
    """Return the table as a document."""
    return "\n".join([*_HEADING, "", _summary(rows), "", *_COLUMNS, *map(line, rows)]) + "\n"


def line(row: ReplayedRow) -> str:
    """Return the line of one bug in the document."""
    sources = ", ".join(f"[{title}]({url})" for title, url in row.sources)
    where = row.target.partition(":")[2]
    caught = "; ".join(row.problems) or row.caught
    cells = (
        sources,
        row.story,
        row.promise,
        f"`{row.name}`",
        f"{row.fault} (`{where}`)",
        caught,
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


_HEADING: Final = (
    "# Bugs of real systems, replayed",
    "",
    "Each row is a bug that a real system had. A script in `tests/replayed` plays the story on",
    "our own classes and asserts the promise that was broken. It is green on the code as it is,",
    "and red with a mutant that brings the same fault into our code; with the mutant the basic",
    "path (elect, write, read, restart, watch) still works. The last column is what the script",
    "then says. The words are ours; the reports have the details.",
    "",
    "Made by `chaos mutants --replayed --out docs/REPLAYED_BUGS.md`; the tests run all of it.",
)
_COLUMNS: Final = (
    "| real bug | what was broken | the promise | script | mutant | what is seen with it |",
    "|---|---|---|---|---|---|",
)


def _summary(rows: Sequence[ReplayedRow]) -> str:
    bugs = sum(len(row.sources) for row in rows)
    bad = [row.name for row in rows if row.problems]
    fine = "each green on the code as it is and red with its mutant"
    return (
        f"{len(rows)} scripts for {bugs} reports: "
        f"{'not as it should be: ' + ', '.join(bad) if bad else fine}."
    )


def _show(rows: Sequence[ReplayedRow]) -> None:
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:  # one line each, which a program can search
        for row in rows:
            sources = ", ".join(title for title, _ in row.sources)
            found = "; ".join(row.problems) or f"ok, with the mutant: {row.caught}"
            click.echo(f"{row.name} ({sources}): {found}")
    else:
        table = Table("real bug", "script", "as it is", "with the mutant", show_lines=True)
        for row in rows:
            sources = ", ".join(title for title, _ in row.sources)
            verdict = "[green]green[/]" if not row.problems else "[red]see right[/]"
            found = "; ".join(row.problems) or row.caught
            table.add_row(escape(sources), row.name, verdict, escape(found))
        console.print(table)
    click.echo(_summary(rows))
