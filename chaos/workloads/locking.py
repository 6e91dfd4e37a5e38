"""Locks and elections, through the client's own recipes; and a holder that is paused on purpose.

One process plays the paused holder over and over: it takes the lock as the recipe does, but its
lease is kept alive by nobody, as if the process had been stopped. It waits until its place is gone
and another has written under the lock, and then it writes, believing that it holds it. With fencing
that write is refused; without, it takes effect, and the check must see it. So ``lock-unfenced``
must fail, and shows that ``lock`` could.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import ClassVar, Final

from chaos.checkers.assumptions import LoadFloor
from chaos.checkers.durability import check_convergence
from chaos.checkers.fencing import check_fencing
from chaos.checkers.replay import check_replay
from chaos.history.format import Operation, Outcome
from chaos.workloads.base import Check, NotApplied, Setting, WorkloadOptions
from chaos.workloads.kv import KvProcess, KvWorkload
from kvstore.client import (
    EtcdError,
    Leadership,
    LeaseLost,
    Lock,
    Put,
    SortOrder,
    SortTarget,
    create_revision,
)

TTL_S: Final = 2
"""Time to live of a contender's lease, in seconds."""

PAUSED_TTL_S: Final = 1
"""The same for the holder that is paused, so that the others need not wait long."""

ACQUIRE_S: Final = 6.0
"""How long a contender waits for its turn."""

PAUSE_MAX_S: Final = 12.0
"""How long the paused holder waits for another to write, before it gives up and tries again."""

WRITES_MAX: Final = 3
POLL_S: Final = 0.05


class LockWorkload(KvWorkload):
    """Contenders take turns; each write compares the fencing token in the same transaction."""

    name = "lock"
    defaults = WorkloadOptions(clients=4, rate=60.0)
    floor = LoadFloor(ok_per_s=1.0, writes=5, reads=0)
    fenced: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._written_token = 0
        self.late_writes = 0
        """How often a holder that had been paused, and had lost the lock, tried to write."""

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (check_fencing, check_replay, check_convergence)

    def helpers(self) -> Sequence[Callable[[KvProcess], Awaitable[None]]]:
        """The holder that is paused."""
        return [self._paused_holder]

    async def step(self, process: KvProcess) -> None:
        """See ``Workload``: wait for the lock, write under it, let it go."""
        lock = process.client.lock(self.name, ttl_s=TTL_S)

        async def acquire(operation: Operation) -> None:
            await self._enter(lock)
            operation.output = {"key": lock.key.decode(), "token": lock.fencing_token}

        operation = await process.attempt("acquire", "", acquire, input={"name": self.name})
        if operation.outcome is not Outcome.OK:
            return
        try:
            for _ in range(process.rng.randint(1, WRITES_MAX)):
                if lock.is_held and not self.stopping.is_set():
                    await self._write(process, lock.key.decode(), lock.fencing_token)
        finally:
            await lock.__aexit__(None, None, None)

    async def _enter(self, candidacy: Lock | Leadership) -> None:
        """Wait for one's turn, for a while."""
        try:
            async with asyncio.timeout(ACQUIRE_S):
                await candidacy.__aenter__()
        except TimeoutError:
            raise NotApplied(f"its turn did not come in {ACQUIRE_S:g} s") from None

    async def _write(self, process: KvProcess, key: str, token: int) -> Operation:
        """Write to what the lock protects."""
        value = f"{token}:{process.unique()}"

        async def send(operation: Operation) -> None:
            when = [create_revision(key) == token] if self.fenced else []
            result = await process.client.txn(when=when, then=[Put(f"{self.name}-data", value)])
            operation.output = {"applied": result.succeeded}
            operation.revision = result.header.revision if result.succeeded else 0

        asked = {"name": self.name, "key": key, "token": token}
        operation = await process.attempt("write", "", send, input=asked)
        if operation.outcome is Outcome.OK and operation.output["applied"]:
            self._written_token = max(self._written_token, token)
        return operation

    # The paused holder.

    async def _paused_holder(self, process: KvProcess) -> None:
        while not self.stopping.is_set():
            with suppress(EtcdError):
                await self._hold_and_pause(process)
            process.hop()
            await self.wait_until(asyncio.get_running_loop().time() + POLL_S)

    async def _hold_and_pause(self, process: KvProcess) -> None:
        lease = (await process.client.lease_grant(PAUSED_TTL_S)).id
        key = f"{self.name}/{lease:x}"
        entered = await process.client.txn(
            when=[create_revision(key) == 0], then=[Put(key, "", lease=lease)]
        )
        token = entered.header.revision

        async def acquire(operation: Operation) -> None:
            while not await self._is_first(process, key):
                if (await process.client.get(key)) is None:
                    raise NotApplied("its lease ended before its turn came")
                await process.client.lease_keepalive(lease)
                await asyncio.sleep(POLL_S)
            operation.output = {"key": key, "token": token}

        operation = await process.attempt("acquire", "", acquire, input={"name": self.name})
        if operation.outcome is not Outcome.OK:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PAUSE_MAX_S
        while self._written_token <= token:  # the pause: nobody keeps the lease alive
            if loop.time() > deadline or self.stopping.is_set():
                return
            await asyncio.sleep(POLL_S)
        operation = await self._write(process, key, token)
        self.late_writes += operation.outcome is Outcome.OK

    async def _is_first(self, process: KvProcess, key: str) -> bool:
        found = await process.client.range(
            f"{self.name}/",
            prefix=True,
            limit=1,
            sort_by=SortTarget.CREATE,
            order=SortOrder.ASCEND,
            keys_only=True,
        )
        return bool(found.kvs) and found.kvs[0].key.decode() == key


