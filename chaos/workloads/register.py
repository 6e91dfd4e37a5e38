"""The register workload: unique puts, linearizable gets, compare-and-sets on a few hot keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from chaos.checkers.assumptions import LoadFloor
from chaos.checkers.durability import check_convergence, check_durability, check_explained
from chaos.checkers.linearizability import check_revisions
from chaos.history.format import Operation, Outcome
from chaos.workloads.base import Check, WorkloadOptions
from chaos.workloads.kv import KvProcess, KvWorkload, take_read
from kvstore.client import Get, Put, RangeResult, mod_revision


class RegisterWorkload(KvWorkload):
    """Each operation carries the store's revision, so that the checker need not search."""

    name = "register"
    operations: ClassVar[Sequence[str]] = ("put", "get", "get", "cas")
    """What a client draws from."""

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (check_durability, check_convergence, check_explained, check_revisions)

    def key(self, number: int) -> str:
        """The name of a register."""
        return f"{self.name}/{number}"

    def encode(self, value: str) -> bytes:
        """What is stored for a value; ``decode`` is its reverse."""
        return value.encode()

    async def step(self, process: KvProcess) -> None:
        """See ``Workload``."""
        key = self.key(process.rng.randrange(self.options.keys))
        f = process.rng.choice(self.operations)
        seen: int = process.memory.get(key, 0)
        if f == "get":
            operation = await self.get(process, key)
        elif f == "put":
            operation = await self.put(process, key)
        else:
            operation = await self.compare_and_set(process, key, seen)
        if operation.outcome is Outcome.OK:
            process.memory[key] = operation.revision if operation.wrote else operation.seen_revision

    async def final_read(self, process: KvProcess) -> None:
        """See ``Workload``."""
        for number in range(self.options.keys):
            await self.get(process, self.key(number))

    async def get(self, process: KvProcess, key: str) -> Operation:
        """A linearizable read."""

        async def send(operation: Operation) -> None:
            take_read(operation, await process.client.range(key), self.decode)

        return await process.attempt("get", key, send)

    async def put(self, process: KvProcess, key: str) -> Operation:
        """A put of a value of its own."""
        value = process.unique()

        async def send(operation: Operation) -> None:
            operation.revision = (await process.client.put(key, self.encode(value))).header.revision

        return await process.attempt("put", key, send, value=value)

    async def compare_and_set(self, process: KvProcess, key: str, expected: int) -> Operation:
        """A put if the key was last modified at ``expected``, else a read."""
        value = process.unique()

        async def send(operation: Operation) -> None:
            result = await process.client.txn(
                when=[mod_revision(key) == expected],
                then=[Put(key, self.encode(value))],
                otherwise=[Get(key)],
            )
            operation.applied = result.succeeded
            found = result.responses[0]
            if isinstance(found, RangeResult):
                take_read(operation, found, self.decode)
            operation.revision = result.header.revision

        return await process.attempt("cas", key, send, value=value, expected=expected)


class CompareAndSetWorkload(RegisterWorkload):
    """Compare-and-sets that all want the same two registers."""

    name = "cas"
    operations = ("cas", "cas", "cas", "get")
    defaults = WorkloadOptions(keys=2)


class SnapshotWorkload(RegisterWorkload):
    """Many writes over many keys: who was away must catch up by a snapshot."""

    name = "snapshot"
    operations = ("put", "put", "put", "put", "get")
    defaults = WorkloadOptions(keys=50, rate=600.0, clients=8)


class LargeValueWorkload(RegisterWorkload):
    """Values of 64 KiB to 1 MiB; the history has only their unique beginning.

    What is read must be whole: anything else comes back as a value that nobody wrote.
    """

    name = "large"
    operations = ("put", "get", "cas")
    defaults = WorkloadOptions(clients=3, rate=25.0, timeout_s=3.0)
    floor = LoadFloor(ok_per_s=1.0, writes=5, reads=5)
    sizes: ClassVar[Sequence[int]] = (64 * 1024, 64 * 1024, 256 * 1024, 1024 * 1024 - 512)

    def encode(self, value: str) -> bytes:
        """The value, its size, and as many bytes, which follow from both."""
        size = self.sizes[sum(value.encode()) % len(self.sizes)]
        return f"{value}:{size}:".encode() + _filling(value, size)

    def decode(self, value: bytes) -> str:
        """See ``KvWorkload``."""
        name, _, rest = value.partition(b":")
        size, _, filling = rest.partition(b":")
        text = name.decode(errors="replace")
        if size.isdigit() and filling == _filling(text, int(size)):
            return text
        return f"damaged value of {len(value)} bytes that begins with {value[:32]!r}"


def _filling(value: str, size: int) -> bytes:
    pattern = f"<{value}>".encode()
    return (pattern * (size // len(pattern) + 1))[:size]
