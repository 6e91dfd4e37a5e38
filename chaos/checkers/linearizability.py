"""Strict serializability of a store that numbers its writes, in O(n log n).

A general checker searches for an order of the operations. etcd already tells it: every write
carries its own revision and every answer the revision of the store that it saw. So the order is
given, and three things remain to be checked:

1. *One history.* Each revision belongs to one write; the state at any revision is the replay of all
   writes up to it.
2. *Results.* Each read, and each comparison of a compare-and-set, equals the state at its revision.
3. *Real time.* If a ended before b began then revision(a) <= revision(b), and < if b writes.

They suffice: order operations by revision, a write before the reads of its revision, reads of one
revision by their start. They are necessary for any store that keeps etcd's promise about revisions.

Writes with an unknown outcome are resolved from the store's own log (a watch of every revision) if
there is one: found there, the write took effect at that revision at some time after its start;
not found, it never did. Without a log, reads that saw the value resolve it; a revision that nobody
explains then leaves the verdict ``unknown``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter

import attrs

from chaos.history.format import READS, History, Operation, Outcome, WatchEvent
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER = "linearizability"
MAY_ONLY_READ = READS | {"cas"}
REGISTER = frozenset({"put", "get", "cas"})
"""The operations that this checker understands."""


@attrs.frozen(slots=True)
class _KeyLog:
    """A key's writes, by revision."""

    revisions: list[int]
    values: list[str | None]


class _Table:
    """Every known write: which revisions exist, and for each key its value at each."""

    def __init__(self, events: Iterable[WatchEvent]) -> None:
        self.keys: dict[str, dict[int, str | None]] = {}
        self.revisions: set[int] = set()
        self.revision_of: dict[str, int] = {}
        for event in events:
            self.add(event.key, event.revision, event.value)

    def add(self, key: str, revision: int, value: str | None) -> None:
        """Enter a write."""
        self.keys.setdefault(key, {})[revision] = value
        self.revisions.add(revision)
        if value is not None:
            self.revision_of[value] = revision

    def at(self, revision: int) -> str:
        """What stands at a revision, for messages."""
        return ", ".join(
            f"{key}={values[revision]!r}"
            for key, values in sorted(self.keys.items())
            if revision in values
        )

    def logs(self) -> dict[str, _KeyLog]:
        """Each key's writes in order."""
        ordered = {}
        for key, values in self.keys.items():
            revisions = sorted(values)
            ordered[key] = _KeyLog(revisions, [values[revision] for revision in revisions])
        return ordered


def check_linearizability(
    operations: Sequence[Operation],
    log: Sequence[WatchEvent] | None = None,
    base_revision: int = 1,
) -> CheckResult:
    """Check a history of puts, gets and compare-and-sets whose answers carry revisions.

    Args:
        operations: all operations, in any order; values written are unique.
        log: what the store itself tells about every revision after ``base_revision``, read after
            the last operation; None if that could not be had.
        base_revision: the store's revision before the first operation, when it held no keys.

    Returns:
        ``violated`` with the evidence; ``unknown`` without a log if missing revisions might be
        writes of unknown outcome; otherwise ``ok``.
    """
    findings = Findings()
    table = _Table(log or ())
    known = [operation for operation in operations if operation.outcome is Outcome.OK]
    _place_acknowledged(known, table, findings)
    resolved = _resolve_unknown(operations, known, table, findings, has_log=log is not None)
    holes = _check_density(
        operations, resolved, table, base_revision, findings, has_log=log is not None
    )
    effective = known + resolved
    _check_results(effective, table.logs(), holes, findings)
    check_real_time(effective, findings)
    return findings.result(CHECKER, Verdict.UNKNOWN if holes else Verdict.OK)


