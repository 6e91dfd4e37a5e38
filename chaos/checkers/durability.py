"""Is every acknowledged write still there, and do all members tell the same history?

Both compare with what each member tells about every revision from the first, after the run, over a
connection that no fault touched.
"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.history.format import REFERENCE, History, MemberState, WatchEvent
from chaos.verdict import CheckResult, Findings, Kind, Verdict


def check_durability(history: History) -> CheckResult:
    """Look for each acknowledged write in every member's log; count each lost write once.

    Of what a member has compacted it need tell nothing. ``unknown`` if no member told its log.
    """
    findings = Findings()
    logs = history.member_logs
    held = {member: {(e.key, e.value) for e in log} for member, log in logs.items()}
    compacted = _compacted(history)
    for operation in history.operations:
        if not operation.wrote:
            continue
        without = [
            member
            for member, pairs in sorted(held.items())
            if (operation.key, operation.value) not in pairs
            and operation.revision > compacted.get(member, 0)
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


def check_convergence(history: History) -> CheckResult:
    """Compare all accounts of the history, and the hashes of the members' states.

    The accounts are each member's own after the run, and the reference that was watched during it:
    what it was told and no member has any more is as wrong as two members that differ.

    ``unknown`` if fewer than two members told anything that can be compared.
    """
    findings = Findings()
    compacted = _compacted(history)
    names = sorted(history.watches, key=lambda name: (name == REFERENCE, name))
    for name in names[1:]:
        first = max(compacted.get(names[0], 0), compacted.get(name, 0))
        one = [event for event in history.watches[names[0]] if event.revision > first]
        other = [event for event in history.watches[name] if event.revision > first]
        _compare(names[0], one, name, other, findings)
    hashed = _compare_states(history.states, findings)
    comparable = len(history.member_logs) > 1 or hashed
    return findings.result("convergence", Verdict.OK if comparable else Verdict.UNKNOWN)


def check_explained(history: History) -> CheckResult:
    """Compare every event that anybody told with what was ever sent. For registers."""
    findings = Findings()
    sent = {(op.key, op.value) for op in history.operations if op.may_write}
    reported: set[WatchEvent] = set()
    for name in sorted(history.watches):
        for event in history.watches[name]:
            if (event.key, event.value) not in sent and event not in reported:
                reported.add(event)
                findings.add(
                    Kind.UNEXPLAINED_EVENT,
                    f"{name} tells {event.key}={event.value!r} at revision {event.revision}, "
                    f"which nobody wrote",
                    (),
                    event.revision,
                )
    return findings.result("explained", Verdict.OK if history.watches else Verdict.UNKNOWN)


def _compacted(history: History) -> dict[str, int]:
    return {state.member: state.compact_revision for state in history.states}


def _compare_states(states: Sequence[MemberState], findings: Findings) -> bool:
    """Compare what can be compared; say whether any two could be."""
    groups: dict[tuple[int, int], list[MemberState]] = {}
    for state in states:
        groups.setdefault((state.position, state.compact_revision), []).append(state)
    for (position, _), group in sorted(groups.items()):
        for state in group[1:]:
            if state.hash != group[0].hash:
                findings.add(
                    Kind.MEMBERS_DISAGREE,
                    f"at {position} the state of {group[0].member} hashes to {group[0].hash}, "
                    f"that of {state.member} to {state.hash}",
                    (),
                    position,
                )
    return any(len(group) > 1 for group in groups.values())


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
