"""The workload of a user's machine: calls that the user draws, judged by the user's model."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs

from chaos.checkers.durability import check_convergence
from chaos.checkers.modelled import SequentialModel, check_against
from chaos.history.format import History
from chaos.verdict import CheckResult
from chaos.workloads.base import Check, WorkloadFailed
from chaos.workloads.loading import load
from chaos.workloads.machine import MachineProcess, MachineWorkload


@attrs.frozen(slots=True)
class Call:
    """One call of a machine's method.

    Args:
        method: its name.
        arguments: by name; what JSON can say.
        key: what it touches, for models with ``per_key``.
        reads: True for a query.
    """

    method: str
    arguments: Mapping[str, Any] = attrs.field(factory=dict)
    key: str = ""
    reads: bool = False


class ModelWorkload(MachineWorkload):
    """Clients that make whatever calls ``draw`` says. See docs/CHAOS.md for an example.

    Two things are checked: that the answers are those of the model in some order that is possible
    in real time, and that all members end with the same state.
    """

    model: ClassVar[str] = ""
    """The model, "module:Model"; ``--model`` overrides it."""

    @abc.abstractmethod
    def draw(self, process: MachineProcess) -> Call:
        """What a client does next; every choice is drawn from ``process.rng``."""

    def last_calls(self) -> Sequence[Call]:
        """Queries that are made at every member after everything was mended."""
        return ()

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""

        def check_model(history: History) -> CheckResult:
            return check_against(history, _find_model(history.header.get("model") or cls.model))

        return (check_model, check_convergence)

    async def step(self, process: MachineProcess) -> None:
        """See ``Workload``."""
        await self._make(process, self.draw(process))

    async def final_read(self, process: MachineProcess) -> None:
        """See ``Workload``."""
        for call in self.last_calls():
            await self._make(process, call)

    async def _make(self, process: MachineProcess, call: Call) -> None:
        make = self.query if call.reads else self.propose
        await make(process, call.method, call.key, **call.arguments)


def _find_model(name: str) -> SequentialModel:
    if not name:
        raise WorkloadFailed("the workload needs a model to be judged by: --model module:Model")
    found = load(name)
    model: Any = found() if isinstance(found, type) else found
    missing = [part for part in ("per_key", "initial", "step") if not hasattr(model, part)]
    if missing:
        raise WorkloadFailed(f"{name} is no model: it lacks {', '.join(missing)}")
    return model  # type: ignore[no-any-return]
