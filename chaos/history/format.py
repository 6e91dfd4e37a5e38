"""The history of a run: JSON lines, and the records that they are read into.

Lines, by ``e``: ``header`` first (seed, options, versions); ``invoke`` of an operation and its one
completion, ``ok`` / ``fail`` / ``info`` (``fail`` only if it certainly had no effect, ``info`` if
nobody can tell); ``fault`` with ``phase`` start, effect or end; ``status``: a member's role or term
changed; ``watch``: all events of one revision as one member told them after the run; ``footer``
last. ``i`` numbers the lines, ``t`` is
monotonic time in nanoseconds. An operation's id is the ``i`` of its invocation.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

import attrs

FORMAT_VERSION: Final = 1


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
        f: ``put``, ``get`` or ``cas``.
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

    @property
    def wrote(self) -> bool:
        """True if it certainly wrote: a put that is ok, or a cas that is ok and applied."""
        return self.outcome is Outcome.OK and (self.f == "put" or self.applied)

    @property
    def may_write(self) -> bool:
        """True for operations that write if they take effect."""
        return self.f != "get"


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
    """

    t: int
    kind: str
    phase: str
    target: tuple[str, ...]
    evidence: str = ""
    effective: bool = True


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


@attrs.define(slots=True)
class History:
    """Everything that one run recorded."""

    header: dict[str, Any] = attrs.field(factory=dict)
    operations: list[Operation] = attrs.field(factory=list)
    watches: dict[str, list[WatchEvent]] = attrs.field(factory=dict)
    faults: list[FaultEvent] = attrs.field(factory=list)
    statuses: list[StatusEvent] = attrs.field(factory=list)
    footer: dict[str, Any] = attrs.field(factory=dict)

    @property
    def base_revision(self) -> int:
        """The store's revision before the first operation: 1 for an empty etcd."""
        return int(self.header.get("base_revision", 1))


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
    if operation.error:
        fields["err"] = operation.error
    return fields
