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
    G0 = "G0: transactions overwrite each other in a circle"
    G1A = "G1a: a read saw what an aborted transaction wrote"
    G1B = "G1b: a read saw what its writer had not finished"
    G1C = "G1c: transactions depend on each other in a circle"
    G_SINGLE = "G-single: a circle of dependencies with one write that a read missed"
    G2 = "G2: a circle of dependencies with several writes that reads missed"
    INCOMPATIBLE_ORDER = "two reads saw different orders of one list"
    INTERNAL = "a transaction did not see its own writes"
    DUPLICATE_ELEMENT = "one element is there twice"
    LOST_ELEMENT = "acknowledged element is lost"
    WRONG_TOTAL = "the total is not what it must be"
    APPLIED_TWICE = "one command was applied more than once"
    RECEIVED_TWICE = "one item was handed out twice"
    LOST_ITEM = "acknowledged item was never handed out"
    OUT_OF_ORDER = "items were handed out in another order than they were pushed"
    WRONGLY_EMPTY = "nothing was handed out though an item was there"
    WATCH_ORDER = "a watch told events out of order"
    WATCH_DUPLICATE = "a watch told one event twice"
    WATCH_SPLIT = "a watch told one revision in two parts"
    WATCH_GAP = "a watch left out an event"
    WATCH_TOO_OLD = "a watch told an event from before its start"
    WATCH_FILTER = "a watch told an event that it was not asked for"
    WATCH_WRONG_EVENT = "a watch told an event that did not happen so"
    WATCH_PREVIOUS = "a watch told a wrong state before the event"
    WATCH_BOOKMARK = "a watch told a progress that it had not made"
    WATCH_CANCELED = "a watch was ended without a reason"
    LEASE_EARLY = "a lease expired though it was kept alive"
    LEASE_LATE = "a lease outlived its time"
    LEASE_REVIVED = "a lease came back from the dead"
    LEASE_PARTIAL = "the keys of one lease did not go together"
    NOT_THE_HOLDER = "a write by one who did not hold the lock"
    TOKEN_ORDER = "fencing tokens do not grow"
    WRONG_LEADER = "an observer saw another leader than there was"
    WRONG_REFUSAL = "a request was refused without reason"
    REMOVED_SERVES = "a removed member serves"
    GROUP_DISAGREES = "members disagree about who is in the group"
    MEMBER_LOST = "an acknowledged member is not in the group"
    MEMBER_RETURNED = "a removed member is in the group again"
    MEMBER_DEMOTED = "a member that voted became a learner"
    MEMBER_IDENTITY = "one member has two identities"
    UNEXPLAINED_MEMBER = "a member that nobody added"
    WRONGLY_PROMOTED = "a learner that had not caught up was promoted"
    TWO_LEADERS = "two leaders in one term"
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

    def note(self, kind: Kind, text: str, operations: Sequence[int] = ()) -> None:
        """Say why a check could not decide; it is no violation and is not counted."""
        if len(self._kept) < FINDINGS_MAX:
            self._kept.append(Finding(kind, text, tuple(operations)))

    def result(self, checker: str, otherwise: Verdict = Verdict.OK) -> CheckResult:
        """``violated`` if anything was found, else ``otherwise``."""
        verdict = Verdict.VIOLATED if self.counts else otherwise
        return CheckResult(checker, verdict, tuple(self._kept), dict(self.counts))
