"""What differs from etcd 3.4.23 on purpose, each by name, with the etcd change that it follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from tests.differential.compare import Difference
from tests.differential.operations import Answer, Operation
from tests.differential.watching import Watcher


@attrs.frozen(slots=True)
class ExpectedDifference:
    """A named difference: which etcd change it follows, and which answers it explains."""

    name: str
    follows: str
    explains: Callable[[Operation, Answer, Answer, Sequence[Difference]], bool]


ANSWERS: Final[tuple[ExpectedDifference, ...]] = ()


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
    return ""
