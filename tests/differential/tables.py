"""The report of a run as tables for people."""

from __future__ import annotations

from rich.table import Table

from tests.differential.driver import Report


def coverage_table(report: Report) -> Table:
    """Every method, option, form of range and error, with how often it was met."""
    table = Table("what", "hits", title=f"Differential test, seed {report.seed}")
    coverage = report.coverage
    for counts in (coverage.methods, coverage.ranges, coverage.options, coverage.errors):
        for name, hits in sorted(counts.items()):
            table.add_row(name, str(hits))
        table.add_section()
    table.add_row("watchers compared", str(report.watchers))
    table.add_row("events compared", str(report.events))
    table.add_row("fragments received", str(report.fragments))
    return table
