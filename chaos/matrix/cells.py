"""Which cells there are, and which of them a short matrix runs.

A cell is one engine, one workload and one package of faults. Each pair of engine and workload has a
control cell without faults, which runs first. The smoke matrix has ``SMOKE``, always, and then
cells of the native engine's full matrix, which a commit's id draws: another commit has others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any, Final

import attrs

from chaos.cluster.targets.base import Api, Target
from chaos.cluster.targets.etcd import EtcdTarget
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.cluster.targets.machine import MachineTarget
from chaos.nemesis.packages import PACKAGES
from chaos.workloads.base import Workload
from chaos.workloads.registry import WORKLOADS, find_workload

ENGINES: Final = ("native", "pysyncobj", "etcd")
CONTROL: Final = "control"
"""The name of the cell without faults."""

SMOKE_ROTATING: Final = 8
"""Cells that a smoke matrix draws from the full one."""


@attrs.frozen(slots=True, order=True)
class MatrixCell:
    """One cell; ``package`` is ``CONTROL`` for the one without faults."""

    engine: str
    workload: str
    package: str

    @property
    def name(self) -> str:
        """Its name in paths and tables."""
        return f"{self.engine}/{self.workload}/{self.package}"

    @property
    def faults(self) -> tuple[str, ...]:
        """Its packages, as ``CellOptions`` takes them."""
        return () if self.package == CONTROL else (self.package,)

    @property
    def kind(self) -> type[Workload[Any]]:
        """Its workload's class."""
        return find_workload(self.workload)

    def target(self) -> Target:
        """What is tested in it."""
        kind = self.kind
        if kind.api is Api.MACHINE:
            return MachineTarget(kind.machine, self.engine)
        return EtcdTarget() if self.engine == "etcd" else KvstoreTarget(self.engine)


class NoSuchCell(ValueError):
    """A name is not known; the text says what there is."""


def choose(name: str, asked: str, known: Iterable[str]) -> list[str]:
    """The names in a comma-separated list, all of them for "all".

    Args:
        name: what they are names of, for the message.
        asked: what the user wrote.
        known: what there is.

    Raises:
        NoSuchCell: one is not known.
    """
    there = list(known)
    if asked == "all":
        return there
    chosen = [word.strip() for word in asked.split(",") if word.strip()]
    for word in chosen:
        if word not in there:
            raise NoSuchCell(f"{word!r} is not {name}; there are {', '.join(there)}, or all")
    if not chosen:
        raise NoSuchCell(f"name at least one of {', '.join(there)}, or all")
    return chosen


def can_run(engine: str, workload: str) -> bool:
    """Whether there is such a pair: etcd serves no machines."""
    return engine != "etcd" or find_workload(workload).api is Api.KV


def full(
    engines: Sequence[str] = ENGINES,
    workloads: Sequence[str] | None = None,
    packages: Sequence[str] | None = None,
) -> list[MatrixCell]:
    """Every cell of these, each pair of engine and workload with its control cell first."""
    workloads = list(WORKLOADS) if workloads is None else workloads
    packages = list(PACKAGES) if packages is None else packages
    return [
        MatrixCell(engine, workload, package)
        for engine in engines
        for workload in workloads
        if can_run(engine, workload)
        for package in (CONTROL, *packages)
    ]


def smoke(commit: str) -> list[MatrixCell]:
    """The cells of a short run: ``SMOKE``, then ``SMOKE_ROTATING`` others that ``commit`` draws."""
    fixed = [MatrixCell(*names) for names in SMOKE]
    others = [cell for cell in full(("native",)) if cell not in set(fixed)]
    drawn = Random(f"matrix {commit}").sample(others, min(SMOKE_ROTATING, len(others)))
    return [*fixed, *sorted(drawn)]


def controls_first(cells: Iterable[MatrixCell]) -> Iterator[MatrixCell]:
    """The cells without faults, then the others, each in the given order."""
    listed = list(cells)
    yield from (cell for cell in listed if cell.package == CONTROL)
    yield from (cell for cell in listed if cell.package != CONTROL)


SMOKE: Final = (
    ("native", "register", CONTROL),
    ("pysyncobj", "register", CONTROL),
    ("native", "register", "storm"),
    ("native", "register", "partition"),
    ("native", "append", "kill-all"),
    ("native", "set", "majorities-ring"),
    ("native", "bank", "kill"),
    ("native", "counter", "pause"),
    ("native", "queue", "restarts"),
    ("native", "watch", "one-way"),
    ("native", "lease", "clients"),
    ("native", "compaction", "kill-majority"),
    ("native", "membership", "churn"),
    ("native", "snapshot", "bad-messages"),
    ("pysyncobj", "register", "kill"),
    ("pysyncobj", "append", "partition"),
    ("pysyncobj", "cas", "kill-all"),
)
"""The cells that every smoke matrix runs: (engine, workload, package)."""
