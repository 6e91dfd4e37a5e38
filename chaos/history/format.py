"""The history of a run: JSON lines, and the records that they are read into.

Lines, by ``e``: ``header`` first (seed, options, versions); ``invoke`` of an operation and its one
completion, ``ok`` / ``fail`` / ``info`` (``fail`` only if it certainly had no effect, ``info`` if
nobody can tell); ``fault`` with ``phase`` start, effect or end; ``status``: a member's role or term
changed; ``watcher``: a client began to watch, and ``notice``: one answer that it got; ``watch``:
all events of one revision as one member told them after the run; ``state``: one member's hash of
its state after the run; ``footer`` last. ``i`` numbers the lines, ``t`` is monotonic time in
nanoseconds. An operation's id is the ``i`` of its invocation, a watcher's that of its ``watcher``
line.

Registers use the fields that are made for them (``value``, ``seen`` ...). Every other workload says
what it asked in ``input`` and what it was told in ``output``, both anything that JSON can say.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

import attrs

FORMAT_VERSION: Final = 1

REFERENCE: Final = "reference"
"""The name under which ``watch`` lines have what was watched from the first revision on, during the
run, over links that no fault touches."""

READS: Final = frozenset({"get", "read"})
"""Names of operations that change nothing. Every other one writes if it takes effect."""


class Outcome(enum.Enum):
    """How an operation ended. The values are the completion lines' ``e``."""

    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "info"


@attrs.define(slots=True)
class Operation:
    """One operation of one process: what was asked, and what came back.

    Args:
        id: line number of the invocation.
        process: the client process; it has one operation at a time and ends with an unknown one.
        f: ``put``, ``get`` or ``cas`` for registers; other workloads have names of their own, of
            which only those in ``READS`` change nothing.
        key: the key.
        value: what a put or cas writes, unique in the history.
        expected: the modification revision that a cas compares with (0: key absent).
        expected_value: the value that a cas compares with, for stores without revisions.
        start: when it was sent (ns).
        end: when its answer came; None if it never did, or said nothing certain.
        outcome: ok, fail or unknown.
        revision: the store's revision in the answer; a write's own revision.
        seen: the value that a get, or a refused cas, read; None if the key was absent.
        seen_revision: the modification revision of what was read; 0 if the key was absent.
        applied: whether a cas compared true and wrote.
        node: the member that answered, or was asked.
        error: the text of a failure.
        input: what was asked, as JSON can say it.
        output: what was answered, as JSON can say it.
    """

    id: int
    process: int
    f: str
    key: str
    start: int
    value: str | None = None
    expected: int | None = None
    expected_value: str | None = None
    end: int | None = None
    outcome: Outcome = Outcome.UNKNOWN
    revision: int = 0
    seen: str | None = None
    seen_revision: int = 0
    applied: bool = False
    node: str = ""
    error: str = ""
    input: Any = None
    output: Any = None

    @property
    def wrote(self) -> bool:
        """True if it certainly wrote: a put that is ok, or a cas that is ok and applied."""
        return self.outcome is Outcome.OK and (self.f == "put" or self.applied)

    @property
    def may_write(self) -> bool:
        """True for operations that write if they take effect."""
        return self.f not in READS


@attrs.frozen(slots=True)
class WatchEvent:
    """One event of a watch: at ``revision``, ``key`` got ``value`` (None: it was deleted)."""

    revision: int
    key: str
    value: str | None


@attrs.frozen(slots=True)
class FaultEvent:
    """A fault began, was seen to have an effect or not, or ended.

    Args:
        t: when (ns).
        kind: such as ``proc.kill`` or ``net.partition``.
        phase: ``start``, ``effect`` (what was seen of it) or ``end``.
        target: names of the members or links.
        evidence: what showed that it had an effect; empty if nothing did.
        effective: False if it was looked for and not found.
        number: of the fault in the plan, from 1; 0 for what no plan has.
    """

    t: int
    kind: str
    phase: str
    target: tuple[str, ...]
    evidence: str = ""
    effective: bool = True
    number: int = 0


@attrs.define(slots=True)
class Compaction:
    """Somebody, a client or the administrator, asked to forget what is before a revision.

    Args:
        id: of the line, or of the client's operation.
        revision: the oldest that is to be kept.
        start: when it was asked for (ns).
        end: when it was known to be done (ns); None if that never was.
    """

    id: int
    revision: int
    start: int
    end: int | None = None


@attrs.frozen(slots=True)
class StatusEvent:
    """What a member said of itself, written when it is another than before.

    Args:
        t: when the answer came (ns).
        member: its name.
        role: ``leader``, ``follower``, ``no leader`` (it knows of none) or ``silent`` (no answer).
        term: the Raft term that it named; 0 while it is silent.
    """

    t: int
    member: str
    role: str
    term: int = 0


@attrs.frozen(slots=True)
class SeenEvent:
    """One event as a watcher was told it: ``value`` None is a deletion.

    ``create`` and ``version`` are 0 for a deletion. ``previous`` is the (value, modification
    revision) before the event, None if it was not told.
    """

    key: str
    value: str | None
    revision: int
    create: int = 0
    version: int = 0
    previous: tuple[str, int] | None = None


