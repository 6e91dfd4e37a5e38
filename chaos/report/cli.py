"""``chaos report``: pages of runs that are over."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from chaos.history.format import HistoryError
from chaos.report.page import write_report
from chaos.workloads.base import WorkloadFailed

HISTORY_NAME = "history.jsonl"


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
def report(run_dir: Path) -> None:
    """Write an HTML page for every history in RUN_DIR, beside it.

    RUN_DIR is what `chaos run --out` was given, or a history file. A page needs no network and no
    other file. It is written again from the history, which is checked again.
    """
    found = [run_dir] if run_dir.is_file() else sorted(run_dir.rglob(HISTORY_NAME))
    if not found:
        click.echo(
            f"chaos: no {HISTORY_NAME} in {run_dir}; give the directory that `chaos run` wrote to",
            err=True,
        )
        sys.exit(2)
    for path in found:
        try:
            click.echo(str(write_report(path)))
        except (HistoryError, WorkloadFailed, OSError) as error:
            click.echo(f"chaos: {error}", err=True)
            sys.exit(2)
