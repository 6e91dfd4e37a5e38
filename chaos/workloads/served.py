"""Workloads on our own state machines, served by ``raftyard serve``: a counter and a queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from chaos.checkers.assumptions import LoadFloor
from chaos.checkers.durability import check_convergence
from chaos.checkers.exactlyonce import check_exactly_once
from chaos.checkers.queues import check_queue
from chaos.history.format import Operation, Outcome
from chaos.workloads.base import FINAL_TIMEOUT_S, Check, WorkloadOptions
from chaos.workloads.machine import MachineProcess, MachineWorkload
from consensus import ConsensusError, Node
from consensus.client import Client
from consensus.methods import encode_call
from statemachines import Counter, Session, SessionMachine

DRAIN_MAX: Final = 100_000
"""Pops at the end: more items than a run can push."""


def session_counter() -> SessionMachine:
    """The machine of the counter workload, for ``raftyard serve``."""
    return SessionMachine(Counter())


class CounterWorkload(MachineWorkload):
    """Additions of 1 in sessions, repeated at any member until they are answered.

    Sessions promise that a repetition has no effect; the counter would tell.
    """

    name = "counter"
    machine = "chaos.workloads.served:session_counter"
    defaults = WorkloadOptions(rate=150.0, timeout_s=4.0)
    floor = LoadFloor(ok_per_s=1.0, reads=3)

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (check_exactly_once, check_convergence)

    def connect(self, address: str, timeout_s: float) -> Client:
        """A client that goes on at another member when this one cannot answer."""
        others = [each for each in self.setting.addresses.values() if each != address]
        return Client([address, *others])

    async def step(self, process: MachineProcess) -> None:
        """See ``Workload``."""
        if process.rng.random() < 0.15:
            await self.final_read(process)
            return
        session: Session | None = process.memory.get("session")
        if session is None:
            # A session takes whatever has a node's propose and query; a client has.
            session = Session(cast(Node, process.client))
            try:
                await session.open(process.timeout_s)
            except ConsensusError:
                process.failed = True
                return
            process.memory["session"] = session

        async def send(operation: Operation) -> None:
            applied = await session.propose(encode_call("add", {"amount": 1}), process.timeout_s)
            operation.output = applied.result

        operation = await process.attempt("add", "", send)
        if operation.outcome is not Outcome.OK:
            process.memory.pop("session", None)

    async def final_read(self, process: MachineProcess) -> None:
        """Read the count."""

        async def send(operation: Operation) -> None:
            operation.output = await process.client.query(
                encode_call("read", {}), timeout_s=process.timeout_s
            )

        await process.attempt("read", "", send)


class QueueWorkload(MachineWorkload):
    """Pushes of unique items and pops; at the end the queue is emptied."""

    name = "queue"
    machine = "statemachines:Queue"
    defaults = WorkloadOptions(rate=200.0)
    floor = LoadFloor(ok_per_s=1.0, reads=0)

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (check_queue, check_convergence)

    async def step(self, process: MachineProcess) -> None:
        """See ``Workload``."""
        if process.rng.random() < 0.5:
            await self._push(process, process.unique())
        else:
            await self._pop(process)

    async def final_read(self, process: MachineProcess) -> None:
        """Pop until the queue says that it is empty."""
        process.timeout_s = FINAL_TIMEOUT_S
        for _ in range(DRAIN_MAX):
            operation = await self._pop(process)
            if operation.outcome is Outcome.OK and operation.output is None:
                return

    async def _push(self, process: MachineProcess, item: str) -> Operation:
        async def send(operation: Operation) -> None:
            command = encode_call("push", {"item": item})
            applied = await process.client.propose(command, process.timeout_s)
            operation.output = applied.result

        return await process.attempt("push", "", send, input=item)

    async def _pop(self, process: MachineProcess) -> Operation:
        async def send(operation: Operation) -> None:
            applied = await process.client.propose(encode_call("pop", {}), process.timeout_s)
            operation.output = applied.result

        return await process.attempt("pop", "", send)
