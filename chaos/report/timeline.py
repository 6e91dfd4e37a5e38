"""What the page draws over time: lanes of clients and members, faults as bands, load and latency.

Everything is bounded, so that a page stays readable and small however long the run was: at most
``OPERATIONS_SHOWN_MAX`` operations (those around the first violation always, of the rest every
n-th), ``LANES_MAX`` lanes of clients, ``BUCKETS_MAX`` points of each curve. The curves count every
operation. Times are microseconds since the first line of the history that has one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from chaos.history.format import FaultEvent, History, Operation, Outcome, StatusEvent
from chaos.report.wording import describe

OPERATIONS_SHOWN_MAX: Final = 50_000
LANES_MAX: Final = 64
BUCKETS_MAX: Final = 240
BUCKET_MIN_US: Final = 100_000
FAULTS_SHOWN_MAX: Final = 500
STATUSES_SHOWN_MAX: Final = 5_000
UNKNOWN_DRAWN_US: Final = 1_000_000
"""An operation that never ended is drawn so long, or until its lane's next one."""

OPEN: Final = 1 << 60
"""When a fault ends that has not ended yet."""

OUTCOMES: Final = (Outcome.OK, Outcome.FAIL, Outcome.UNKNOWN)


@attrs.frozen(slots=True)
class Window:
    """A stretch of a run, in the history's own nanoseconds."""

    begin: int
    end: int


def whole(history: History) -> Window:
    """The stretch from the first to the last thing that happened."""
    times = [operation.start for operation in history.operations]
    times += [operation.end for operation in history.operations if operation.end is not None]
    times += [fault.t for fault in history.faults]
    times += [status.t for status in history.statuses]
    return Window(min(times, default=0), max(times, default=0))


def timeline(history: History, focus: Window | None) -> dict[str, Any]:
    """Everything that the page's script draws, as plain values.

    Args:
        history: the run.
        focus: the stretch of the first violation, whose operations are always shown.
    """
    run = whole(history)
    operations = sorted(history.operations, key=lambda operation: operation.start)
    lanes = assign_lanes(operations)
    shown = choose_shown([op for op in operations if lanes[op.process] < LANES_MAX], focus)
    return {
        "length": _us(run.end - run.begin),
        "focus": None
        if focus is None
        else [_us(focus.begin - run.begin), _us(focus.end - run.begin)],
        "lanes": min(LANES_MAX, 1 + max(lanes.values(), default=-1)),
        "operations": _columns(shown, lanes, run.begin),
        "operations_in_all": len(operations),
        "operations_shown": len(shown),
        "curves": curves(operations, run),
        "faults": fault_bands(history.faults[: 3 * FAULTS_SHOWN_MAX], run)[:FAULTS_SHOWN_MAX],
        "members": role_spans(history.statuses[:STATUSES_SHOWN_MAX], run),
    }


def _us(ns: int) -> int:
    return ns // 1000


