"""One cell in a process of its own: two cells that run at once share neither loop nor interpreter.

The cell is read from standard input as one JSON document; what happens is written to standard
output as JSON lines: ``{"progress": text}``, and last ``{"result": ...}`` or ``{"error": text}``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import attrs

from chaos.cell import CellOptions, run_cell
from chaos.cluster.cluster import ClusterFailed, ClusterOptions
from chaos.cluster.process import ProcessFailed
from chaos.cluster.proxies import ProxyServerError
from chaos.cluster.targets.base import TargetUnavailable
from chaos.matrix.cells import MatrixCell
from chaos.workloads.base import WorkloadFailed

OK_PER_S_MIN: Final = 2.0
"""Answered operations a second below which a cell proves nothing: cells share a machine."""


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Run the cell that ``spec`` names (see ``chaos.matrix.runner``); return its last line."""
    cell = MatrixCell(spec["engine"], spec["workload"], spec["package"])
    try:
        kind = cell.kind
        target = cell.target()
        target.check()
        options = CellOptions(
            target=target,
            faults=cell.faults,
            seconds=spec["seconds"],
            seed=spec["seed"],
            cluster=ClusterOptions(seed=spec["seed"]),
            workload=cell.workload,
            floor=attrs.evolve(kind.floor, ok_per_s=min(kind.floor.ok_per_s, OK_PER_S_MIN)),
            replay=spec["replay"],
        )
        options.plan()
    except TargetUnavailable as error:
        return {"absent": str(error)}
    try:
        result = asyncio.run(run_cell(options, Path(spec["directory"]), _progress))
    except TargetUnavailable as error:
        return {"absent": str(error)}
    except (
        *(ClusterFailed, ProcessFailed, ProxyServerError),
        *(WorkloadFailed, OSError),
    ) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"result": result.as_json()}


def _progress(text: str) -> None:
    _say({"progress": text})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Entry point of the process."""
    try:
        _say(run(json.load(sys.stdin)))
    except KeyboardInterrupt:
        _say({"error": "interrupted"})


if __name__ == "__main__":
    main()
