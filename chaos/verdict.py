"""What a check says: a verdict, and findings with their evidence.

Four verdicts, never fewer: a check that could not decide is ``unknown``, and a run that proves
nothing (too little load, faults without effect) is ``invalid``; neither is ever taken for ``ok``.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

FINDINGS_MAX: Final = 50
"""Findings kept in full for each kind; beyond that they are only counted."""


class Verdict(enum.Enum):
    """The answer of a check or of a whole run."""

    OK = "ok"
    VIOLATED = "violated"
    UNKNOWN = "unknown"
    INVALID = "invalid"


_GRAVITY: Final = (Verdict.VIOLATED, Verdict.INVALID, Verdict.UNKNOWN, Verdict.OK)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the gravest of several verdicts; a violation outweighs everything."""
    return min(verdicts, key=_GRAVITY.index, default=Verdict.OK)


class Kind(enum.Enum):
    """Names of what can be wrong. The value appears in reports and in ``expectations``."""

    STALE_READ = "stale read"
    WRONG_READ = "read does not match its revision"
    READ_OF_NOTHING = "read of a value that nobody wrote"
    REVISION_NOT_INCREASING = "write revision does not increase"
    DUPLICATE_REVISION = "one revision, two writes"
    MOVED_WRITE = "acknowledged write stands at another revision"
    LOST_WRITE = "acknowledged write is lost"
    FAILED_WRITE_APPLIED = "write reported as failed was applied"
    CAS_WRONGLY_APPLIED = "compare-and-set applied though the comparison was false"
    CAS_WRONGLY_REFUSED = "compare-and-set refused though the comparison was true"
    REVISION_GAP = "revisions are missing"
    UNEXPLAINED_EVENT = "event of a write that nobody made"
    MEMBERS_DISAGREE = "members hold different histories"
    NOT_LINEARIZABLE = "no order explains the results"
    NOT_RECOVERED = "the cluster does not serve after the faults were healed"
    UNDECIDED = "the check could not decide"
    TOO_LITTLE_LOAD = "too little load to mean anything"
    FAULT_WITHOUT_EFFECT = "a fault had no visible effect"
    BROKEN_HISTORY = "the history itself is not well formed"


@attrs.frozen(slots=True)
class Finding:
    """One thing that is wrong, for a person, and the operations that show it (by id)."""

    kind: Kind
    text: str
    operations: tuple[int, ...] = ()
    revision: int | None = None


@attrs.frozen(slots=True)
class CheckResult:
    """What one checker found: ``counts`` has every finding, ``findings`` the first of each kind."""

    checker: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    counts: dict[Kind, int] = attrs.field(factory=dict)


class Findings:
    """Collects findings within bounds."""

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self._kept: list[Finding] = []

    def add(
        self, kind: Kind, text: str, operations: Sequence[int] = (), revision: int | None = None
    ) -> None:
        """Count a finding, and keep it if its kind has fewer than ``FINDINGS_MAX``."""
        self.counts[kind] += 1
        if self.counts[kind] <= FINDINGS_MAX:
            self._kept.append(Finding(kind, text, tuple(operations), revision))

    def result(self, checker: str, otherwise: Verdict = Verdict.OK) -> CheckResult:
        """``violated`` if anything was found, else ``otherwise``."""
        verdict = Verdict.VIOLATED if self.counts else otherwise
        return CheckResult(checker, verdict, tuple(self._kept), dict(self.counts))