def assign_lanes(operations: Sequence[Operation]) -> dict[int, int]:
    """Give each process a lane; one that has ended leaves its lane to the next."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for operation in operations:
        first.setdefault(operation.process, operation.start)
        end = operation.end if operation.end is not None else operation.start
        last[operation.process] = max(end, last.get(operation.process, 0))
    lanes: dict[int, int] = {}
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    for process in sorted(first, key=lambda process: (first[process], process)):
        while busy and busy[0][0] < first[process]:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        lanes[process] = lane
        heapq.heappush(busy, (last[process], lane))
    return lanes


def choose_shown(operations: Sequence[Operation], focus: Window | None) -> list[Operation]:
    """Keep at most ``OPERATIONS_SHOWN_MAX``: those in ``focus`` first, then every n-th."""
    if len(operations) <= OPERATIONS_SHOWN_MAX:
        return list(operations)
    inside = [op for op in operations if focus and focus.begin <= op.start <= focus.end]
    inside = inside[:OPERATIONS_SHOWN_MAX]
    room = OPERATIONS_SHOWN_MAX - len(inside)
    kept = {operation.id for operation in inside}
    others = [operation for operation in operations if operation.id not in kept]
    step = -(-len(others) // room) if room else len(others) + 1
    kept.update(operation.id for operation in others[::step][:room])
    return [operation for operation in operations if operation.id in kept]


def _columns(
    operations: Sequence[Operation], lanes: Mapping[int, int], begin: int
) -> dict[str, Any]:
    """One list for each field: a third of the size of one object for each operation."""
    kinds = sorted({operation.f for operation in operations})
    place = {kind: number for number, kind in enumerate(kinds)}
    next_start: dict[int, int] = {}
    ends = []
    for operation in reversed(operations):
        lane = lanes[operation.process]
        if operation.end is not None:
            end = operation.end
        else:
            limit = operation.start + 1000 * UNKNOWN_DRAWN_US
            end = min(limit, next_start.get(lane, limit))
        next_start[lane] = operation.start
        ends.append(_us(end - begin))
    return {
        "kinds": kinds,
        "id": [operation.id for operation in operations],
        "lane": [lanes[operation.process] for operation in operations],
        "start": [_us(operation.start - begin) for operation in operations],
        "end": ends[::-1],
        "outcome": [OUTCOMES.index(operation.outcome) for operation in operations],
        "kind": [place[operation.f] for operation in operations],
        "text": [describe(operation) for operation in operations],
    }


def curves(operations: Iterable[Operation], run: Window) -> dict[str, Any]:
    """Completions a second by outcome, and latency (median, 99th percentile, worst) in ms."""
    length = _us(run.end - run.begin) + 1
    width = max(BUCKET_MIN_US, -(-length // BUCKETS_MAX))
    number = -(-length // width)
    counts = [[0] * number for _ in OUTCOMES]
    latencies: list[list[float]] = [[] for _ in range(number)]
    for operation in operations:
        at = operation.start if operation.end is None else operation.end
        bucket = _us(at - run.begin) // width
        counts[OUTCOMES.index(operation.outcome)][bucket] += 1
        if operation.outcome is Outcome.OK and operation.end is not None:
            latencies[bucket].append((operation.end - operation.start) / 1e6)
    per_second = 1e6 / width
    for values in latencies:
        values.sort()

    def quantile(share: float) -> list[float | None]:
        return [
            round(values[min(len(values) - 1, int(share * len(values)))], 3) if values else None
            for values in latencies
        ]

    return {
        "width": width,
        "per_second": [[round(count * per_second, 1) for count in row] for row in counts],
        "median": quantile(0.5),
        "p99": quantile(0.99),
        "worst": quantile(1.0),
    }


def fault_bands(faults: Iterable[FaultEvent], run: Window) -> list[dict[str, Any]]:
    """Each fault from its start to its end, in a row of its own where several overlap."""
    open_bands: dict[tuple[str, tuple[str, ...], int], dict[str, Any]] = {}
    bands: list[dict[str, Any]] = []
    rows: list[int] = []
    for fault in sorted(faults, key=lambda fault: fault.t):
        key = fault.kind, fault.target, fault.number
        at = _us(fault.t - run.begin)
        if fault.phase == "start":
            row = next((number for number, end in enumerate(rows) if end <= at), len(rows))
            rows[row:] = [OPEN, *rows[row + 1 :]]
            band: dict[str, Any] = {
                "kind": fault.kind,
                "target": ", ".join(fault.target),
                "start": at,
                "end": _us(run.end - run.begin),
                "row": row,
                "evidence": fault.evidence,
                "effective": True,
            }
            open_bands[key] = band
            bands.append(band)
        elif fault.phase == "effect" and key in open_bands:
            open_bands[key].update(evidence=fault.evidence, effective=fault.effective)
        elif fault.phase == "end" and key in open_bands:
            band = open_bands.pop(key)
            band["end"] = at
            rows[band["row"]] = at
    return bands


def role_spans(statuses: Iterable[StatusEvent], run: Window) -> list[dict[str, Any]]:
    """Each member's roles, one span after the other to the end of the run."""
    spans: dict[str, list[list[Any]]] = {}
    end = _us(run.end - run.begin)
    for status in statuses:
        own = spans.setdefault(status.member, [])
        at = _us(status.t - run.begin)
        if own:
            own[-1][1] = at
        own.append([at, end, status.role, status.term])
    return [{"name": member, "spans": own} for member, own in sorted(spans.items())]
