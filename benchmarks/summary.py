"""From measurements to one row for each cell and engine: medians over rounds, and ratios.

A ratio is taken within a round, between neighbours in time, and the median is taken of the ratios:
what the machine did to both does not show in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import attrs

from benchmarks.figures import median, ratio
from benchmarks.rounds import Measurement

ETCD: Final = "etcd"


@attrs.frozen(slots=True)
class Figures:
    """Medians over the rounds of one cell on one system."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float | None
    client_cpu_us: float | None
    operations: int
    errors: int
    first_error: str

    @classmethod
    def of(cls, measurements: Sequence[Measurement]) -> Figures:
        """Summarize the rounds of one cell; operations and errors are summed."""
        loads = [measurement.load for measurement in measurements]
        client_us = [ratio(load.client_cpu_s * 1e6, load.operations) for load in loads]
        return cls(
            rate=median(load.rate for load in loads) or 0.0,
            p50_ms=median(load.p50_ms for load in loads) or 0.0,
            p99_ms=median(load.p99_ms for load in loads) or 0.0,
            cpu_us=median(measurement.cpu_us for measurement in measurements),
            client_cpu_us=median(client_us),
            operations=sum(load.operations for load in loads),
            errors=sum(load.errors for load in loads),
            first_error=next((load.first_error for load in loads if load.first_error), ""),
        )


@attrs.frozen(slots=True)
class Row:
    """One cell: ours, etcd's, and ours divided by etcd's (None where etcd was not measured).

    ``loop_gap_ms`` is the median over the rounds of the longest gap, ``loop_gap_worst_ms`` the
    longest of all. ``bad_rounds`` are the rounds in which a request failed, on either system.
    """

    client: str
    operation: str
    callers: int
    system: str
    ours: Figures
    etcd: Figures | None
    rate_ratio: float | None
    p50_ratio: float | None
    p99_ratio: float | None
    cpu_ratio: float | None
    loop_gap_ms: float | None
    loop_gap_worst_ms: float | None
    bad_rounds: tuple[int, ...]


def summarize(measurements: Iterable[Measurement]) -> list[Row]:
    """Return a row for each cell and each of our systems, in the order they were measured."""
    cells: dict[tuple[str, str, int], dict[str, list[Measurement]]] = {}
    for one in measurements:
        systems = cells.setdefault((one.client, one.operation, one.callers), {})
        systems.setdefault(one.system, []).append(one)
    return [
        _row(ours, systems.get(ETCD, []))
        for systems in cells.values()
        for name, ours in systems.items()
        if name != ETCD
    ]


def _row(ours: list[Measurement], theirs: list[Measurement]) -> Row:
    first = ours[0]
    other = {measurement.round: measurement for measurement in theirs}
    pairs = [(mine, other[mine.round]) for mine in ours if mine.round in other]

    def ratios(figure: Callable[[Measurement], float | None]) -> float | None:
        return median(ratio(figure(mine), figure(its)) for mine, its in pairs)

    gaps = [one.loop_gap_s * 1000 for one in ours if one.loop_gap_s is not None]
    return Row(
        client=first.client,
        operation=first.operation,
        callers=first.callers,
        system=first.system,
        ours=Figures.of(ours),
        etcd=Figures.of(theirs) if theirs else None,
        rate_ratio=ratios(lambda one: one.load.rate),
        p50_ratio=ratios(lambda one: one.load.p50_ms),
        p99_ratio=ratios(lambda one: one.load.p99_ms),
        cpu_ratio=ratios(lambda one: one.cpu_us),
        loop_gap_ms=median(gaps),
        loop_gap_worst_ms=max(gaps, default=None),
        bad_rounds=tuple(sorted({one.round for one in [*ours, *theirs] if one.load.errors})),
    )


def as_json(
    machine: dict[str, str],
    settings: dict[str, Any],
    measurements: Sequence[Measurement],
    rows: Sequence[Row],
) -> dict[str, Any]:
    """Return everything, for ``--json``: every single measurement, and the rows made of them."""
    return {
        "machine": machine,
        "settings": settings,
        "measurements": [
            {
                **attrs.asdict(one),
                "rate": one.load.rate,
                "cpu_us": one.cpu_us,
            }
            for one in measurements
        ],
        "rows": [attrs.asdict(row) for row in rows],
    }
