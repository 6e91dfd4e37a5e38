"""Workloads on any state machine, through the generic client of ``raftyard serve``.

An operation's ``input`` is ``{"method": ..., "args": {...}}`` and its ``output`` the result. Its
name ``f`` is the method for a command and ``read`` for a query.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from chaos.checkers.assumptions import LoadFloor
from chaos.cluster.rpc import CallFailed
from chaos.cluster.targets.base import Api
from chaos.cluster.targets.machine import machine_hash
from chaos.history.format import MemberState, Operation, Outcome
from chaos.workloads.base import Process, Workload
from consensus import ConsensusError, OutcomeUnknown
from consensus.client import Client
from consensus.methods import encode_call

HASH_TIMEOUT_S: Final = 20.0
"""How long the members have to reach one applied index after the run."""

HASH_CALL_S: Final = 5.0
POLL_S: Final = 0.05

MachineProcess = Process[Client]


class MachineWorkload(Workload[Client]):
    """The base of every workload on a served machine."""

    api = Api.MACHINE
    floor = LoadFloor(ok_per_s=1.0, reads=1)

    def connect(self, address: str, timeout_s: float) -> Client:
        """See ``Workload``."""
        return Client([address])

    async def disconnect(self, client: Client) -> None:
        """See ``Workload``."""
        await client.close()

    def outcome_of(self, error: Exception) -> Outcome | None:
        """See ``Workload``; the client says by its class whether a command may have been run."""
        if isinstance(error, OutcomeUnknown):
            return Outcome.UNKNOWN
        return Outcome.FAIL if isinstance(error, ConsensusError) else None

    async def propose(
        self, process: MachineProcess, method: str, key: str = "", **arguments: Any
    ) -> Operation:
        """Run a command of the machine and record it.

        Args:
            process: who runs it.
            method: the machine's method.
            key: what it touches, for models whose keys are independent (``Model.per_key``).
            arguments: of the method.
        """

        async def send(operation: Operation) -> None:
            command = encode_call(method, arguments)
            applied = await process.client.propose(command, process.timeout_s)
            operation.output, operation.revision = applied.result, applied.index

        call = {"method": method, "args": arguments}
        return await process.attempt(method, key, send, input=call)

    async def query(
        self, process: MachineProcess, method: str, key: str = "", **arguments: Any
    ) -> Operation:
        """Ask the machine, linearizably, and record it; see ``propose``."""

        async def send(operation: Operation) -> None:
            request = encode_call(method, arguments)
            answer = await process.client.query(request, timeout_s=process.timeout_s)
            operation.output = answer

        call = {"method": method, "args": arguments}
        return await process.attempt("read", key, send, input=call)

    async def collect(self) -> None:
        """Write down every member's hash, at one applied index if they reach one."""
        deadline = time.monotonic() + HASH_TIMEOUT_S
        while True:
            found: dict[str, tuple[int, str]] = {}
            for member, address in self.setting.direct.items():
                try:
                    found[member] = await machine_hash(address, HASH_CALL_S)
                except CallFailed:
                    continue
            positions = {position for position, _ in found.values()}
            level = len(found) == len(self.setting.direct) and len(positions) == 1
            if level or time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_S)
        for member, (position, digest) in found.items():
            self.setting.recorder.state(MemberState(member, position, digest))