class UnfencedLockWorkload(LockWorkload):
    """The same lock, whose holders write without their token: it must be seen to fail."""

    name = "lock-unfenced"
    fenced = False
    unsafe = "a holder that was paused for longer than its lease writes after another has"


class ElectionWorkload(LockWorkload):
    """Candidates campaign and proclaim; observers ask who leads."""

    name = "election"
    floor = LoadFloor(ok_per_s=1.0, writes=5, reads=2)

    def helpers(self) -> Sequence[Callable[[KvProcess], Awaitable[None]]]:
        """Two observers."""
        return [self._observer, self._observer]

    async def step(self, process: KvProcess) -> None:
        """See ``Workload``: campaign, proclaim a few times, resign."""
        leadership = process.client.campaign(self.name, process.unique(), ttl_s=TTL_S)

        async def campaign(operation: Operation) -> None:
            await self._enter(leadership)
            operation.output = {"key": leadership.key.decode(), "token": leadership.fencing_token}

        operation = await process.attempt("acquire", "", campaign, input={"name": self.name})
        if operation.outcome is not Outcome.OK:
            return
        try:
            for _ in range(process.rng.randint(1, WRITES_MAX)):
                if leadership.is_held and not self.stopping.is_set():
                    await self._proclaim(process, leadership)
        finally:
            await leadership.__aexit__(None, None, None)

    async def final_read(self, process: KvProcess) -> None:
        """See who leads, if anybody does."""
        await self._observe(process)

    async def _proclaim(self, process: KvProcess, leadership: Leadership) -> None:
        value = process.unique()

        async def send(operation: Operation) -> None:
            try:
                result = await leadership.proclaim(value)
            except LeaseLost:
                operation.output = {"applied": False}
                return
            operation.output = {"applied": True}
            operation.revision = result.header.revision

        token = leadership.fencing_token
        asked = {"name": self.name, "key": leadership.key.decode(), "token": token}
        await process.attempt("write", "", send, input=asked)

    async def _observer(self, process: KvProcess) -> None:
        pause_s = 2 / self.options.rate
        while not self.stopping.is_set():
            await self._observe(process)
            if process.failed:
                process.hop()
            await self.wait_until(asyncio.get_running_loop().time() + max(pause_s, POLL_S))

    async def _observe(self, process: KvProcess) -> None:
        async def send(operation: Operation) -> None:
            found = await process.client.range(
                f"{self.name}/",
                prefix=True,
                limit=1,
                sort_by=SortTarget.CREATE,
                order=SortOrder.ASCEND,
            )
            operation.revision = found.header.revision
            if found.kvs:
                kv = found.kvs[0]
                operation.output = {
                    "key": kv.key.decode(),
                    "token": kv.create_revision,
                    "value": self.decode(kv.value),
                }

        await process.attempt("read", "", send, input={"name": self.name})
