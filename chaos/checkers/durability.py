"""Is every acknowledged write still there, and do all members tell the same history?

Both compare with what each member tells about every revision from the first, after the run, over a
connection that no fault touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chaos.history.format import Operation, WatchEvent
from chaos.verdict import CheckResult, Findings, Kind, Verdict


def check_durability(
    operations: Sequence[Operation], logs: Mapping[str, Sequence[WatchEvent]]
) -> CheckResult:
    """Look for each acknowledged write in every member's log; count each lost write once.

    ``unknown`` if no member told its log.
    """
    findings = Findings()
    held = {member: {(e.key, e.value) for e in log} for member, log in logs.items()}
    for operation in operations:
        if not operation.wrote:
            continue
        without = [
            member
            for member, pairs in sorted(held.items())
            if (operation.key, operation.value) not in pairs
        ]
        if without:
            where = "every member" if len(without) == len(held) else ", ".join(without)
            findings.add(
                Kind.LOST_WRITE,
                f"{operation.f} {operation.key}={operation.value!r}, acknowledged by "
                f"{operation.node or 'a member'} at revision {operation.revision}, is missing on "
                f"{where}",
                (operation.id,),
                operation.revision,
            )
    return findings.result("durability", Verdict.OK if logs else Verdict.UNKNOWN)


def check_convergence(
    operations: Sequence[Operation], logs: Mapping[str, Sequence[WatchEvent]]
) -> CheckResult:
    """Compare the members' logs, and each event with what was ever sent.

    ``unknown`` if fewer than two members told their logs.
    """
    findings = Findings()
    members = sorted(logs)
    for member in members[1:]:
        _compare(members[0], logs[members[0]], member, logs[member], findings)
    sent = {(op.key, op.value) for op in operations if op.may_write}
    reported: set[WatchEvent] = set()
    for member in members:
        for event in logs[member]:
            if (event.key, event.value) not in sent and event not in reported:
                reported.add(event)
                findings.add(
                    Kind.UNEXPLAINED_EVENT,
                    f"{member} tells {event.key}={event.value!r} at revision {event.revision}, "
                    f"which nobody wrote",
                    (),
                    event.revision,
                )
    return findings.result("convergence", Verdict.OK if len(members) > 1 else Verdict.UNKNOWN)


def _compare(
    first: str,
    one: Sequence[WatchEvent],
    second: str,
    other: Sequence[WatchEvent],
    findings: Findings,
) -> None:
    for a, b in zip(one, other, strict=False):
        if a != b:
            findings.add(
                Kind.MEMBERS_DISAGREE,
                f"{first} has {a.key}={a.value!r} at revision {a.revision}, "
                f"{second} has {b.key}={b.value!r} at revision {b.revision}",
                (),
                min(a.revision, b.revision),
            )
            return
    if len(one) != len(other):
        findings.add(
            Kind.MEMBERS_DISAGREE,
            f"{first} has {len(one)} events, {second} has {len(other)}",
        )
