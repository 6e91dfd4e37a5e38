"""Reads at any revision, stale ones too, against a replay of the store's own log.

Whatever a read is (linearizable, serializable, of the past), its answer names a revision, and what
it saw must be the store at that revision. A serializable read may name an old one, never one that
mixes; a linearizable read must not name one older than what had been told when it began. A read of
the past may be refused: as compacted only if a compaction that far was asked for, as future only
if the member can have been behind.

Of reads of other forms (of banks, of sets) only that last rule is checked.

``read`` has in ``input`` ``{"prefix", "at", "serializable"}`` (``at`` 0 is now) and in ``output``
``{"kvs": [[key, value, modified], ...]}``, or ``{"error": "compacted" | "future"}``; ``compact``
has ``{"revision"}`` in ``input``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

from chaos.checkers.linearizability import check_real_time
from chaos.history.format import READS, Compaction, History, Operation, Outcome, WatchEvent
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "replay"

COMPACTED: Final = "compacted"
FUTURE: Final = "future"


@attrs.frozen(slots=True)
class Version:
    """A key's state from one of its revisions on: ``value`` None is deleted."""

    revision: int
    value: str | None
    create: int
    version: int


class Replay:
    """The store at every revision, from its log."""

    def __init__(self, log: Iterable[WatchEvent]) -> None:
        self.versions: dict[str, list[Version]] = {}
        self.newest = 0
        for event in log:
            known = self.versions.setdefault(event.key, [])
            before = known[-1] if known and known[-1].value is not None else None
            if event.value is None:
                known.append(Version(event.revision, None, 0, 0))
            else:
                create = before.create if before else event.revision
                number = before.version + 1 if before else 1
                known.append(Version(event.revision, event.value, create, number))
            self.newest = max(self.newest, event.revision)

    def at(self, key: str, revision: int) -> Version | None:
        """A key at a revision, None if it did not exist."""
        known = self.versions.get(key, [])
        place = bisect_right(known, revision, key=lambda version: version.revision) - 1
        found = known[place] if place >= 0 else None
        return found if found is not None and found.value is not None else None

    def range(self, prefix: str, revision: int) -> dict[str, Version]:
        """All keys that begin with ``prefix`` at a revision."""
        found = {key: self.at(key, revision) for key in self.versions if key.startswith(prefix)}
        return {key: version for key, version in found.items() if version is not None}


def check_replay(history: History) -> CheckResult:
    """See the module; ``unknown`` without a log."""
    findings = Findings()
    log = history.log
    if log is None:
        return findings.result(CHECKER, Verdict.UNKNOWN)
    replay = Replay(log)
    compactions = history.compactions
    reads = [
        op
        for op in history.operations
        if op.f == "read" and op.outcome is Outcome.OK
        if isinstance(op.input, dict) and "prefix" in op.input
    ]
    for operation in reads:
        error = operation.output.get("error")
        if error is not None:
            _check_refusal(operation, error, compactions, findings)
        else:
            _check_read(operation, replay, findings)
            _check_too_old(operation, compactions, findings)
    linearizable = [
        op
        for op in history.operations
        if op.f in READS and op.outcome is Outcome.OK and op.revision
        if not (isinstance(op.input, dict) and op.input.get("serializable"))
    ]
    writes = [
        op
        for op in history.operations
        if op.outcome is Outcome.OK and op.revision and (op.f != "cas" or op.applied)
        if op.may_write and op.f != "compact"
    ]
    check_real_time([*linearizable, *writes], findings)
    return findings.result(CHECKER, Verdict.OK)


def _check_read(operation: Operation, replay: Replay, findings: Findings) -> None:
    at = operation.input["at"] or operation.revision
    if max(at, operation.revision) > replay.newest and operation.output["kvs"]:
        findings.add(
            Kind.WRONG_READ,
            f"read {operation.id} of {operation.node} was answered at revision "
            f"{operation.revision}, and the newest is {replay.newest}",
            (operation.id,),
            at,
        )
        return
    wanted = {
        key: (version.value, version.revision)
        for key, version in replay.range(operation.input["prefix"], at).items()
    }
    found = {key: (value, modified) for key, value, modified in operation.output["kvs"]}
    if found == wanted:
        return
    key = min(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    findings.add(
        Kind.WRONG_READ,
        f"read {operation.id} of {operation.node} at revision {at} has {key}="
        f"{_tell(found.get(key))}, and replay has {_tell(wanted.get(key))}",
        (operation.id,),
        at,
    )


def _check_refusal(
    operation: Operation, error: str, compactions: Sequence[Compaction], findings: Findings
) -> None:
    at = operation.input["at"]
    if error == COMPACTED:
        begun = [one for one in compactions if one.start <= (operation.end or 0)]
        if any(one.revision > at for one in begun):
            return
        findings.add(
            Kind.WRONG_REFUSAL,
            f"read {operation.id} of revision {at} was refused as compacted, and nobody had asked "
            "for a compaction that far",
            (operation.id,),
            at,
        )
    elif at <= operation.input.get("known", 0) and not operation.input["serializable"]:
        findings.add(
            Kind.WRONG_REFUSAL,
            f"read {operation.id} of revision {at} was refused as in the future, though its client "
            f"had been told revision {operation.input['known']} before",
            (operation.id,),
            at,
        )


def _check_too_old(
    operation: Operation, compactions: Sequence[Compaction], findings: Findings
) -> None:
    """A linearizable read of what had been compacted before it began must be refused."""
    at = operation.input["at"]
    if not at or operation.input["serializable"]:
        return
    for compaction in compactions:
        before = compaction.end is not None and compaction.end < operation.start
        if before and compaction.revision > at:
            findings.add(
                Kind.WRONG_READ,
                f"read {operation.id} of revision {at} was answered, though compaction "
                f"{compaction.id} to {compaction.revision} had ended before it began",
                (operation.id,),
                at,
            )
            return


def _tell(version: Any) -> str:
    return "nothing" if version is None else f"{version[0]!r} (modified at {version[1]})"
