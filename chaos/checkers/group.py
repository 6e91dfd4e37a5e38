"""Who was in the group, as clients saw it: changes, lists of members, and who led.

What operators add are *ghosts* (``chaos.workloads.membership``): learners that nobody starts. For
them everything is known that was asked, so that some order of additions, removals and lists must
explain every answer. For the members that run, which the faults change, there are rules that need
no order: who is gone stays gone, who votes goes on voting, nobody comes whom nobody added. In one
term at most one member leads (Ongaro and Ousterhout 2014, section 5.2), whatever the group is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final

import attrs

from chaos.checkers.wgl import STEPS_MAX, check_wgl
from chaos.history.format import History, Operation, Outcome
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "group"
GROUP: Final = "group"
"""The key of every operation on the members."""

GHOSTS: Final = "http://127.66."
"""How every ghost's URL begins."""

Seen = tuple[Operation, Mapping[str, tuple[str, bool]]]
"""A list of members that a client read: URL and whether it is a learner, by ID."""


def check_group(history: History, steps_max: int = STEPS_MAX) -> CheckResult:
    """Return what is wrong with the members that clients saw.

    ``unknown`` if nobody looked, if no change was acknowledged, or if the search for an order of
    the ghosts' changes needs more than ``steps_max`` steps.
    """
    findings = Findings()
    operations = [operation for operation in history.operations if operation.key == GROUP]
    lists = [_seen(one) for one in operations if one.f == "read" and one.outcome is Outcome.OK]
    changes = [one for one in operations if one.f != "read"]
    _check_changes(changes, lists, findings)
    _check_promotions(changes, lists, findings)
    _check_lives(lists, findings)
    _check_strangers(history.header.get("peers"), lists, findings)
    if not str(history.header.get("target", "")).startswith("etcd"):
        _check_leaders(history, findings)  # etcd reads its leader and its term one after the other
    found = findings.result(CHECKER)
    if found.verdict is Verdict.VIOLATED:
        return found
    ordered = check_wgl(_to_order(operations), _Ghosts(), steps_max)
    if ordered.verdict is not Verdict.OK:
        if ordered.verdict is Verdict.UNKNOWN:
            findings.note(Kind.UNDECIDED, "the search for an order ran out of its budget")
            return findings.result(CHECKER, Verdict.UNKNOWN)
        return attrs.evolve(ordered, checker=CHECKER)
    proven = lists and any(one.outcome is Outcome.OK for one in changes)
    return findings.result(CHECKER, Verdict.OK if proven else Verdict.UNKNOWN)


def _to_order(operations: Sequence[Operation]) -> list[Operation]:
    """What the search must order: all but what can be left out of any order that explains the rest.

    That is what changes nothing, and changes of unknown outcome to a ghost that nobody ever met.
    """
    met = {
        url
        for one in operations
        if one.outcome is Outcome.OK
        for url in (_ghosts(one) if one.f == "read" else [one.input["url"]])
    }
    return [
        one
        for one in operations
        if one.f == "read" or (one.f in ("add", "remove") and one.input["url"] in met)
    ]


class _Ghosts:
    """The ghosts as a sequential machine: the set of their URLs.

    A change of unknown outcome is tried only where it would change something: elsewhere it is the
    same as if it had never been made.
    """

    def __init__(self) -> None:
        self.per_key = False

    def initial(self) -> frozenset[str]:
        """Nobody."""
        return frozenset()

    def step(self, state: frozenset[str], operation: Operation) -> frozenset[str] | None:
        """See ``chaos.checkers.wgl.Model``."""
        if operation.f == "read":
            return state if set(_ghosts(operation)) == state else None
        url = operation.input["url"]
        if operation.f == "add":
            return None if url in state else state | {url}
        return None if url not in state else state - {url}


def _seen(operation: Operation) -> Seen:
    members = operation.output["members"]
    return operation, {id: (url, learner) for id, url, learner in members}


def _ghosts(operation: Operation) -> list[str]:
    return [url for _, url, _ in operation.output["members"] if url.startswith(GHOSTS)]


def _end(operation: Operation) -> int:
    return operation.start if operation.end is None else operation.end


def _check_changes(changes: Sequence[Operation], lists: Iterable[Seen], findings: Findings) -> None:
    """Each list against each ghost's life: what was asked for it, and acknowledged, and when."""
    asked: defaultdict[str, list[Operation]] = defaultdict(list)
    for change in changes:
        asked[change.input["url"]].append(change)
    for reading, members in lists:
        shown = {url for url, _ in members.values()}
        for url, life in asked.items():
            _check_life(reading, url, url in shown, life, findings)


