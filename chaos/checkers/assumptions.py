"""Did the run mean anything? What must hold before a verdict of ``ok`` is worth something.

The history is well formed (one operation at a time for each process, none after an unknown one,
every written value unique), there was enough load, and every fault had an effect that was seen.
What fails here makes a run ``invalid``; it is never a pass.
"""

from __future__ import annotations

from typing import Final

import attrs

from chaos.history.format import History, Outcome
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "assumptions"
HEAL: Final = "heal"
"""The kind of the fault event that says whether the cluster served again after the faults."""

NS: Final = 1_000_000_000


@attrs.frozen(slots=True)
class LoadFloor:
    """Below any of these a run proves nothing."""

    ok_per_s: float = 10.0
    writes: int = 10
    reads: int = 10


def check_assumptions(history: History, floor: LoadFloor) -> CheckResult:
    """Return ``ok`` or ``invalid``, with what is missing."""
    findings = Findings()
    _check_well_formed(history, findings)
    _check_load(history, floor, findings)
    for fault in history.faults:
        if fault.phase == "effect" and not fault.effective:
            findings.add(
                Kind.FAULT_WITHOUT_EFFECT,
                f"{fault.kind} of {', '.join(fault.target)}: {fault.evidence or 'nothing seen'}",
            )
    wanted = history.header.get("faults_expected", False)
    if wanted and not any(fault.phase == "start" for fault in history.faults):
        findings.add(Kind.FAULT_WITHOUT_EFFECT, "the run ended before any fault began")
    result = findings.result(CHECKER)
    if result.verdict is Verdict.VIOLATED:
        return attrs.evolve(result, verdict=Verdict.INVALID)
    return result


def check_recovery(history: History) -> CheckResult:
    """Did every member serve again after the faults were healed, and did the clients get on?"""
    findings = Findings()
    healed = max((fault.t for fault in history.faults if fault.kind == HEAL), default=None)
    if healed is not None and not any(
        operation.start > healed and operation.outcome is Outcome.OK
        for operation in history.operations
    ):
        findings.add(
            Kind.NOT_RECOVERED, "no operation that began after the faults were healed succeeded"
        )
    for fault in history.faults:
        if fault.kind == HEAL and not fault.effective:
            findings.add(Kind.NOT_RECOVERED, f"{', '.join(fault.target)}: {fault.evidence}")
    return findings.result("recovery")


def _check_well_formed(history: History, findings: Findings) -> None:
    last_end: dict[int, int | None] = {}
    written: set[str] = set()
    for operation in sorted(history.operations, key=lambda operation: operation.start):
        previous_end = last_end.get(operation.process, -1)
        if previous_end is None or previous_end > operation.start:
            findings.add(
                Kind.BROKEN_HISTORY,
                f"process {operation.process} had two operations at once, or one after an unknown",
                (operation.id,),
            )
        last_end[operation.process] = operation.end
        if operation.value is not None:
            if operation.value in written:
                findings.add(
                    Kind.BROKEN_HISTORY,
                    f"the value {operation.value!r} is written twice",
                    (operation.id,),
                )
            written.add(operation.value)


def _check_load(history: History, floor: LoadFloor, findings: Findings) -> None:
    known = [op for op in history.operations if op.outcome is Outcome.OK]
    writes = sum(op.may_write and (op.f != "cas" or op.applied) for op in known)
    reads = sum(not op.may_write for op in known)
    seconds = 0.0
    if known:
        began = min(op.start for op in history.operations)
        ended = max(op.end or op.start for op in history.operations)
        seconds = (ended - began) / NS
    rate = len(known) / seconds if seconds > 0 else 0.0
    if writes < floor.writes or reads < floor.reads:
        findings.add(
            Kind.TOO_LITTLE_LOAD,
            f"{writes} writes and {reads} reads were answered; at least {floor.writes} and "
            f"{floor.reads} are needed",
        )
    elif rate < floor.ok_per_s:
        findings.add(
            Kind.TOO_LITTLE_LOAD,
            f"{rate:.1f} operations a second were answered; at least {floor.ok_per_s:g} are needed",
        )
