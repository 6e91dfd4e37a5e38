"""Recipes on leases and transactions: a lock with fencing tokens, and leader election.

Both queue up in the same way, as etcd's own do: each contender creates one key under the name,
``<name>/<lease ID in hex>``; the key with the lowest create revision holds; every other waits only
for the one just before it, so that a release wakes one and not all.

A lease can expire while its holder is paused and believes that it still holds. So each holder has a
**fencing token**, its key's create revision: it grows with every new holder. Whatever the lock
protects should refuse a token lower than one that it has seen, or be written in a transaction that
compares ``create_revision(lock.key) == lock.fencing_token``.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from kvstore.client.errors import LeaseLost
from kvstore.client.kv import KVCalls, SortOrder, SortTarget
from kvstore.client.lease import Lease, LeaseCalls
from kvstore.client.records import EventType, KeyValue, PutResult, RangeResult, Text, to_bytes
from kvstore.client.txn import Comparison, Get, Put, create_revision
from kvstore.client.watch import WatchCalls
from kvstore.errors import EtcdError


class Calls(KVCalls, LeaseCalls, WatchCalls):
    """The calls that recipes are made of."""


class Candidacy:
    """One contender's place in the queue under a name. The base of both recipes."""

    def __init__(self, calls: Calls, name: Text, value: Text, ttl_s: int) -> None:
        self._calls = calls
        self._prefix = to_bytes(name) + b"/"
        self._value = to_bytes(value)
        self._lease = Lease(calls, ttl_s)
        self._released = False
        self.key = b""
        self.fencing_token = 0

    @property
    def lease(self) -> Lease:
        """The lease that keeps the place."""
        return self._lease

    @property
    def is_held(self) -> bool:
        """True between acquisition and loss or release, by the client's own clock."""
        return self.fencing_token > 0 and not self._released and not self._lease.is_lost

    def held(self) -> Comparison:
        """Return the condition "I still hold it", for a transaction that writes on its strength.

        Raises ``RuntimeError`` before it is acquired: "created at 0" would hold for a missing key.
        """
        if self.fencing_token == 0:
            raise RuntimeError("not acquired yet: use it inside its `async with` block")
        return create_revision(self.key) == self.fencing_token

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._lease)
            await self._queue_up()
            stack.pop_all()  # held: from here on __aexit__ releases
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Delete first: revoking does too, but a waiting contender should not depend on it.
        with contextlib.suppress(EtcdError):
            if not self._lease.is_lost:
                await self._calls.delete(self.key)
        self._released = True
        await self._lease.__aexit__(kind, error, traceback)

    async def _queue_up(self) -> None:
        self.key = self._prefix + f"{self._lease.id:x}".encode()
        # Only this lease's owner writes this key, so that asking twice is the same as once.
        entered = await self._calls.txn(
            when=[create_revision(self.key) == 0],
            then=[Put(self.key, self._value, lease=self._lease.id), Get(self.key)],
            otherwise=[Get(self.key)],
            repeatable=True,
        )
        found = entered.responses[-1]
        if not isinstance(found, RangeResult):
            raise TypeError(f"a Get was answered with {type(found).__name__}")
        token = found.kvs[0].create_revision
        while (before := await self._just_before(token)) is not None:
            await self._until_deleted(*before)
            self._lease.check()
        still = await self._calls.get(self.key)
        if still is None or still.create_revision != token:
            raise LeaseLost(self._lease.id)
        self.fencing_token = token

    async def _just_before(self, token: int) -> tuple[bytes, int] | None:
        found = await self._calls.range(
            self._prefix,
            prefix=True,
            limit=1,
            sort_by=SortTarget.CREATE,
            order=SortOrder.DESCEND,
            max_create_revision=token - 1,
            keys_only=True,
        )
        return (found.kvs[0].key, found.header.revision + 1) if found.kvs else None

    async def _until_deleted(self, key: bytes, start_revision: int) -> None:
        watch = self._calls.watch(key, start_revision=start_revision, skip=[EventType.PUT])
        async with watch:
            async for _ in watch:
                return


class Lock(Candidacy):
    """A lock held for a block. Made by ``AsyncClient.lock``."""


class Leadership(Candidacy):
    """Leadership held for a block. Made by ``AsyncClient.campaign``."""

    async def proclaim(self, value: Text) -> PutResult:
        """Change what the leader says of itself. Raises ``LeaseLost`` if it leads no longer."""
        if self._released:
            raise LeaseLost(self._lease.id)
        changed = await self._calls.txn(
            when=[self.held()], then=[Put(self.key, value, lease=self._lease.id)]
        )
        if not changed.succeeded:
            raise LeaseLost(self._lease.id)
        result = changed.responses[0]
        if not isinstance(result, PutResult):
            raise TypeError(f"a Put was answered with {type(result).__name__}")
        return result


class RecipeCalls(Calls):
    """Locks and elections."""

    def lock(self, name: Text, *, value: Text = b"", ttl_s: int = 10) -> Lock:
        """Hold the lock ``name`` for a block; entering it waits until it is free.

        >>> async with client.lock("/locks/report") as lock:
        ...     await storage.write(report, fencing_token=lock.fencing_token)
        """
        return Lock(self, name, value, ttl_s)

    def campaign(self, name: Text, value: Text, *, ttl_s: int = 10) -> Leadership:
        """Lead the election ``name`` for a block; entering it waits until this one leads.

        >>> async with client.campaign("/election/scheduler", "node1") as leadership:
        ...     while leadership.is_held:
        ...         await do_one_task()
        """
        return Leadership(self, name, value, ttl_s)

    async def leader(self, name: Text) -> KeyValue | None:
        """Return the leader of the election ``name``: its ``value`` is what it proclaims."""
        found = await self._first(to_bytes(name) + b"/")
        return found.kvs[0] if found.kvs else None

    async def observe(self, name: Text) -> AsyncIterator[KeyValue]:
        """Iterate the leaders of ``name``, and what they proclaim, from the present one on.

        >>> async for leader in client.observe("/election/scheduler"):
        ...     print(leader.value)
        """
        prefix = to_bytes(name) + b"/"
        seen = (b"", 0)
        while True:
            found = await self._first(prefix)
            if found.kvs and (found.kvs[0].key, found.kvs[0].mod_revision) != seen:
                seen = (found.kvs[0].key, found.kvs[0].mod_revision)
                yield found.kvs[0]
            watch = self.watch(prefix, prefix=True, start_revision=found.header.revision + 1)
            async with watch:
                await anext(watch)

    async def _first(self, prefix: bytes) -> RangeResult:
        return await self.range(
            prefix, prefix=True, limit=1, sort_by=SortTarget.CREATE, order=SortOrder.ASCEND
        )
