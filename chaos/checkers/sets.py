"""Sets: every acknowledged element is there in every later read, once.

Jepsen calls it set-full. An element is *known* from the moment at which its ``add`` was
acknowledged, or a read that saw it had ended. Every read that begins later must have it: one that
has not, with a later one that has, is stale; if none after it has, the element is lost. An element
that no read could have seen is counted as never read, and leaves the verdict open.

``add`` has its element in ``input``; ``read`` has in ``output`` the list of what it saw.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import Any, Final

from chaos.history.format import History, Operation, Outcome
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "set"

Element = Any


def check_set(history: History) -> CheckResult:
    """See the module; ``unknown`` if an acknowledged element was never read."""
    findings = Findings()
    adds = {op.input: op for op in history.operations if op.f == "add"}
    reads = sorted(
        (op for op in history.operations if op.f == "read" and op.outcome is Outcome.OK),
        key=lambda op: op.start,
    )
    known, seen_by = _what_is_known(adds, reads, findings)
    starts = [read.start for read in reads]
    held = [frozenset(read.output) for read in reads]
    never_read = 0
    for element, since in sorted(known.items(), key=lambda item: item[1][0]):
        later = bisect_right(starts, since[0])
        if later == len(reads):
            never_read += element not in seen_by
            continue
        missing = [place for place in range(later, len(reads)) if element not in held[place]]
        if missing:
            _missed(element, since[1], missing, reads, held, findings)
    if never_read and not findings.counts:
        findings.note(
            Kind.UNDECIDED, f"{never_read} acknowledged elements were read by nobody afterwards"
        )
        return findings.result(CHECKER, Verdict.UNKNOWN)
    return findings.result(CHECKER, Verdict.OK if reads else Verdict.UNKNOWN)


def _what_is_known(
    adds: dict[Element, Operation], reads: list[Operation], findings: Findings
) -> tuple[dict[Element, tuple[int, Operation]], dict[Element, Operation]]:
    """From when each element is known, and by what; and the first read that saw each."""
    known: dict[Element, tuple[int, Operation]] = {
        element: (op.end or op.start, op)
        for element, op in adds.items()
        if op.outcome is Outcome.OK
    }
    seen_by: dict[Element, Operation] = {}
    for read in reads:
        for element, count in Counter(read.output).items():
            if count > 1:
                findings.add(
                    Kind.DUPLICATE_ELEMENT,
                    f"read {read.id} has {element!r} {count} times",
                    (read.id,),
                )
            end = read.end or read.start
            if element not in known or end < known[element][0]:
                known[element] = end, read
            if element in seen_by:
                continue
            seen_by[element] = read
            add = adds.get(element)
            if add is None:
                findings.add(
                    Kind.READ_OF_NOTHING,
                    f"read {read.id} has {element!r}, which nobody added",
                    (read.id,),
                )
            elif add.outcome is Outcome.FAIL:
                findings.add(
                    Kind.FAILED_WRITE_APPLIED,
                    f"{element!r} was reported as not added, and read {read.id} has it",
                    (add.id, read.id),
                )
    return known, seen_by


def _missed(
    element: Element,
    witness: Operation,
    missing: list[int],
    reads: list[Operation],
    held: list[frozenset[Element]],
    findings: Findings,
) -> None:
    first = reads[missing[0]]
    again = next((p for p in range(missing[-1] + 1, len(reads)) if element in held[p]), None)
    how = "acknowledged" if witness.f == "add" else "read"
    text = f"{element!r} was {how} by operation {witness.id} before read {first.id} of {first.node}"
    if again is None:
        findings.add(
            Kind.LOST_ELEMENT,
            f"{text} began, which has it not, nor has any read from {reads[missing[-1]].id} on",
            (witness.id, first.id),
        )
    else:
        findings.add(
            Kind.STALE_READ,
            f"{text} began, which has it not; read {reads[again].id} has it again",
            (witness.id, first.id, reads[again].id),
        )
