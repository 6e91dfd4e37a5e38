"""All checks of one history, in order; the first failure does not hide the others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

from chaos.checkers.assumptions import LoadFloor, check_assumptions, check_recovery
from chaos.checkers.membership import check_membership, was_looked_at
from chaos.history.format import History
from chaos.verdict import CheckResult, Finding, Kind, Verdict, worst
from chaos.workloads.register import RegisterWorkload
from chaos.workloads.registry import find_workload


@attrs.frozen(slots=True)
class Report:
    """What all checkers said about one history."""

    verdict: Verdict
    results: tuple[CheckResult, ...]

    @property
    def counts(self) -> Counter[Kind]:
        """How often each kind was found, over all checkers."""
        total: Counter[Kind] = Counter()
        for result in self.results:
            total.update(result.counts)
        return total

    @property
    def findings(self) -> list[Finding]:
        """The findings that were kept, in the order of the checkers."""
        return [finding for result in self.results for finding in result.findings]

    @property
    def lost_writes(self) -> int:
        """Acknowledged writes that at least one member does not have."""
        return self.counts[Kind.LOST_WRITE]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "verdict": self.verdict.value,
            "lost_writes": self.lost_writes,
            "checks": {result.checker: result.verdict.value for result in self.results},
            "counts": {kind.value: count for kind, count in self.counts.items()},
            "findings": [
                {
                    "kind": finding.kind.value,
                    "text": finding.text,
                    "operations": list(finding.operations),
                    "revision": finding.revision,
                }
                for finding in self.findings
            ],
        }


def check_history(history: History, floor: LoadFloor | None = None) -> Report:
    """Run every check on a history: assumptions, recovery, members that went, its workload's own.

    Args:
        history: as read from its file.
        floor: load below which the run is invalid; by default what the header says.

    Raises:
        WorkloadFailed: the header names a workload that cannot be found.
    """
    workload = find_workload(history.header.get("workload", RegisterWorkload.name))
    if floor is None:
        told = history.header.get("floor")
        floor = LoadFloor(**told) if told is not None else workload.floor
    results = (
        check_assumptions(history, floor),
        check_recovery(history),
        *((check_membership(history),) if was_looked_at(history) else ()),
        *(check(history) for check in workload.checks()),
    )
    return Report(worst(result.verdict for result in results), results)
