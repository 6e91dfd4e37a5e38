"""The matrix as a page: HTML with links to every cell's own page, Markdown to keep, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chaos.matrix.results import CellStanding, MatrixResult, Standing
from chaos.report.templates import render

HTML_NAME: Final = "matrix.html"
MARKDOWN_NAME: Final = "matrix.md"
JSON_NAME: Final = "matrix.json"

MEANINGS: Final = {
    Standing.OK: "every promise that was checked was kept",
    Standing.EXPECTED: "a promise was broken, as is declared; the reason is below",
    Standing.VIOLATED: "a promise was broken",
    Standing.UNKNOWN: "a check could not decide",
    Standing.INVALID: "the run proved nothing",
    Standing.ABSENT: "cannot be had here; the reason is below",
}


def write_pages(result: MatrixResult, directory: Path) -> Path:
    """Write the pages and the JSON into ``directory``; return the path of the HTML page.

    Each file is replaced at once: whoever reads while the matrix goes on, or after it was killed,
    finds it whole.

    Raises:
        OSError: they cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    document = json.dumps(result.as_json(), ensure_ascii=False, indent=2) + "\n"
    for name, text in (
        (HTML_NAME, html(result)),
        (MARKDOWN_NAME, markdown(result)),
        (JSON_NAME, document),
    ):
        part = directory / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(directory / name)
    return directory / HTML_NAME


def html(result: MatrixResult) -> str:
    """The HTML page."""
    return render(
        "matrix.html.j2",
        result=result,
        meanings={standing.value: text for standing, text in MEANINGS.items()},
        counts={standing.value: number for standing, number in result.counts.items()},
        notable=notable(result),
    )


def notable(result: MatrixResult) -> list[CellStanding]:
    """The cells that are not simply ok, the gravest first."""
    order = list(reversed(Standing))
    order.sort(key=lambda standing: standing is not Standing.VIOLATED)
    cells = [cell for cell in result.cells if cell.standing is not Standing.OK or cell.attempts > 1]
    return sorted(cells, key=lambda cell: order.index(cell.standing))


def markdown(result: MatrixResult) -> str:
    """The page for a repository: the same tables, and how to run again what is not ok."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: MatrixResult) -> Iterator[str]:
    counts = ", ".join(f"{number} {standing.value}" for standing, number in result.counts.items())
    yield "# Chaos matrix"
    yield ""
    took = f"{result.run} cells in {result.seconds:.0f} s"
    yield f"Verdict **{result.verdict.value}**: {counts}; {took}."
    yield ""
    for name, value in result.about.items():
        yield f"- {name}: {value}"
    for engine in result.engines:
        packages = result.packages(engine)
        workloads = result.workloads(engine)
        yield from ("", f"## {engine}", "")
        yield f"| faults | {' | '.join(workloads)} |"
        yield f"|---|{'---|' * len(workloads)}"
        for package in packages:
            words = (_word(result.at(engine, workload, package)) for workload in workloads)
            yield f"| {package} | {' | '.join(words)} |"
    cells = notable(result)
    if cells:
        yield from ("", "## Cells that are not simply ok", "")
    for cell in cells:
        again = " (second attempt)" if cell.attempts > 1 else ""
        yield f"- **{cell.standing.value}** {cell.cell.name}{again}: {cell.reason or 'ok'}"
        if cell.replay and cell.standing is not Standing.ABSENT:
            yield f"  `{cell.replay}`"
    if result.missing:
        yield from ("", result.missing)


def _word(cell: CellStanding | None) -> str:
    if cell is None:
        return ""
    if cell.standing is Standing.ABSENT:
        return "–"
    word = cell.standing.value
    shown = word if cell.standing is Standing.OK else f"**{word}**"
    done = cell.operations.get("ok", 0)
    return f"{shown} {done:,}" if done else shown
