"""The register workload: unique puts, linearizable gets, compare-and-sets on a few hot keys.

Rules that make its history worth checking (etcd's robustness tests and Jepsen keep the same): every
written value is unique; a process has one request outstanding; a request whose outcome is unknown
ends its process, and a new one takes its place; nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Final

import attrs

from chaos.cluster.rpc import CallFailed, MemberClient, outcome_of
from chaos.history.format import Operation, Outcome
from chaos.history.recorder import Recorder
from kvstore.pb import etcdserverpb_pb2 as pb

OPERATIONS: Final = ("put", "get", "get", "cas")
FAILURE_PAUSE_S: Final = 0.05
"""A client that was refused waits this long, so that a dead member is not hammered."""


@attrs.frozen(slots=True)
class RegisterOptions:
    """How hard the workload works.

    Args:
        clients: processes at any time.
        keys: registers; few, so that operations meet.
        rate: operations a second over all clients, at most.
        timeout_s: deadline of one request.
        hop: chance that a client goes on at another member after an operation.
    """

    clients: int = 6
    keys: int = 3
    rate: float = 300.0
    timeout_s: float = 1.0
    hop: float = 0.1


class RegisterWorkload:
    """Runs clients until told to stop.

    Args:
        addresses: the members' "host:port" for clients, by name: their client links.
        recorder: where the history goes.
        rng: source of every choice.
        options: how hard it works.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        recorder: Recorder,
        rng: Random,
        options: RegisterOptions,
    ) -> None:
        self._addresses = dict(addresses)
        self._recorder = recorder
        self._options = options
        self._keys = [f"register/{number}" for number in range(options.keys)]
        self._processes = itertools.count()
        self._stopping = asyncio.Event()
        self._seeds = [rng.randrange(2**63) for _ in range(options.clients)]

    def stop(self) -> None:
        """Let each client finish its operation and end."""
        self._stopping.set()

    async def run(self) -> None:
        """Run all clients until ``stop``."""
        async with asyncio.TaskGroup() as group:
            for seed in self._seeds:
                group.create_task(self._client(Random(seed)))

    async def final_reads(self) -> None:
        """Read every register once at every member, as new processes. Call it after ``run``."""
        for member, address in self._addresses.items():
            async with MemberClient(address, self._options.timeout_s) as client:
                for key in self._keys:
                    await self._once(client, member, next(self._processes), "get", key, 0, "")

    async def _client(self, rng: Random) -> None:
        clients = {
            member: MemberClient(address, self._options.timeout_s)
            for member, address in self._addresses.items()
        }
        members = sorted(clients)
        member, process, counter = rng.choice(members), next(self._processes), 0
        seen_revision = dict.fromkeys(self._keys, 0)
        pause_s = self._options.clients / self._options.rate
        loop = asyncio.get_running_loop()
        try:
            while not self._stopping.is_set():
                due = loop.time() + rng.uniform(0, 2 * pause_s)
                key, f = rng.choice(self._keys), rng.choice(OPERATIONS)
                counter += 1
                value = f"{process}-{counter}"
                operation = await self._once(
                    clients[member], member, process, f, key, seen_revision[key], value
                )
                if operation.outcome is Outcome.OK:
                    seen_revision[key] = (
                        operation.revision if operation.wrote else operation.seen_revision
                    )
                else:
                    due = max(due, loop.time() + FAILURE_PAUSE_S)
                if operation.outcome is Outcome.UNKNOWN:
                    process, counter = next(self._processes), 0
                if operation.outcome is not Outcome.OK or rng.random() < self._options.hop:
                    member = rng.choice(members)
                await self._wait_until(due)
        finally:
            for client in clients.values():
                await client.close()

    async def _wait_until(self, due: float) -> None:
        delay = due - asyncio.get_running_loop().time()
        if delay <= 0:
            return
        try:
            async with asyncio.timeout(delay):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _once(
        self,
        client: MemberClient,
        member: str,
        process: int,
        f: str,
        key: str,
        expected: int,
        value: str,
    ) -> Operation:
        """Send one operation and record it."""
        operation = self._recorder.invoke(
            process,
            f,
            key,
            value=None if f == "get" else value,
            expected=expected if f == "cas" else None,
        )
        operation.node = member
        try:
            await _SEND[f](client, operation)
        except CallFailed as error:
            operation.error = str(error)
            outcome = Outcome.FAIL if f == "get" else outcome_of(error)
            self._recorder.complete(operation, outcome)
        except asyncio.CancelledError:
            operation.error = "the run was interrupted"
            self._recorder.complete(operation, Outcome.UNKNOWN)
            raise
        else:
            self._recorder.complete(operation, Outcome.OK)
        return operation


async def _put(client: MemberClient, operation: Operation) -> None:
    answer = await client.put(operation.key, operation.value or "")
    operation.revision = answer.header.revision


async def _get(client: MemberClient, operation: Operation) -> None:
    _take_read(operation, await client.get(operation.key))


async def _cas(client: MemberClient, operation: Operation) -> None:
    answer = await client.compare_and_set(
        operation.key, operation.expected or 0, operation.value or ""
    )
    operation.applied = answer.succeeded
    if not answer.succeeded:
        _take_read(operation, answer.responses[0].response_range)
    operation.revision = answer.header.revision


def _take_read(operation: Operation, answer: pb.RangeResponse) -> None:
    operation.revision = answer.header.revision
    if answer.kvs:
        operation.seen = answer.kvs[0].value.decode(errors="replace")
        operation.seen_revision = answer.kvs[0].mod_revision


_SEND: Final[Mapping[str, Callable[[MemberClient, Operation], Awaitable[None]]]] = {
    "put": _put,
    "get": _get,
    "cas": _cas,
}
