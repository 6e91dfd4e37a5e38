"""What differs from etcd 3.4.23 on purpose, each by name, with the etcd change that it follows.

An entry explains a difference only where all that differs is what it describes; whatever else
differs in the same answer is still reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from kvstore.pb import mvccpb_pb2
from tests.differential.compare import Difference, message_differences
from tests.differential.operations import Answer, Operation
from tests.differential.watching import Watcher

Explains = Callable[[Operation, Answer, Answer, Sequence[Difference]], bool]


@attrs.frozen(slots=True)
class ExpectedDifference:
    """A named difference: which etcd change it follows, and which answers it explains."""

    name: str
    follows: str
    explains: Explains


def _invalid_sort_option(
    operation: Operation, expected: Answer, actual: Answer, differences: Sequence[Difference]
) -> bool:
    return (
        operation.method == "KV.Range"
        and operation.request.sort_order not in (0, 1, 2)
        and actual.code == "INVALID_ARGUMENT"
        and actual.details == "etcdserver: invalid sort option"
    )


def _alarm_header(
    operation: Operation, expected: Answer, actual: Answer, differences: Sequence[Difference]
) -> bool:
    return operation.method == "Maintenance.Alarm" and [d.path for d in differences] == [
        "header is there"
    ]


ANSWERS: Final[tuple[ExpectedDifference, ...]] = (
    ExpectedDifference(
        "invalid_sort_option",
        "3.5.3 and later refuse a sort order or target that is not in the enum (etcd #13554); "
        "3.4 ignores an unknown order and crashes on an unknown target",
        _invalid_sort_option,
    ),
    ExpectedDifference(
        "alarm_header", "3.5 and later send a header with an alarm answer", _alarm_header
    ),
)

TOMBSTONE_AT_COMPACTED_REVISION: Final = "tombstone_at_compacted_revision"
"""3.5.16 and later keep a deletion that happened at the compacted revision itself (etcd #18089), so
that a watch from there sees it; 3.4.23 loses the event."""


def explain_answer(
    operation: Operation, expected: Answer, actual: Answer, differences: Sequence[Difference]
) -> str:
    """The name of the expected difference that explains these; empty when none does."""
    for candidate in ANSWERS:
        if candidate.explains(operation, expected, actual, differences):
            return candidate.name
    return ""


def explain_watcher(expected: Watcher, actual: Watcher) -> str:
    """The same for what two watchers were sent."""
    first = expected.request.start_revision
    extra = 0
    for event in actual.events:
        if event.kv.mod_revision != first or event.type != mvccpb_pb2.Event.DELETE:
            break
        extra += 1
    rest = actual.events[extra:]
    if not extra or len(rest) != len(expected.events):
        return ""
    same = not any(
        message_differences(one, other) for one, other in zip(expected.events, rest, strict=True)
    )
    faults = expected.faults or actual.faults
    return TOMBSTONE_AT_COMPACTED_REVISION if same and not faults else ""
