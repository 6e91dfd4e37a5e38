"""Mutual exclusion by revision: who held the lock when each protected write took effect.

Two clients can always believe at one time that they hold a lock, since a client can be paused for
longer than its lease. What a lock service can promise, and fencing makes of use, is about
revisions: at each revision the lock belongs to one contender, the one whose key was created first
of those that are there; its create revision is the fencing token. From the log it is known who that
was, so every protected write can be judged. A lock without fencing must fail this check as soon as
a holder is paused; one with fencing never.

``acquire`` has ``{"name"}`` in ``input`` and ``{"key", "token"}`` in ``output``; ``write`` has in
``input`` ``{"name", "key", "token"}`` and in ``output`` ``{"applied"}``, with its revision;
``read`` (observers of an election) has ``{"name"}`` and ``{"key", "token", "value"}`` or null.
Contenders' keys are ``NAME/...``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

from chaos.checkers.replay import Replay
from chaos.history.format import History, Operation, Outcome, WatchEvent
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "fencing"


class Owners:
    """Who was first under a name, at every revision."""

    def __init__(self, log: Sequence[WatchEvent], name: str) -> None:
        self._revisions = [0]
        self._owners: list[tuple[str, int] | None] = [None]
        created: dict[str, int] = {}
        for event in log:
            if not event.key.startswith(f"{name}/"):
                continue
            if event.value is None:
                created.pop(event.key, None)
            else:
                created.setdefault(event.key, event.revision)
            first = min(created.items(), key=lambda item: item[1], default=None)
            self._revisions.append(event.revision)
            self._owners.append(first)

    def after(self, revision: int) -> tuple[str, int] | None:
        """(key, token) of the owner once everything at ``revision`` was done."""
        return self._owners[bisect_right(self._revisions, revision) - 1]

    def before(self, revision: int) -> tuple[str, int] | None:
        """(key, token) of the owner just before ``revision``."""
        return self._owners[max(0, bisect_left(self._revisions, revision) - 1)]


def check_fencing(history: History) -> CheckResult:
    """See the module; ``unknown`` without a log, or if nobody wrote under a lock."""
    findings = Findings()
    log = history.log
    known = [op for op in history.operations if op.outcome is Outcome.OK]
    writes = [op for op in known if op.f == "write" and op.output["applied"]]
    if log is None or not writes:
        why = "there is no log" if log is None else "nothing was written under a lock"
        findings.note(Kind.UNDECIDED, why)
        return findings.result(CHECKER, Verdict.UNKNOWN)
    names = {op.input["name"] for op in known if isinstance(op.input, dict) and "name" in op.input}
    for name in sorted(names):
        owners = Owners(log, name)
        mine = [op for op in known if isinstance(op.input, dict) and op.input.get("name") == name]
        _check_writes([op for op in mine if op in writes], owners, findings)
        _check_tokens([op for op in mine if op.f == "acquire"], findings)
        _check_observers([op for op in mine if op.f == "read"], owners, Replay(log), findings)
    return findings.result(CHECKER, Verdict.OK)


def _check_writes(writes: Sequence[Operation], owners: Owners, findings: Findings) -> None:
    highest: Operation | None = None
    for write in sorted(writes, key=lambda op: op.revision):
        claimed = write.input["key"], write.input["token"]
        owner = owners.before(write.revision)
        if owner != claimed:
            held = f"{owner[0]} held it with token {owner[1]}" if owner else "nobody held it"
            findings.add(
                Kind.NOT_THE_HOLDER,
                f"write {write.id} of process {write.process} took effect at revision "
                f"{write.revision} on the strength of token {claimed[1]} ({claimed[0]}), when "
                f"{held}",
                (write.id,),
                write.revision,
            )
        if highest is not None and write.input["token"] < highest.input["token"]:
            findings.add(
                Kind.TOKEN_ORDER,
                f"write {write.id} with token {write.input['token']} took effect after write "
                f"{highest.id} with token {highest.input['token']}",
                (highest.id, write.id),
                write.revision,
            )
        if highest is None or write.input["token"] > highest.input["token"]:
            highest = write


def _check_tokens(acquired: Sequence[Operation], findings: Findings) -> None:
    """A lock granted after another grant had been told has the greater token."""
    ended = sorted(acquired, key=lambda op: op.end or op.start)
    place, highest = 0, None
    for grant in sorted(acquired, key=lambda op: op.start):
        while place < len(ended) and (ended[place].end or 0) < grant.start:
            if highest is None or ended[place].output["token"] > highest.output["token"]:
                highest = ended[place]
            place += 1
        if highest is not None and grant.output["token"] <= highest.output["token"]:
            findings.add(
                Kind.TOKEN_ORDER,
                f"grant {grant.id} has token {grant.output['token']}, and grant {highest.id}, "
                f"which ended before it began, had {highest.output['token']}",
                (highest.id, grant.id),
            )


def _check_observers(
    reads: Sequence[Operation], owners: Owners, replay: Replay, findings: Findings
) -> None:
    for read in reads:
        owner = owners.after(read.revision)
        seen = (read.output["key"], read.output["token"]) if read.output else None
        if seen != owner:
            findings.add(
                Kind.WRONG_LEADER,
                f"read {read.id} of {read.node} at revision {read.revision} saw {seen}, and the "
                f"first was {owner}",
                (read.id,),
                read.revision,
            )
            continue
        if owner is None:
            continue
        version = replay.at(owner[0], read.revision)
        if version is None or version.value != read.output["value"]:
            findings.add(
                Kind.WRONG_LEADER,
                f"read {read.id} of {read.node} at revision {read.revision} saw the leader say "
                f"{read.output['value']!r}, and it said {version.value if version else None!r}",
                (read.id,),
                read.revision,
            )
