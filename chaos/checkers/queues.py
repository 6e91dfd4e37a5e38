"""Queues: every item is handed out once, in the order of the pushes.

``push`` has its item in ``input`` and in ``output`` the ``id`` that the queue gave it; ``pop`` has
in ``output`` ``{"id", "item"}``, or null when the queue said that it was empty. Nothing comes back
to the queue. At the end the run pops until the queue is empty.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

from chaos.history.format import History, Operation, Outcome
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "queue"


def check_queue(history: History) -> CheckResult:
    """See the module; ``unknown`` if the queue was not emptied at the end."""
    findings = Findings()
    pushes = [op for op in history.operations if op.f == "push"]
    pops = [op for op in history.operations if op.f == "pop" and op.outcome is Outcome.OK]
    taken = _check_items(pushes, pops, findings)
    _check_order([op for op in pushes if op.outcome is Outcome.OK], "pushed", findings)
    _check_order([op for op in pops if op.output is not None], "popped", findings)
    _check_empty(pushes, pops, taken, findings)
    drained = _check_lost(history, pushes, pops, taken, findings)
    return findings.result(CHECKER, Verdict.OK if drained else Verdict.UNKNOWN)


def _check_items(
    pushes: Sequence[Operation], pops: Sequence[Operation], findings: Findings
) -> dict[Any, Operation]:
    """Who took each item; each is somebody's and was taken once."""
    pushed = {op.input: op for op in pushes}
    taken: dict[Any, Operation] = {}
    for pop in pops:
        if pop.output is None:
            continue
        item = pop.output["item"]
        push = pushed.get(item)
        if push is None:
            findings.add(
                Kind.READ_OF_NOTHING, f"pop {pop.id} took {item!r}, which nobody pushed", (pop.id,)
            )
        elif push.outcome is Outcome.FAIL:
            findings.add(
                Kind.FAILED_WRITE_APPLIED,
                f"push {push.id} of {item!r} was reported as failed, and pop {pop.id} took it",
                (push.id, pop.id),
            )
        first = taken.setdefault(item, pop)
        if first is not pop:
            findings.add(
                Kind.RECEIVED_TWICE,
                f"pops {first.id} and {pop.id} both took {item!r}",
                (first.id, pop.id),
            )
    return taken


def _number(operation: Operation) -> int:
    return int(operation.output["id"])


def _check_order(operations: Sequence[Operation], word: str, findings: Findings) -> None:
    """What ended before another began has the smaller id."""
    ended = sorted(operations, key=lambda op: op.end or op.start)
    place, highest = 0, None
    for operation in sorted(operations, key=lambda op: op.start):
        while place < len(ended) and (ended[place].end or 0) < operation.start:
            if highest is None or _number(ended[place]) > _number(highest):
                highest = ended[place]
            place += 1
        if highest is not None and _number(operation) < _number(highest):
            findings.add(
                Kind.OUT_OF_ORDER,
                f"item {_number(highest)} was {word} by operation {highest.id} before operation "
                f"{operation.id} began, which {word} item {_number(operation)}",
                (highest.id, operation.id),
            )


def _check_empty(
    pushes: Sequence[Operation],
    pops: Sequence[Operation],
    taken: dict[Any, Operation],
    findings: Findings,
) -> None:
    """A pop that found nothing, while an acknowledged item was surely there."""
    resting: list[tuple[int, int, Operation]] = []  # (pushed by, taken not before, push)
    for push in pushes:
        pop = taken.get(push.input)
        if push.outcome is Outcome.OK and pop is not None:
            resting.append((push.end or 0, pop.start, push))
    resting.sort(key=lambda entry: entry[:2])
    ends = [entry[0] for entry in resting]
    latest: list[tuple[int, int, Operation]] = []  # the one that rested longest so far
    for entry in resting:
        latest.append(entry if not latest or entry[1] > latest[-1][1] else latest[-1])
    for pop in pops:
        if pop.output is not None:
            continue
        place = bisect_left(ends, pop.start) - 1
        if place >= 0 and latest[place][1] > (pop.end or 0):
            push = latest[place][2]
            findings.add(
                Kind.WRONGLY_EMPTY,
                f"pop {pop.id} of {pop.node} was told that the queue is empty, while "
                f"{push.input!r} of push {push.id} was in it",
                (push.id, pop.id),
            )


def _check_lost(
    history: History,
    pushes: Sequence[Operation],
    pops: Sequence[Operation],
    taken: dict[Any, Operation],
    findings: Findings,
) -> bool:
    """Count what was never handed out; pops of unknown outcome may each have taken one.

    Returns False if the queue was not seen to be empty after the last push.
    """
    last_push = max((op.end or op.start for op in pushes), default=0)
    if not any(pop.output is None and pop.start > last_push for pop in pops):
        findings.note(Kind.UNDECIDED, "the queue was not emptied after the last push")
        return False
    missing = [op for op in pushes if op.outcome is Outcome.OK and op.input not in taken]
    excused = sum(op.f == "pop" and op.outcome is Outcome.UNKNOWN for op in history.operations)
    for push in missing[: max(0, len(missing) - excused)]:
        findings.add(
            Kind.LOST_ITEM,
            f"{push.input!r} of push {push.id} was acknowledged and never handed out "
            f"({len(missing)} such items, {excused} pops of unknown outcome)",
            (push.id,),
        )
    return True