@attrs.frozen(slots=True)
class Notice:
    """One answer to a watcher.

    Args:
        t: when it came (ns).
        kind: ``created``, ``events``, ``progress`` or ``canceled``; or ``left``, when the client
            ended the watch.
        revision: the store's revision in the answer's header; of ``left``, the revision that the
            watcher stayed to be told, 0 if it was cut off.
        events: what happened.
        compact_revision: of a ``canceled`` one, the oldest revision that can still be watched.
    """

    t: int
    kind: str
    revision: int
    events: tuple[SeenEvent, ...] = ()
    compact_revision: int = 0


@attrs.define(slots=True)
class Watcher:
    """One watch of one client on one stream; a watch that is resumed is a new watcher.

    Args:
        id: line number of its beginning.
        node: the member that it watches at.
        key: the key, or the prefix of keys.
        prefix: whether ``key`` is a prefix.
        start: the first revision asked for; 0 is from now on.
        prev_kv: whether it asked for the key as it was before.
        skip: the kinds of event that it did not want: ``put`` or ``delete``.
        resumes: the watcher that it goes on for, None if it is the first.
        notices: what it was told, in order.
    """

    id: int
    node: str
    key: str
    prefix: bool = False
    start: int = 0
    prev_kv: bool = False
    skip: tuple[str, ...] = ()
    resumes: int | None = None
    notices: list[Notice] = attrs.field(factory=list)


@attrs.frozen(slots=True)
class MemberState:
    """What one member's state hashed to after the run.

    Args:
        member: its name.
        position: the revision or index at which it was hashed.
        hash: the hash, as text.
        compact_revision: the oldest revision that the hash covers.
    """

    member: str
    position: int
    hash: str
    compact_revision: int = 0


@attrs.define(slots=True)
class History:
    """Everything that one run recorded."""

    header: dict[str, Any] = attrs.field(factory=dict)
    operations: list[Operation] = attrs.field(factory=list)
    watches: dict[str, list[WatchEvent]] = attrs.field(factory=dict)
    faults: list[FaultEvent] = attrs.field(factory=list)
    statuses: list[StatusEvent] = attrs.field(factory=list)
    watchers: dict[int, Watcher] = attrs.field(factory=dict)
    states: list[MemberState] = attrs.field(factory=list)
    administered: list[Compaction] = attrs.field(factory=list)
    footer: dict[str, Any] = attrs.field(factory=dict)

    @property
    def base_revision(self) -> int:
        """The store's revision before the first operation: 1 for an empty etcd."""
        return int(self.header.get("base_revision", 1))

    @property
    def compactions(self) -> list[Compaction]:
        """All that were asked for and may have happened: by clients, and by the administrator."""
        asked = [
            Compaction(
                op.id,
                op.input["revision"],
                op.start,
                op.end if op.outcome is Outcome.OK and not (op.output or {}).get("error") else None,
            )
            for op in self.operations
            if op.f == "compact" and op.outcome is not Outcome.FAIL
        ]
        return asked + self.administered

    @property
    def log(self) -> list[WatchEvent] | None:
        """The longest account of every revision: the reference, else a member's; None without.

        A member that has compacted cannot tell of every revision any more.
        """
        if REFERENCE in self.watches:
            return self.watches[REFERENCE]
        late = {
            state.member for state in self.states if state.compact_revision > self.base_revision
        }
        whole = [log for member, log in self.watches.items() if member not in late]
        return max(whole, key=len, default=None)

    @property
    def member_logs(self) -> dict[str, list[WatchEvent]]:
        """What each member told after the run."""
        return {name: log for name, log in self.watches.items() if name != REFERENCE}


class HistoryError(ValueError):
    """A history file cannot be read; the text names the line and what is wrong with it."""


def invocation(operation: Operation) -> Mapping[str, Any]:
    """The fields of an operation's ``invoke`` line."""
    fields: dict[str, Any] = {"p": operation.process, "f": operation.f, "k": operation.key}
    if operation.value is not None:
        fields["v"] = operation.value
    if operation.expected is not None:
        fields["expected"] = operation.expected
    if operation.expected_value is not None:
        fields["expected_value"] = operation.expected_value
    if operation.input is not None:
        fields["in"] = operation.input
    return fields


def completion(operation: Operation) -> Mapping[str, Any]:
    """The fields of an operation's ``ok``, ``fail`` or ``info`` line."""
    fields: dict[str, Any] = {"op": operation.id, "node": operation.node}
    if operation.outcome is Outcome.OK:
        fields["rev"] = operation.revision
        if operation.f == "cas":
            fields["applied"] = operation.applied
        if operation.f == "get" or (operation.f == "cas" and not operation.applied):
            fields["v"] = operation.seen
            fields["mod"] = operation.seen_revision
    if operation.output is not None:
        fields["out"] = operation.output
    if operation.error:
        fields["err"] = operation.error
    return fields
