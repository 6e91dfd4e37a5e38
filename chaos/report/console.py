"""What a person sees on the terminal: live progress, a line for each cell, a table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import rich.console
from rich.markup import escape
from rich.table import Table

from chaos.cell import CellResult
from chaos.checkers.pipeline import Report
from chaos.expectations import DECLARATIONS, flag_names, not_survived
from chaos.verdict import Verdict

FINDINGS_SHOWN_MAX: Final = 5
_COLOURS: Final = {
    Verdict.OK: "green",
    Verdict.VIOLATED: "bold red",
    Verdict.UNKNOWN: "yellow",
    Verdict.INVALID: "yellow",
}


def _coloured(verdict: Verdict) -> str:
    return f"[{_COLOURS[verdict]}]{verdict.value}[/]"


class Console:
    """A terminal, or nothing at all when ``quiet``."""

    def __init__(self, quiet: bool) -> None:
        self._console = rich.console.Console(quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """Print one line as it is."""
        self._console.print(escape(text), soft_wrap=True)

    def heading(self, target: str, version: str, seed: int, out: Path) -> None:
        """Say what is about to be done."""
        self.say(f"target {target} {version}, seed {seed}, histories and logs in {out}")

    @contextmanager
    def cell(self, name: str) -> Iterator[Callable[[str], None]]:
        """Show a cell's progress while it runs."""
        with self._console.status(escape(name)) as status:
            yield lambda text: status.update(escape(f"{name}: {text}"))

    def finished(self, result: CellResult) -> None:
        """Print a cell's line, and its first findings."""
        counts = ", ".join(f"{n} {name}" for name, n in result.operations.items())
        self._console.print(
            f"{escape(result.name):<24} {_coloured(result.verdict)}  {counts}, "
            f"{result.seconds:.1f} s"
        )
        self._findings(result.report)

    def report(self, report: Report) -> None:
        """Print what every checker said."""
        for result in report.results:
            self._console.print(f"{result.checker:<18} {_coloured(result.verdict)}")
        self._findings(report)
        self._console.print(f"{'verdict':<18} {_coloured(report.verdict)}")

    def summary(
        self, results: Sequence[CellResult], engine: str, verdict: Verdict, again: str
    ) -> None:
        """Print the table of cells, losses beside what was expected, and how to run it again."""
        table = Table(title="cells", title_justify="left")
        for column in ("cell", "verdict"):
            table.add_column(column)
        for column in ("ok", "fail", "unknown", "lost writes", "expected", "unexpected"):
            table.add_column(column, justify="right")
        for result in results:
            operations = result.operations
            table.add_row(
                escape(result.name),
                _coloured(result.verdict),
                *(str(operations[name]) for name in ("ok", "fail", "info")),
                str(result.report.lost_writes),
                str(sum(result.expected.values())),
                str(sum(result.unexpected.values())),
            )
        self._console.print(table)
        declared = DECLARATIONS[engine]
        survives, not_claimed = flag_names(declared.survives), flag_names(not_survived(engine))
        self.say(f"{engine} claims that acknowledged writes survive: {', '.join(survives)}")
        self.say(f"it does not claim (losses count as expected): {', '.join(not_claimed)}")
        for note in declared.notes:
            self.say(f"  {note}")
        self._console.print(f"verdict {_coloured(verdict)}")
        self.say(f"again: {again}")
        for result in results:
            self.say(f"check again: chaos check {result.history_path}")

    def _findings(self, report: Report) -> None:
        for finding in report.findings[:FINDINGS_SHOWN_MAX]:
            self.say(f"  {finding.kind.value}: {finding.text}")
        more = sum(report.counts.values()) - FINDINGS_SHOWN_MAX
        if more > 0:
            self.say(f"  and {more} more; the history has them all")