def _check_life(
    reading: Operation, url: str, shown: bool, life: Sequence[Operation], findings: Findings
) -> None:
    before = [one for one in life if one.outcome is Outcome.OK and _end(one) < reading.start]
    added = next((one for one in before if one.f == "add"), None)
    removed = next((one for one in before if one.f == "remove"), None)
    begun = {one.f for one in life if one.outcome is not Outcome.FAIL and one.start < _end(reading)}
    if shown and removed is not None:
        _add(findings, Kind.MEMBER_RETURNED, f"{url} was removed", reading, removed)
    elif shown and "add" not in begun:
        refused = [one for one in life if one.f == "add" and one.outcome is Outcome.FAIL]
        text = f"{url} was {'refused' if refused else 'not added yet'}"
        _add(findings, Kind.UNEXPLAINED_MEMBER, text, reading, *refused[:1])
    elif not shown and added is not None and "remove" not in begun:
        _add(findings, Kind.MEMBER_LOST, f"{url} was added, and nobody removed it", reading, added)


def _check_promotions(
    changes: Iterable[Operation], lists: Iterable[Seen], findings: Findings
) -> None:
    for change in changes:
        if change.f == "promote" and change.outcome is Outcome.OK:
            text = f"{change.input['url']}, which never ran, was promoted"
            findings.add(Kind.WRONGLY_PROMOTED, text, (change.id,))
    for reading, members in lists:
        for url, learner in members.values():
            if url.startswith(GHOSTS) and not learner:
                _add(findings, Kind.WRONGLY_PROMOTED, f"{url} never ran, and votes", reading)


def _check_lives(lists: Sequence[Seen], findings: Findings) -> None:
    """Rules for each ID alone: it means one member, which does not return and goes on voting."""
    urls: dict[str, tuple[str, Operation]] = {}
    ids: dict[str, tuple[str, Operation]] = {}
    for reading, members in lists:
        for id, (url, _) in members.items():
            for known, key, value in ((urls, id, url), (ids, url, id)):
                first, earlier = known.setdefault(key, (value, reading))
                if first != value:
                    text = f"{key} was {first}, and is {value}"
                    _add(findings, Kind.MEMBER_IDENTITY, text, reading, earlier)
    for id, (url, _) in urls.items():
        there = [reading for reading, members in lists if id in members]
        since = min(there, key=_end)
        absent = [
            reading
            for reading, members in lists
            if id not in members and reading.start > _end(since)
        ]
        if absent:
            gone = min(absent, key=_end)
            for back in (one for one in there if one.start > _end(gone)):
                _add(findings, Kind.MEMBER_RETURNED, f"{url} ({id}) was gone", back, gone)
        voting = [one for one, members in lists if id in members and not members[id][1]]
        if voting:
            voted = min(voting, key=_end)
            for reading, members in lists:
                if id in members and members[id][1] and reading.start > _end(voted):
                    text = f"{url} ({id}) voted, and is a learner"
                    _add(findings, Kind.MEMBER_DEMOTED, text, reading, voted)


def _check_strangers(
    peers: Mapping[str, str] | None, lists: Iterable[Seen], findings: Findings
) -> None:
    """Without the header's ``peers`` nobody knows who may be there."""
    if peers is None:
        return
    for reading, members in lists:
        for url, _ in members.values():
            if not url.startswith(GHOSTS) and url not in peers.values():
                _add(findings, Kind.UNEXPLAINED_MEMBER, f"nobody knows {url}", reading)


def _check_leaders(history: History, findings: Findings) -> None:
    led: dict[int, str] = {}
    told: set[Hashable] = set()
    for status in history.statuses:
        if status.role != "leader":
            continue
        first = led.setdefault(status.term, status.member)
        if first != status.member and (status.term, status.member) not in told:
            told.add((status.term, status.member))
            findings.add(
                Kind.TWO_LEADERS, f"{first} and {status.member} both led in term {status.term}"
            )


def _add(findings: Findings, kind: Kind, text: str, reading: Operation, *others: Operation) -> None:
    where = f"{text}: the list read at {reading.node or 'a member'}"
    findings.add(kind, where, tuple(one.id for one in (reading, *others)))
