"""Running the cells: some at once, within a time, each in a process of its own.

A cell that proved nothing (too little load, a fault without effect, a cluster that did not start)
is run once more with another seed, and its page says so; a violation is never tried again. No cell
is begun that would, by the longest so far, end after the time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from chaos import guardian
from chaos.expectations import expected_reason
from chaos.matrix.cells import MatrixCell
from chaos.matrix.results import CellStanding, MatrixResult, Standing
from chaos.report.page import REPORT_NAME

ATTEMPTS_MAX: Final = 2
CELL_TIMEOUT_S: Final = 240.0
"""A cell that is not over by then is ended, and proves nothing."""

STOP_TIMEOUT_S: Final = 20.0
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
ERROR_CHARACTERS_MAX: Final = 400

WORKER: Final = ("-m", "chaos.matrix.worker")
"""What Python runs for one cell."""

Watcher = Callable[[MatrixCell, str], None]
"""Is told what a cell that runs is doing; "" when it is over."""


@attrs.frozen(slots=True)
class MatrixOptions:
    """How a matrix is run.

    Args:
        directory: for every cell's history, logs and page.
        seconds: length of the load in each cell.
        seed: of every choice.
        jobs: cells at once.
        time_limit_s: begin no cell that would end later than this; None for no limit.
        needed: fewer cells than this prove nothing.
        about: what its pages say of it.
    """

    directory: Path
    seconds: float
    seed: int
    jobs: int = 2
    time_limit_s: float | None = None
    needed: int = 1
    about: Mapping[str, str] = attrs.field(factory=dict)


async def run_matrix(
    cells: Sequence[MatrixCell],
    options: MatrixOptions,
    watcher: Watcher,
    finished: Callable[[CellStanding], None],
    before: MatrixResult | None = None,
    keep: Callable[[MatrixResult], None] = lambda _: None,
) -> MatrixResult:
    """Run the cells in order, ``options.jobs`` at once, and return what came of them.

    Args:
        cells: all that the matrix has.
        options: how they are run.
        watcher: is told what the running cells do.
        finished: is told of each cell that is over.
        before: what came of an earlier run in the same directory, with these or other cells: what
            it proved is not run again, and stays.
        keep: is given what came of it so far, before the first cell and after each.
    """
    began = time.monotonic()
    before = before or MatrixResult()
    over = {
        cell.cell: cell
        for cell in before.cells
        if cell.cell not in cells or not cell.proved_nothing
    }
    waiting = [cell for cell in cells if cell not in over]
    every = [*cells, *(cell.cell for cell in before.cells if cell.cell not in cells)]
    longest = 0.0

    def so_far(*, under_way: bool) -> MatrixResult:
        return MatrixResult(
            [over[cell] for cell in every if cell in over],
            [cell for cell in every if cell not in over],
            before.seconds + time.monotonic() - began,
            options.needed,
            options.about,
            under_way,
        )

    def time_for_one_more() -> bool:
        if options.time_limit_s is None:
            return True
        return time.monotonic() - began + longest < options.time_limit_s

    async def work() -> None:
        nonlocal longest
        while waiting and time_for_one_more():
            cell = waiting.pop(0)
            standing = await _run(cell, options, watcher, 1)
            longest = max(longest, standing.seconds)
            if standing.proved_nothing and time_for_one_more():
                standing = await _run(cell, options, watcher, ATTEMPTS_MAX)
                longest = max(longest, standing.seconds)
            over[cell] = standing
            finished(standing)
            keep(so_far(under_way=True))

    keep(so_far(under_way=True))
    async with asyncio.TaskGroup() as group:
        for _ in range(options.jobs):
            group.create_task(work())
    return so_far(under_way=False)


def replay_command(cell: MatrixCell, seconds: float, seed: int) -> str:
    """The command that runs one cell again."""
    faults = "" if cell.package == "control" else f" --packages {cell.package}"
    return (
        f"chaos matrix --engines {cell.engine} --workloads {cell.workload}{faults or ' --controls'}"
        f" --seconds {seconds:g} --seed {seed}"
    )


async def _run(
    cell: MatrixCell, options: MatrixOptions, watcher: Watcher, attempt: int
) -> CellStanding:
    began = time.monotonic()
    seed = options.seed + attempt - 1
    name, number = cell.name, 1
    while (options.directory / name).exists():
        number += 1
        name = f"{cell.name}-{number}"
    directory = options.directory / name
    spec = {
        **attrs.asdict(cell),
        "directory": str(directory),
        "seconds": options.seconds,
        "seed": seed,
        "replay": replay_command(cell, options.seconds, seed),
    }
    watcher(cell, "starting" if attempt == 1 else "once more")
    try:
        last = await _work(spec, _log_path(directory), lambda text: watcher(cell, text))
    finally:
        watcher(cell, "")
    standing = _standing(cell, last)
    report = directory / REPORT_NAME
    return attrs.evolve(
        standing,
        seed=seed,
        attempts=attempt,
        seconds=round(time.monotonic() - began, 2),
        replay=spec["replay"],
        report=f"{name}/{REPORT_NAME}" if report.exists() else "",
    )


def _log_path(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory / "worker.log"


async def _work(
    spec: dict[str, Any], log_path: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Run a cell's process to its end; return its last line."""
    last: dict[str, Any] = {}
    guardian.engage()
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *WORKER),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(CELL_TIMEOUT_S):
                process.stdin.write(json.dumps(spec).encode())
                process.stdin.close()
                async for line in process.stdout:
                    last = json.loads(line)
                    if "progress" in last:
                        progress(last["progress"])
                await process.wait()
        except TimeoutError:
            last = {"error": f"not over after {CELL_TIMEOUT_S:g} s"}
        finally:
            await _end(process)
    if not last or "progress" in last:
        text = log_path.read_text(errors="replace")  # noqa: ASYNC240 - a small file
        last = {"error": f"its process ended early: {text[-ERROR_CHARACTERS_MAX:]}"}
    return last


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let a process that still runs end its cluster, and then itself."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _standing(cell: MatrixCell, last: dict[str, Any]) -> CellStanding:
    if "absent" in last:
        return CellStanding(cell, Standing.ABSENT, last["absent"])
    if "error" in last:
        return CellStanding(cell, Standing.INVALID, last["error"][:ERROR_CHARACTERS_MAX])
    found = last["result"]
    standing = Standing(found["verdict"])
    reason = ""
    if standing is Standing.VIOLATED:
        declared = expected_reason(cell.engine, cell.kind.unsafe, found["unexpected"])
        reason = "; ".join(f"{kind} × {number}" for kind, number in found["counts"].items())
        if declared:
            standing, reason = Standing.EXPECTED, f"{declared} ({reason})"
    elif standing is not Standing.OK:
        reason = "; ".join(finding["text"] for finding in found["findings"][:2])
    return CellStanding(
        cell,
        standing,
        reason[:ERROR_CHARACTERS_MAX],
        operations=found["operations"],
        counts=found["counts"],
    )
