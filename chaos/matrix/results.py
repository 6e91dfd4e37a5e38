"""What came of a matrix: a standing for each cell, and one verdict for all.

A cell's standing is one word more than a verdict: ``expected`` is a violation that the engine or
the workload declares (``chaos.expectations``), and ``absent`` a cell that cannot be had here. Only
``violated`` and ``invalid`` are failures.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from chaos.matrix.cells import CONTROL, MatrixCell
from chaos.verdict import Verdict


class Standing(enum.Enum):
    """How a cell of the matrix stands."""

    OK = "ok"
    EXPECTED = "expected"
    VIOLATED = "violated"
    UNKNOWN = "unknown"
    INVALID = "invalid"
    ABSENT = "absent"


@attrs.frozen(slots=True)
class CellStanding:
    """One cell that is over.

    Args:
        cell: which.
        standing: how it stands.
        reason: why it is not simply ok, in one sentence; "" if it is.
        seed: of its choices.
        seconds: how long it took, start-up and checks included.
        operations: how many ended ok, fail and info.
        counts: what was found, by kind.
        attempts: how often it was run: again only if it proved nothing.
        report: the path of its page, relative to the matrix's own; "" if there is none.
        replay: the command that runs it again.
    """

    cell: MatrixCell
    standing: Standing
    reason: str = ""
    seed: int = 0
    seconds: float = 0.0
    operations: Mapping[str, int] = attrs.field(factory=dict)
    counts: Mapping[str, int] = attrs.field(factory=dict)
    attempts: int = 1
    report: str = ""
    replay: str = ""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CellStanding:
        """What ``as_json`` wrote.

        Raises:
            KeyError, ValueError, TypeError: it is something else.
        """
        fields = dict(document)
        cell = MatrixCell(*(fields.pop(name) for name in ("engine", "workload", "package")))
        return cls(cell, Standing(fields.pop("standing")), **fields)

    @property
    def proved_nothing(self) -> bool:
        """Whether it may be run again."""
        return self.standing in (Standing.INVALID, Standing.UNKNOWN)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        document = attrs.asdict(self, filter=attrs.filters.exclude("cell", "standing"))
        return {**attrs.asdict(self.cell), "standing": self.standing.value, **document}


@attrs.define(slots=True)
class MatrixResult:
    """All cells that are over, and those that were not begun.

    While it is under way, or where it was interrupted, ``under_way`` is set, ``not_begun`` has
    every cell that is not over, and nothing is proved yet: the verdict is ``unknown`` at best.
    """

    cells: list[CellStanding] = attrs.field(factory=list)
    not_begun: list[MatrixCell] = attrs.field(factory=list)
    seconds: float = 0.0
    needed: int = 0
    about: Mapping[str, str] = attrs.field(factory=dict)
    under_way: bool = False

    @property
    def counts(self) -> Counter[Standing]:
        """How many cells stand how."""
        return Counter(cell.standing for cell in self.cells)

    @property
    def run(self) -> int:
        """How many cells were run."""
        return len(self.cells) - self.counts[Standing.ABSENT]

    @property
    def verdict(self) -> Verdict:
        """Violated if any cell is, else unknown while it is under way, else invalid if any cell
        proved nothing or too few were run."""
        counts = self.counts
        if counts[Standing.VIOLATED]:
            return Verdict.VIOLATED
        if self.under_way:
            return Verdict.UNKNOWN
        if counts[Standing.INVALID] or counts[Standing.UNKNOWN] or self.run < max(1, self.needed):
            return Verdict.INVALID
        return Verdict.OK

    @property
    def missing(self) -> str:
        """What is not there, for a person; "" if nothing is missing."""
        if not self.not_begun:
            return ""
        number = len(self.not_begun)
        if self.under_way:
            return f"{number} cells are not over: the matrix is under way, or was interrupted."
        return f"{number} cells were not begun: the time was up."

    @property
    def engines(self) -> list[str]:
        """The engines, in the order in which they were asked for."""
        return _in_order(cell.cell.engine for cell in self.cells)

    def workloads(self, engine: str) -> list[str]:
        """The workloads that ran on an engine."""
        return _in_order(c.cell.workload for c in self.cells if c.cell.engine == engine)

    def packages(self, engine: str) -> list[str]:
        """The packages that ran on an engine, the control first."""
        found = _in_order(c.cell.package for c in self.cells if c.cell.engine == engine)
        return sorted(found, key=lambda package: package != CONTROL)

    def at(self, engine: str, workload: str, package: str) -> CellStanding | None:
        """What came of a cell, None if it was not run."""
        wanted = MatrixCell(engine, workload, package)
        return next((cell for cell in self.cells if cell.cell == wanted), None)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "verdict": self.verdict.value,
            "about": dict(self.about),
            "under_way": self.under_way,
            "seconds": round(self.seconds, 1),
            "counts": {standing.value: number for standing, number in self.counts.items()},
            "needed": self.needed,
            "cells": [cell.as_json() for cell in self.cells],
            "not_begun": [cell.name for cell in self.not_begun],
        }


def _in_order(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
