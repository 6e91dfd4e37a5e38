"""The client for programs without an event loop: the same names, each waiting for its answer.

One background thread runs an event loop for all such clients (grpc cannot bear that a loop ends
while others live); each method hands its call to an ``AsyncClient`` there and blocks until it is
done. A client may be used from any number of threads, not from inside an event loop (which it would
block).
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from kvstore.client.aio import AsyncClient
from kvstore.client.endpoints import DEFAULT_ENDPOINT, Tls
from kvstore.client.lease import Lease
from kvstore.client.recipes import Leadership, Lock
from kvstore.client.records import Event, KeyValue, PutResult, Text
from kvstore.client.watch import Watch

P = ParamSpec("P")
R = TypeVar("R")
Held = TypeVar("Held")


class _Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="kvstore-client", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run ``work`` there and return its result; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


@functools.cache
def _loop_of(process_id: int) -> _Loop:
    """Return the loop of this process; a forked child has no threads and needs its own."""
    return _Loop()


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Client, P], R]:
    """Return the blocking form of a method of ``AsyncClient``."""

    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.run(method(self._client, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class SyncWatch:
    """A watch as an iterator of events. Made by ``Client.watch``.

    ``close`` may be called from another thread; the iteration then ends.
    """

    def __init__(self, loop: _Loop, watch: Watch) -> None:
        self._loop = loop
        self._watch = watch

    def __enter__(self) -> Self:
        self._loop.run(self._watch.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self._loop.run(_next(self._watch))
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """End the watch."""
        self._loop.run(self._watch.close())


async def _next(items: AsyncIterator[R]) -> R | None:
    return await anext(items, None)


class SyncHeld(Generic[Held]):
    """A lease, lock or leadership held for a block, kept alive in the background.

    Entering gives the held thing itself: its attributes (``id``, ``is_lost``, ``key``,
    ``fencing_token``, ``is_held``) may be read from any thread.
    """

    def __init__(
        self, loop: _Loop, make: Callable[[], AbstractAsyncContextManager[Held, None]]
    ) -> None:
        self._loop = loop
        self._make = make
        self._manager: AbstractAsyncContextManager[Held, None] | None = None

    def __enter__(self) -> Held:
        self._manager, held = self._loop.run(self._enter())
        return held

    async def _enter(self) -> tuple[AbstractAsyncContextManager[Held, None], Held]:
        manager = self._make()
        return manager, await manager.__aenter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._manager is not None:
            self._loop.run(self._manager.__aexit__(kind, error, traceback))


class Client:
    """A client of an etcd v3 cluster whose calls block. Arguments and methods: ``AsyncClient``.

    >>> with Client(["10.0.1.10:2379", "10.0.1.11:2379"]) as client:
    ...     client.put("/config/title", "tizi365")
    ...     for kv in client.get_prefix("/config/"):
    ...         print(kv.key, kv.value)
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] = DEFAULT_ENDPOINT,
        *,
        timeout_s: float = 5.0,
        dial_timeout_s: float = 2.0,
        tls: Tls | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        self._client = AsyncClient(
            endpoints,
            timeout_s=timeout_s,
            dial_timeout_s=dial_timeout_s,
            tls=tls,
            user=user,
            password=password,
        )
        self._loop = _loop_of(os.getpid())
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Closing twice is allowed."""
        if not self._closed:
            self._closed = True
            self._loop.run(self._client.close())

    put = _blocking(AsyncClient.put)
    get = _blocking(AsyncClient.get)
    get_prefix = _blocking(AsyncClient.get_prefix)
    range = _blocking(AsyncClient.range)
    delete = _blocking(AsyncClient.delete)
    delete_prefix = _blocking(AsyncClient.delete_prefix)
    txn = _blocking(AsyncClient.txn)
    compact = _blocking(AsyncClient.compact)
    lease_grant = _blocking(AsyncClient.lease_grant)
    lease_revoke = _blocking(AsyncClient.lease_revoke)
    lease_keepalive = _blocking(AsyncClient.lease_keepalive)
    lease_time_to_live = _blocking(AsyncClient.lease_time_to_live)
    leases = _blocking(AsyncClient.leases)
    member_list = _blocking(AsyncClient.member_list)
    status = _blocking(AsyncClient.status)
    alarms = _blocking(AsyncClient.alarms)
    alarm_disarm = _blocking(AsyncClient.alarm_disarm)
    hash_kv = _blocking(AsyncClient.hash_kv)
    defragment = _blocking(AsyncClient.defragment)
    snapshot = _blocking(AsyncClient.snapshot)
    leader = _blocking(AsyncClient.leader)

    def watch(self, *args: Any, **options: Any) -> SyncWatch:
        """Watch keys; arguments as ``AsyncClient.watch``.

        >>> with client.watch("/config/", prefix=True) as watch:
        ...     for event in watch:
        ...         print(event.type.name, event.kv.key, event.kv.value)
        """
        return SyncWatch(self._loop, self._client.watch(*args, **options))

    def lease(self, ttl_s: int) -> SyncHeld[Lease]:
        """Hold a lease for a block, as ``AsyncClient.lease``."""
        return SyncHeld(self._loop, lambda: self._client.lease(ttl_s))

    def lock(self, name: Text, *, value: Text = b"", ttl_s: int = 10) -> SyncHeld[Lock]:
        """Hold a lock for a block, as ``AsyncClient.lock``."""
        return SyncHeld(self._loop, lambda: self._client.lock(name, value=value, ttl_s=ttl_s))

    def campaign(self, name: Text, value: Text, *, ttl_s: int = 10) -> SyncHeld[Leadership]:
        """Lead an election for a block, as ``AsyncClient.campaign``."""
        return SyncHeld(self._loop, lambda: self._client.campaign(name, value, ttl_s=ttl_s))

    def proclaim(self, leadership: Leadership, value: Text) -> PutResult:
        """Change what a leader says of itself, as ``Leadership.proclaim``."""
        return self._loop.run(leadership.proclaim(value))

    def observe(self, name: Text) -> Iterator[KeyValue]:
        """Iterate the leaders of an election, as ``AsyncClient.observe``."""
        leaders = self._client.observe(name)
        while (leader := self._loop.run(_next(leaders))) is not None:
            yield leader
