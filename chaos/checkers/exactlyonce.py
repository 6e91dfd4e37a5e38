"""Exactly once: a counter that only ever has 1 added gives each addition a number of its own.

So the answers order the additions, and there is no need to search:

1. No two acknowledged additions have the same number.
2. Real time: what ended before another began has the smaller number; a read's number is at least
   that of every addition (or read) that ended before it began, and below that of every addition
   that began after it had ended.
3. Every number up to the greatest belongs to somebody: to an acknowledged addition, or to one of
   unknown outcome that had begun before the next number was given out. One that belongs to nobody
   is an addition that was applied twice.

An acknowledged ``add`` has the number in ``output``, a ``read`` the count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chaos.history.format import History, Operation, Outcome
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "exactly-once"


def check_exactly_once(history: History) -> CheckResult:
    """See the module; ``unknown`` if nobody read the count after the additions."""
    findings = Findings()
    known = [op for op in history.operations if op.outcome is Outcome.OK]
    adds = [op for op in known if op.f == "add"]
    reads = [op for op in known if op.f == "read"]
    owners: dict[int, Operation] = {}
    for operation in adds:
        if operation.output < 1:
            findings.add(
                Kind.WRONG_READ,
                f"addition {operation.id} was told {operation.output}, less than it added",
                (operation.id,),
            )
        other = owners.setdefault(operation.output, operation)
        if other is not operation:
            findings.add(
                Kind.LOST_WRITE,
                f"additions {other.id} and {operation.id} were both told {operation.output}",
                (other.id, operation.id),
            )
    _check_real_time(adds, reads, findings)
    unknown = [op for op in history.operations if op.f == "add" and op.outcome is Outcome.UNKNOWN]
    _check_numbers(owners, reads, unknown, findings)
    return findings.result(CHECKER, Verdict.OK if reads else Verdict.UNKNOWN)


def _check_real_time(
    adds: Sequence[Operation], reads: Sequence[Operation], findings: Findings
) -> None:
    """Sweep by time: nobody gets less than what had been told when it began."""
    everything = [*adds, *reads]
    ended = sorted(everything, key=lambda op: op.end or op.start)
    place, highest = 0, None
    for operation in sorted(everything, key=lambda op: op.start):
        while place < len(ended) and (ended[place].end or 0) < operation.start:
            if highest is None or ended[place].output > highest.output:
                highest = ended[place]
            place += 1
        if highest is None:
            continue
        least = highest.output + (operation.f == "add")
        if operation.output < least:
            kind = Kind.STALE_READ if operation.f == "read" else Kind.LOST_WRITE
            findings.add(
                kind,
                f"{highest.f} {highest.id} had been told {highest.output} before "
                f"{operation.f} {operation.id} of {operation.node} began, which was told "
                f"{operation.output}",
                (highest.id, operation.id),
            )


def _check_numbers(
    owners: dict[int, Operation],
    reads: Sequence[Operation],
    unknown: Sequence[Operation],
    findings: Findings,
) -> None:
    """Give each number without an owner to an unknown addition that had begun in time."""
    told = [*owners.values(), *reads]
    top = max((op.output for op in told), default=0)
    by_number = sorted(told, key=lambda op: -op.output)
    deadlines: list[tuple[int, int, Operation]] = []  # (taken before, number, witness)
    place, earliest = 0, None
    for number in range(top, 0, -1):
        # Whoever was told this number or a greater one had ended after this number was given out.
        while place < len(by_number) and by_number[place].output >= number:
            witness = by_number[place]
            if earliest is None or (witness.end or 0) < (earliest.end or 0):
                earliest = witness
            place += 1
        if number not in owners and earliest is not None:
            deadlines.append((earliest.end or 0, number, earliest))
    deadlines.sort(key=lambda entry: entry[:2])
    begun = sorted(op.start for op in unknown)
    used = 0
    for before, number, witness in deadlines:
        if used < len(begun) and begun[used] <= before:
            used += 1
            continue
        findings.add(
            Kind.APPLIED_TWICE,
            f"the sum {number} was given to nobody, and {witness.f} {witness.id} was told "
            f"{witness.output}: some addition was applied more than once",
            (witness.id,),
        )