def check_revisions(history: History) -> CheckResult:
    """``check_linearizability`` on what a history has of registers, with the log that it has.

    ``unknown`` without a log where there were other writes: their revisions would seem missing.
    """
    operations = [operation for operation in history.operations if operation.f in REGISTER]
    others = any(
        op.may_write and op.f not in REGISTER and op.f != "compact"
        for op in history.operations
        if op.outcome is not Outcome.FAIL
    )
    if history.log is None and others:
        findings = Findings()
        findings.note(Kind.UNDECIDED, "there is no whole log, and not all writes are of registers")
        return findings.result(CHECKER, Verdict.UNKNOWN)
    return check_linearizability(operations, history.log, history.base_revision)


def _place_acknowledged(known: Sequence[Operation], table: _Table, findings: Findings) -> None:
    """Put every acknowledged write into the table at the revision that it was told."""
    owners: dict[int, Operation] = {}
    revision_of, revisions = table.revision_of, table.revisions
    for operation in known:
        value = operation.value
        if value is None or (operation.f != "put" and not operation.applied):
            continue
        revision = operation.revision
        other = owners.setdefault(revision, operation)
        stands_at = revision_of.get(value)
        if other is not operation:
            findings.add(
                Kind.DUPLICATE_REVISION,
                f"revision {revision} was given to {other.value!r} and to {value!r}",
                (other.id, operation.id),
                revision,
            )
        elif stands_at is not None and stands_at != revision:
            findings.add(
                Kind.MOVED_WRITE,
                f"{value!r} was acknowledged at revision {revision} and stands at {stands_at}",
                (operation.id,),
                revision,
            )
        elif stands_at is None and revision in revisions:
            findings.add(
                Kind.DUPLICATE_REVISION,
                f"{value!r} was acknowledged at revision {revision}, where the store's own log "
                f"has {table.at(revision)}",
                (operation.id,),
                revision,
            )
        elif stands_at is None:
            table.add(operation.key, revision, value)
        elif table.keys.get(operation.key, {}).get(revision) != value:
            findings.add(
                Kind.MOVED_WRITE,
                f"{value!r} was written to {operation.key} and stands at {table.at(revision)}",
                (operation.id,),
                revision,
            )


def _resolve_unknown(
    operations: Sequence[Operation],
    known: Sequence[Operation],
    table: _Table,
    findings: Findings,
    has_log: bool,
) -> list[Operation]:
    """Return writes of unknown outcome that took effect, with their revisions and no end."""
    uncertain = {
        operation.value: operation
        for operation in operations
        if operation.outcome is not Outcome.OK and operation.may_write
    }
    if not uncertain:
        return []
    observers: dict[str, Operation] = {}
    if not has_log:
        for reader in known:
            if reader.seen is not None and reader.seen in uncertain:
                observers.setdefault(reader.seen, reader)
    resolved = []
    for value, write in uncertain.items():
        observer = observers.get(value or "")
        at = observer.seen_revision if observer else table.revision_of.get(value or "")
        if at is None:
            continue
        evidence = (write.id,) if observer is None else (write.id, observer.id)
        if write.outcome is Outcome.FAIL:
            findings.add(
                Kind.FAILED_WRITE_APPLIED,
                f"{value!r} was reported as not applied and stands at revision {at}",
                evidence,
                at,
            )
        if observer is not None and at in table.revisions:
            findings.add(
                Kind.DUPLICATE_REVISION,
                f"{value!r} was read at revision {at}, which belongs to {table.at(at)}",
                evidence,
                at,
            )
        elif observer is not None:
            table.add(write.key, at, value)
        resolved.append(
            attrs.evolve(write, outcome=Outcome.OK, end=None, revision=at, applied=True)
        )
    return resolved


