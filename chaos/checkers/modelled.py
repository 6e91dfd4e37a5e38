"""Histories of any state machine against a model of it: the machine as a plain program.

A model says what one call after the other would do and answer. The search (``chaos.checkers.wgl``)
looks for an order of the calls that is possible in real time and in which the model gives the very
answers that the clients got.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, Protocol

import attrs

from chaos.checkers.wgl import STEPS_MAX, check_wgl
from chaos.history.format import History, Operation, Outcome
from chaos.verdict import CheckResult, Finding, Kind, Verdict

CHECKER: Final = "model"


class SequentialModel(Protocol):
    """What a machine should do, one call after the other. States are values, and hashable."""

    per_key: bool
    """True if calls with different keys do not touch each other: each key then has a state of its
    own and is searched alone, which is what makes long histories possible."""

    def initial(self) -> Hashable:
        """The state before the first call (of one key, with ``per_key``)."""

    def step(self, state: Any, method: str, arguments: dict[str, Any]) -> tuple[Hashable, Any]:
        """Return the state after a call, and its answer as JSON has it."""


class _Searched:
    """A sequential model as the search wants it."""

    def __init__(self, model: SequentialModel) -> None:
        self.model = model
        self.per_key = model.per_key

    def initial(self) -> Any:
        return self.model.initial()

    def step(self, state: Any, operation: Operation) -> Any:
        call = operation.input
        following, answer = self.model.step(state, call["method"], call["args"])
        if operation.outcome is Outcome.OK and _plain(answer) != operation.output:
            return None
        return following


def _plain(answer: Any) -> Any:
    """An answer as it comes back from JSON."""
    if isinstance(answer, list | tuple):
        return [_plain(each) for each in answer]
    if isinstance(answer, dict):
        return {key: _plain(each) for key, each in answer.items()}
    return answer


def check_against(history: History, model: SequentialModel) -> CheckResult:
    """Search for an order that explains every answer; ``unknown`` if the budget runs out."""
    operations = [
        operation
        for operation in history.operations
        if isinstance(operation.input, dict) and "method" in operation.input
    ]
    result = check_wgl(operations, _Searched(model), STEPS_MAX)
    by_id = {operation.id: operation for operation in operations}
    told = [
        attrs.evolve(finding, text=f"{finding.text}{_explain(finding.operations, by_id)}")
        for finding in result.findings
    ]
    if result.verdict is Verdict.UNKNOWN:
        told.append(Finding(Kind.UNDECIDED, "the search for an order ran out of its budget"))
    return attrs.evolve(result, checker=CHECKER, findings=tuple(told))


def _explain(ids: tuple[int, ...], by_id: dict[int, Operation]) -> str:
    """The calls in words."""
    calls = []
    for number in ids:
        operation = by_id.get(number)
        if operation is not None:
            call = operation.input
            arguments = ", ".join(f"{name}={value!r}" for name, value in call["args"].items())
            calls.append(f": {call['method']}({arguments}) was answered {operation.output!r}")
    return "".join(calls)
