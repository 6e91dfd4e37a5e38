"""Is out who was removed, and do those who are left agree on who is in?

After everything was mended each removed member is started once more on the data that it had, and
must not serve; and each member is asked who is in the group. Both are in the history as events of
the kinds below, ``effective`` if all was well.
"""

from __future__ import annotations

from typing import Final

from chaos.history.format import History
from chaos.verdict import CheckResult, Findings, Kind

REMOVED: Final = "member.removed"
"""Kind of the event that tells what became of one removed member."""

LISTED: Final = "member.listed"
"""Kind of the event that tells whom one member takes for the group."""

_WRONG: Final = {REMOVED: Kind.REMOVED_SERVES, LISTED: Kind.GROUP_DISAGREES}


def was_looked_at(history: History) -> bool:
    """Whether members were removed, so that everyone's membership was looked at."""
    return any(event.kind in _WRONG for event in history.faults)


def check_membership(history: History) -> CheckResult:
    """Return what the last look at everyone's membership found."""
    findings = Findings()
    for event in history.faults:
        kind = _WRONG.get(event.kind)
        if kind is not None and event.phase == "end" and not event.effective:
            findings.add(kind, f"{', '.join(event.target)}: {event.evidence}")
    return findings.result("membership")