def _check_density(
    operations: Sequence[Operation],
    resolved: Sequence[Operation],
    table: _Table,
    base_revision: int,
    findings: Findings,
    has_log: bool,
) -> set[int]:
    """Every revision is a write: return the holes that writes of unknown outcome may fill."""
    told = max(map(attrgetter("revision"), operations), default=base_revision)
    top = max(told, max(table.revisions, default=base_revision))
    missing = set(range(base_revision + 1, top + 1)) - table.revisions
    if not missing:
        return missing
    unknown_writes = sum(
        operation.outcome is Outcome.UNKNOWN and operation.may_write for operation in operations
    )
    if not has_log and len(missing) <= unknown_writes - len(resolved):
        return missing
    first = min(missing)
    findings.add(
        Kind.REVISION_GAP,
        f"{len(missing)} revisions up to {top} belong to no write, the first is {first}",
        (),
        first,
    )
    return set()


def _check_results(
    operations: Sequence[Operation],
    logs: dict[str, _KeyLog],
    holes: set[int],
    findings: Findings,
) -> None:
    empty = _KeyLog([], [])
    for operation in operations:
        f = operation.f
        if f == "put":
            continue
        log = logs.get(operation.key, empty)
        revision = operation.revision
        position = bisect_right(log.revisions, revision) - 1
        if f == "cas" and operation.applied:
            _check_applied_cas(operation, log, position, holes, findings)
            continue
        value = log.values[position] if position >= 0 else None
        modified = log.revisions[position] if value is not None else 0
        if operation.seen != value or operation.seen_revision != modified:
            _wrong_read(operation, value, modified, logs, findings)
        elif f == "cas" and modified == operation.expected:
            findings.add(
                Kind.CAS_WRONGLY_REFUSED,
                f"{operation.key} was modified at {modified} as of revision {revision}, as the "
                f"compare-and-set expected, and it was refused",
                (operation.id,),
                revision,
            )


def _check_applied_cas(
    operation: Operation, log: _KeyLog, position: int, holes: set[int], findings: Findings
) -> None:
    if position >= 0 and log.revisions[position] == operation.revision:
        position -= 1
    before = 0
    if position >= 0 and log.values[position] is not None:
        before = log.revisions[position]
    if before != operation.expected and operation.expected not in holes:
        findings.add(
            Kind.CAS_WRONGLY_APPLIED,
            f"{operation.key} was modified at {before} before revision {operation.revision}, the "
            f"compare-and-set expected {operation.expected} and was applied",
            (operation.id,),
            operation.revision,
        )


def _wrong_read(
    operation: Operation,
    value: str | None,
    modified: int,
    logs: dict[str, _KeyLog],
    findings: Findings,
) -> None:
    log = logs.get(operation.key)
    nobody = operation.seen is not None and (log is None or operation.seen not in log.values)
    findings.add(
        Kind.READ_OF_NOTHING if nobody else Kind.WRONG_READ,
        f"at revision {operation.revision} {operation.key} is {value!r} (modified at {modified}), "
        f"and {operation.seen!r} (modified at {operation.seen_revision}) was read",
        (operation.id,),
        operation.revision,
    )


def check_real_time(operations: Sequence[Operation], findings: Findings) -> None:
    """Sweep by time: nothing may lie before what had ended when it began.

    Each operation has the revision at which it lies; one that writes, a revision of its own.
    """
    by_start = sorted(operations, key=attrgetter("start"))
    ended = [operation for operation in operations if operation.end is not None]
    ended.sort(key=attrgetter("end"))
    ends = list(map(attrgetter("end"), ended))
    floor, at_floor, position, count = 0, None, 0, len(ends)
    for operation in by_start:
        start = operation.start
        while position < count and ends[position] < start:
            if ended[position].revision > floor:
                at_floor = ended[position]
                floor = at_floor.revision
            position += 1
        revision = operation.revision
        if revision > floor:
            continue
        writes = operation.applied or operation.f not in MAY_ONLY_READ
        if at_floor is None or (revision == floor and not writes):
            continue
        findings.add(
            Kind.REVISION_NOT_INCREASING if writes else Kind.STALE_READ,
            f"revision {floor} had been answered before this {operation.f} of {operation.key} "
            f"began, and it got {'its write' if writes else 'an answer of'} revision {revision}",
            (at_floor.id, operation.id),
            revision,
        )
