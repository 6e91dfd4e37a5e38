"""The lease workload: leases that are kept alive, left to expire, or revoked, with their keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from chaos.checkers.assumptions import LoadFloor
from chaos.checkers.durability import check_convergence
from chaos.checkers.leases import LATE_S, check_leases
from chaos.checkers.replay import check_replay
from chaos.history.format import Notice, Operation, Outcome, SeenEvent, Watcher
from chaos.workloads.base import Check, Setting, WorkloadOptions
from chaos.workloads.kv import KvProcess, KvWorkload
from kvstore.client import AsyncClient, EtcdError, EventType, LeaseLost

TTL_S: Final = 2
RENEWALS_MAX: Final = 8
"""How often a lease is kept alive at most, before it is left alone or revoked."""

PREFIX: Final = "lease/"
POLL_S: Final = 0.2


class LeaseWorkload(KvWorkload):
    """Each client leads one lease at a time through its life: two keys, some renewals, an end.

    A watch of all the keys, on links without faults, says when they were gone.
    """

    name = "lease"
    defaults = WorkloadOptions(rate=40.0)
    floor = LoadFloor(ok_per_s=2.0, writes=10, reads=2)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._told = 0
        """The revision of the last deletion that the watch has told."""

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (check_leases, check_replay, check_convergence)

    def helpers(self) -> Sequence[Callable[[KvProcess], Awaitable[None]]]:
        """The watch; it must be there before the first lease ends, which takes its time."""
        return [self._follow]

    async def step(self, process: KvProcess) -> None:
        """See ``Workload``: the next thing in the life of this client's lease."""
        memory, rng = process.memory, process.rng
        if rng.random() < 0.1:
            await self._read(process)
            return
        lease: int = memory.get("lease", 0)
        if not lease:
            operation = await self._grant(process)
            if operation.outcome is Outcome.OK:
                memory.update(lease=operation.input["lease"], keys=0)
                memory["renewals"] = rng.randint(0, RENEWALS_MAX)
            return
        if memory["keys"] < 2:
            operation = await self._attach(process, lease, f"{PREFIX}{lease:x}/{memory['keys']}")
            memory["keys"] += 1
        elif memory["renewals"] > 0:
            operation = await self._keep_alive(process, lease)
            memory["renewals"] -= 1
        elif rng.random() < 0.3:
            operation = await self._revoke(process, lease)
            memory["lease"] = 0
        else:
            memory["lease"] = 0  # left to expire
            return
        if operation.outcome is not Outcome.OK:
            memory["lease"] = 0

    async def final_read(self, process: KvProcess) -> None:
        """Wait until every lease should be gone, or is, and read what is left."""
        deadline = asyncio.get_running_loop().time() + TTL_S + LATE_S + 1.0
        while asyncio.get_running_loop().time() < deadline:
            operation = await self._read(process)
            if operation.outcome is Outcome.OK and not operation.output["keys"]:
                return
            await asyncio.sleep(POLL_S)

    async def _grant(self, process: KvProcess) -> Operation:
        identity = process.rng.randrange(1, 2**62)

        async def send(operation: Operation) -> None:
            granted = await process.client.lease_grant(TTL_S, identity)
            operation.output = {"ttl": granted.ttl_s}

        asked = {"lease": identity, "ttl": TTL_S}
        return await process.attempt("grant", "", send, input=asked)

    async def _attach(self, process: KvProcess, lease: int, key: str) -> Operation:
        async def send(operation: Operation) -> None:
            result = await process.client.put(key, process.unique(), lease=lease)
            operation.revision = result.header.revision

        return await process.attempt("put", key, send, input={"lease": lease})

    async def _keep_alive(self, process: KvProcess, lease: int) -> Operation:
        async def send(operation: Operation) -> None:
            try:
                ttl_s = await process.client.lease_keepalive(lease)
            except LeaseLost:
                ttl_s = 0
            operation.output = {"ttl": ttl_s}

        asked = {"lease": lease, "ttl": TTL_S}
        return await process.attempt("keepalive", "", send, input=asked)

    async def _revoke(self, process: KvProcess, lease: int) -> Operation:
        async def send(operation: Operation) -> None:
            await process.client.lease_revoke(lease)

        return await process.attempt("revoke", "", send, input={"lease": lease})

    async def _read(self, process: KvProcess) -> Operation:
        async def send(operation: Operation) -> None:
            found = await process.client.range(PREFIX, prefix=True, keys_only=True)
            operation.revision = found.header.revision
            operation.output = {"keys": [kv.key.decode() for kv in found.kvs]}

        return await process.attempt("read", "", send)

    async def _follow(self, process: KvProcess) -> None:
        """Note when each key was gone, until every client has ended."""
        start = self._base_revision + 1
        watcher = self.setting.recorder.watcher(
            Watcher(0, "direct", PREFIX, prefix=True, start=start, skip=("put",))
        )
        reading = asyncio.create_task(
            self.at_members(lambda client: self._note_deletions(client, watcher))
        )
        try:
            while not self.stopping.is_set() and not reading.done():
                await asyncio.wait({reading}, timeout=POLL_S)
        finally:
            reading.cancel()
            ended = (await asyncio.gather(reading, return_exceptions=True))[0]
        if isinstance(ended, Exception) and not isinstance(ended, EtcdError):
            raise ended

    async def _note_deletions(self, client: AsyncClient, watcher: Watcher) -> None:
        start = max(watcher.start, self._told + 1)
        watch = client.watch(PREFIX, prefix=True, start_revision=start, skip=[EventType.PUT])
        try:
            async for batch in watch.batches():
                seen = tuple(
                    SeenEvent(event.kv.key.decode(), None, event.kv.mod_revision)
                    for event in batch.events
                )
                if seen:
                    notice = Notice(0, "events", batch.header.revision, seen)
                    self.setting.recorder.notice(watcher, notice)
                    self._told = seen[-1].revision
        finally:
            await watch.close()
