"""The first violation of a run, and the few operations that show it.

Of all findings of the checks that were violated, the first is the one whose evidence was complete
first: what was wrong later may only follow from it. It is explained with as little as possible: the
operations that the checker names, the writes of what they saw, and what each member tells about the
revisions around.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from chaos.checkers.pipeline import Report
from chaos.history.format import History, Operation, WatchEvent
from chaos.report.timeline import Window
from chaos.verdict import Finding, Verdict

OPERATIONS_EXPLAINED_MAX: Final = 12
REVISIONS_AROUND: Final = 2
"""Events told before and after the revision in question."""

MARGIN_NS: Final = 50_000_000


@attrs.frozen(slots=True)
class MemberRow:
    """What the members tell about one revision: an event for each, "" where there is none."""

    revision: int
    events: tuple[str, ...]
    differs: bool


@attrs.frozen(slots=True)
class Explanation:
    """One finding, and what is needed to see it.

    Args:
        checker: who found it.
        finding: what it says.
        operations: the evidence, by start.
        accused: ids of the operations that the finding names; the others are context.
        members: names, for the columns of ``rows``.
        rows: what each member tells about the revisions around.
        window: the stretch of time that shows all of it; None if no operation is named.
    """

    checker: str
    finding: Finding
    operations: tuple[Operation, ...]
    accused: frozenset[int]
    members: tuple[str, ...]
    rows: tuple[MemberRow, ...]
    window: Window | None


def first_violation(history: History, report: Report) -> Explanation | None:
    """Find and explain the violation whose evidence was complete first; None if there is none."""
    by_id = {operation.id: operation for operation in history.operations}
    at_revision = _by_revision(history.operations)
    violated = [
        (_complete_at(finding, by_id, at_revision), number, result.checker, finding)
        for result in report.results
        if result.verdict is Verdict.VIOLATED
        for number, finding in enumerate(result.findings)
    ]
    if not violated:
        return None
    _, _, checker, finding = min(violated, key=lambda entry: entry[:3])
    return explain(history, checker, finding)


def explain(history: History, checker: str, finding: Finding) -> Explanation:
    """Gather what one finding needs."""
    by_id = {operation.id: operation for operation in history.operations}
    named = [by_id[number] for number in finding.operations if number in by_id]
    if not named and finding.revision is not None:
        writer = _by_revision(history.operations).get(finding.revision)
        named = [writer] if writer is not None else []
    named = named[:OPERATIONS_EXPLAINED_MAX]
    context = _context(history.operations, named, finding.revision)
    chosen = {operation.id: operation for operation in (*named, *context)}
    operations = sorted(
        list(chosen.values())[:OPERATIONS_EXPLAINED_MAX], key=lambda operation: operation.start
    )
    members, rows = _member_rows(history, finding.revision)
    return Explanation(
        checker,
        finding,
        tuple(operations),
        frozenset(operation.id for operation in named),
        members,
        rows,
        _window(operations),
    )


def _complete_at(
    finding: Finding, by_id: dict[int, Operation], at_revision: dict[int, Operation]
) -> float:
    moments = [_last_moment(by_id[number]) for number in finding.operations if number in by_id]
    if not moments and finding.revision in at_revision:
        moments = [_last_moment(at_revision[finding.revision])]
    return max(moments, default=float("inf"))


def _last_moment(operation: Operation) -> int:
    return operation.start if operation.end is None else operation.end


def _by_revision(operations: Iterable[Operation]) -> dict[int, Operation]:
    """The acknowledged write of each revision."""
    return {op.revision: op for op in operations if op.wrote and op.revision}


def _context(
    operations: Iterable[Operation], named: Sequence[Operation], revision: int | None
) -> list[Operation]:
    """The writes of what was seen, and the write at the revision in question."""
    keys = {operation.key for operation in named}
    seen = {operation.seen for operation in named if operation.seen is not None}
    expected = {operation.expected for operation in named if operation.expected}
    last_writes: dict[str, Operation] = {}
    chosen = []
    for operation in operations:
        if operation.key not in keys or not operation.may_write:
            continue
        if operation.value in seen:
            chosen.append(operation)
        elif operation.wrote and operation.revision:
            if operation.revision in expected or operation.revision == revision:
                chosen.append(operation)
            last = last_writes.get(operation.key)
            newer = last is None or last.revision < operation.revision
            if revision is not None and operation.revision <= revision and newer:
                last_writes[operation.key] = operation
    return chosen + list(last_writes.values())


def _member_rows(
    history: History, revision: int | None
) -> tuple[tuple[str, ...], tuple[MemberRow, ...]]:
    if revision is None or not history.watches:
        return (), ()
    members = tuple(sorted(history.watches))
    told = [_events_around(history.watches[member], revision) for member in members]
    rows = []
    for number in sorted({number for events in told for number in events}):
        events = tuple(own.get(number, "") for own in told)
        rows.append(MemberRow(number, events, len(set(events)) > 1))
    return members, tuple(rows)


def _events_around(events: Sequence[WatchEvent], revision: int) -> dict[int, str]:
    low, high = revision - REVISIONS_AROUND, revision + REVISIONS_AROUND
    found: dict[int, list[str]] = {}
    for event in events:
        if low <= event.revision <= high:
            text = f"{event.key}={event.value}" if event.value is not None else f"-{event.key}"
            found.setdefault(event.revision, []).append(text)
    return {number: ", ".join(texts) for number, texts in found.items()}


def _window(operations: Sequence[Operation]) -> Window | None:
    if not operations:
        return None
    begin = min(operation.start for operation in operations)
    end = max(_last_moment(operation) for operation in operations)
    margin = max(MARGIN_NS, (end - begin) // 4)
    return Window(begin - margin, end + margin)
