"""Linearizability of any model, by search: for what carries no revisions.

The algorithm is Wing and Gong's (1993) with the linked list and the cache of Lowe ("Testing for
linearizability", 2017): walk the calls in time order, apply one that the model allows, take it and
its return out of the list; on reaching a return that is still there, undo. A pair (set of
operations applied, state) that was seen is not tried again. The problem is NP-complete: the search
has a budget, and one that runs out says ``unknown``.

An operation of unknown outcome may be applied at any time after its start, or never.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, Generic, Protocol, TypeVar

import attrs

from chaos.history.format import Operation, Outcome
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "wgl"
STEPS_MAX: Final = 2_000_000
"""Model steps before a search gives up."""

S = TypeVar("S", bound=Hashable)


class Model(Protocol[S]):
    """A sequential machine: what its operations return, one after the other."""

    per_key: bool
    """True if operations on different keys do not touch each other: each key is searched alone."""

    def initial(self) -> S:
        """The state before the first operation."""

    def step(self, state: S, operation: Operation) -> S | None:
        """The state after ``operation``, or None if its result is impossible in ``state``.

        Of an operation with unknown outcome only what was asked counts, not the result.
        """


_ABSENT: Final = ""


@attrs.frozen(slots=True)
class RegisterModel:
    """Independent registers without revisions; a cas compares with ``expected_value``."""

    per_key: bool = True

    def initial(self) -> str:
        """Absent: no register holds the empty text."""
        return _ABSENT

    def step(self, state: str, operation: Operation) -> str | None:
        """See ``Model``."""
        certain = operation.outcome is Outcome.OK
        if operation.f == "get":
            return None if certain and (operation.seen or _ABSENT) != state else state
        if operation.f == "put":
            return operation.value
        matches = (operation.expected_value or _ABSENT) == state
        if certain and matches != operation.applied:
            return None
        if certain and not matches and (operation.seen or _ABSENT) != state:
            return None
        return operation.value if matches else state


StoreState = tuple[int, tuple[tuple[str, str, int], ...]]
"""Revision, and (key, value, modification revision) sorted by key."""


@attrs.frozen(slots=True)
class StoreModel:
    """The whole store with revisions, as etcd promises it: every key in one order.

    Slower than the revision-aware checker by design: it believes nothing and searches.
    """

    base_revision: int = 1
    per_key: bool = False

    def initial(self) -> StoreState:
        """An empty store."""
        return self.base_revision, ()

    def step(self, state: StoreState, operation: Operation) -> StoreState | None:
        """See ``Model``."""
        revision, contents = state
        held = next((item for item in contents if item[0] == operation.key), None)
        value, modified = (held[1], held[2]) if held is not None else (None, 0)
        certain = operation.outcome is Outcome.OK
        writes = operation.f == "put" or (operation.f == "cas" and operation.expected == modified)
        if not writes:
            result = (operation.revision, operation.seen, operation.seen_revision)
            if certain and (operation.applied or result != (revision, value, modified)):
                return None
            return state
        refused = operation.f == "cas" and not operation.applied
        if certain and (refused or operation.revision != revision + 1):
            return None
        others = tuple(item for item in contents if item[0] != operation.key)
        changed = (operation.key, operation.value or "", revision + 1)
        return revision + 1, tuple(sorted((*others, changed)))


class _Entry(Generic[S]):
    """A call or a return in the time-ordered list."""

    __slots__ = ("after", "before", "bit", "is_return", "match", "operation")

    def __init__(self, operation: Operation | None, is_return: bool, bit: int) -> None:
        self.operation = operation
        self.is_return = is_return
        self.bit = bit
        self.match: _Entry[S] | None = None
        self.before: _Entry[S] | None = None
        self.after: _Entry[S] | None = None


def check_wgl(
    operations: Sequence[Operation], model: Model[S], steps_max: int = STEPS_MAX
) -> CheckResult:
    """Search for an order of ``operations`` that ``model`` allows and real time permits.

    Args:
        operations: failed ones are left out: they had no effect.
        model: the sequential machine.
        steps_max: budget, for all keys together.
    """
    findings = Findings()
    relevant = [
        operation
        for operation in operations
        if operation.outcome is Outcome.OK
        or (operation.outcome is Outcome.UNKNOWN and operation.may_write)
    ]
    groups: dict[str, list[Operation]] = {}
    for operation in relevant:
        groups.setdefault(operation.key if model.per_key else "", []).append(operation)
    undecided = False
    for key, group in sorted(groups.items()):
        verdict, steps, furthest = _search(group, model, steps_max)
        steps_max -= steps
        if verdict is Verdict.UNKNOWN:
            undecided = True
        elif verdict is Verdict.VIOLATED:
            findings.add(
                Kind.NOT_LINEARIZABLE,
                f"no order of the {len(group)} operations{f' on {key}' if key else ''} explains "
                f"their results; the search got stuck at operation {furthest}",
                (furthest,),
            )
    return findings.result(CHECKER, Verdict.UNKNOWN if undecided else Verdict.OK)


def _build(operations: Sequence[Operation]) -> _Entry[S]:
    """The list of calls and returns by time; a call comes before a return of the same instant."""
    events: list[tuple[int, int, int, _Entry[S]]] = []
    for number, operation in enumerate(operations):
        call: _Entry[S] = _Entry(operation, False, 1 << number)
        events.append((operation.start, 0, number, call))
        if operation.outcome is Outcome.OK:
            back: _Entry[S] = _Entry(operation, True, 1 << number)
            call.match = back
            end = operation.end if operation.end is not None else operation.start
            events.append((end, 1, number, back))
    events.sort(key=lambda event: event[:3])
    head: _Entry[S] = _Entry(None, False, 0)
    last = head
    for _, _, _, entry in events:
        last.after, entry.before = entry, last
        last = entry
    return head


def _lift(entry: _Entry[S]) -> None:
    for out in (entry, entry.match):
        if out is not None:
            assert out.before is not None
            out.before.after = out.after
            if out.after is not None:
                out.after.before = out.before


def _unlift(entry: _Entry[S]) -> None:
    for back in (entry.match, entry):
        if back is not None:
            assert back.before is not None
            back.before.after = back
            if back.after is not None:
                back.after.before = back


def _search(
    operations: Sequence[Operation], model: Model[S], steps_max: int
) -> tuple[Verdict, int, int]:
    """Return the verdict, the model steps it took, and the operation where it was stuck last."""
    head: _Entry[S] = _build(operations)
    state = model.initial()
    applied, required = 0, sum(op.outcome is Outcome.OK for op in operations)
    seen: set[tuple[int, S]] = set()
    undo: list[tuple[_Entry[S], S]] = []
    steps, deepest, furthest = 0, -1, operations[0].id if operations else 0
    entry = head.after
    while required:
        assert entry is not None and entry.operation is not None
        if not entry.is_return:
            if steps >= steps_max:
                return Verdict.UNKNOWN, steps, furthest
            steps += 1
            following = model.step(state, entry.operation)
            if following is not None and (applied | entry.bit, following) not in seen:
                seen.add((applied | entry.bit, following))
                undo.append((entry, state))
                state, applied = following, applied | entry.bit
                required -= entry.match is not None
                _lift(entry)
                entry = head.after
            else:
                entry = entry.after
            continue
        if len(undo) > deepest and entry.operation is not None:
            deepest, furthest = len(undo), entry.operation.id
        if not undo:
            return Verdict.VIOLATED, steps, furthest
        last, state = undo.pop()
        applied ^= last.bit
        required += last.match is not None
        _unlift(last)
        entry = last.after
    return Verdict.OK, steps, furthest
