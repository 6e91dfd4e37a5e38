"""The compaction workload: registers that are also deleted, read at any revision, and compacted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chaos.checkers.durability import check_convergence, check_durability, check_explained
from chaos.checkers.linearizability import check_revisions
from chaos.checkers.replay import COMPACTED, FUTURE, check_replay
from chaos.history.format import Operation, Outcome
from chaos.workloads.base import Check
from chaos.workloads.kv import KvProcess
from chaos.workloads.register import RegisterWorkload
from kvstore.client import EtcdError
from kvstore.errors import COMPACTED as COMPACTED_STATUS
from kvstore.errors import FUTURE_REVISION

PAST_MAX: Final = 60
"""How far back a read may go, in revisions."""

AHEAD_MAX: Final = 5
"""How far ahead of what its client knows a read may ask."""

FUTURE_SHARE: Final = 0.1
"""So many compactions ask for a revision that has not come."""

FAR_AHEAD: Final = 1_000_000


class CompactionWorkload(RegisterWorkload):
    """Puts, deletions and reads of now, of the past and of one member's own state; compactions."""

    name = "compaction"
    operations = ("put", "put", "get", "delete", "past", "past", "stale", "compact")

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (
            *(check_durability, check_convergence, check_explained),
            *(check_revisions, check_replay),
        )

    async def step(self, process: KvProcess) -> None:
        """See ``Workload``."""
        key = self.key(process.rng.randrange(self.options.keys))
        f = process.rng.choice(self.operations)
        known: int = process.memory.get("revision", 1)
        at = max(1, known + process.rng.randint(-PAST_MAX, AHEAD_MAX))
        if f == "put":
            operation = await self.put(process, key)
        elif f == "get":
            operation = await self.get(process, key)
        elif f == "delete":
            operation = await self.delete(process, key)
        elif f == "compact":
            # Never beyond what the reference was told: it could not go on after a fault.
            future = process.rng.random() < FUTURE_SHARE
            target = known + FAR_AHEAD if future else min(at, self.watched)
            operation = await self.compact(process, target)
        else:
            operation = await self.read(process, at if f == "past" else 0, known, f == "stale")
        if operation.outcome is Outcome.OK:
            process.memory["revision"] = max(known, operation.revision)

    async def final_read(self, process: KvProcess) -> None:
        """See ``Workload``."""
        await super().final_read(process)
        await self.read(process, 0, 0, serializable=True)

    async def delete(self, process: KvProcess, key: str) -> Operation:
        """Delete a register; without effect, and without a revision, if it is absent."""

        async def send(operation: Operation) -> None:
            result = await process.client.delete(key)
            operation.output = {"deleted": result.deleted}
            operation.revision = result.header.revision if result.deleted else 0

        return await process.attempt("delete", key, send)

    async def compact(self, process: KvProcess, revision: int) -> Operation:
        """Forget what is before ``revision``; refused if it is forgotten, or has not come yet."""

        async def send(operation: Operation) -> None:
            await process.client.compact(revision)

        return await process.attempt("compact", "", send, input={"revision": revision})

    async def read(self, process: KvProcess, at: int, known: int, serializable: bool) -> Operation:
        """Read all registers as they were at ``at`` (0: now)."""
        prefix = self.key(0)[:-1]

        async def send(operation: Operation) -> None:
            try:
                found = await process.client.range(
                    prefix, prefix=True, revision=at, serializable=serializable
                )
            except EtcdError as error:
                refusals = {COMPACTED_STATUS: COMPACTED, FUTURE_REVISION: FUTURE}
                if error.status not in refusals:
                    raise
                operation.output = {"error": refusals[error.status]}
                return
            operation.revision = found.header.revision
            operation.output = {
                "kvs": [
                    [kv.key.decode(), self.decode(kv.value), kv.mod_revision] for kv in found.kvs
                ]
            }

        asked = {"prefix": prefix, "at": at, "serializable": serializable, "known": known}
        return await process.attempt("read", "", send, input=asked)
