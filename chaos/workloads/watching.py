"""The watch workload: many watchers of every kind, cut off and resumed, while keys change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final

import attrs
import grpc

from chaos.checkers.durability import check_convergence
from chaos.checkers.replay import check_replay
from chaos.checkers.watches import check_watches
from chaos.history.format import Notice, Operation, SeenEvent, Watcher
from chaos.workloads.base import Check, Setting, WorkloadOptions
from chaos.workloads.kv import KvProcess, KvWorkload
from kvstore.client import Compacted, EtcdError, Event, EventType, Put, Watch
from kvstore.pb import etcdserverpb_pb2 as pb

WATCHERS: Final = 8
PAST_MAX: Final = 50
AHEAD_MAX: Final = 20
"""How far behind and ahead of the present a watch may begin, in revisions."""

RESUME: Final = 0.7
"""Chance that a watcher which was cut off is resumed; else another begins."""

PROGRESS: Final = 0.02
"""Chance that a watcher asks for a progress notice, at each look."""

SPAN_S: Final = (0.3, 2.0)
"""How long a watcher stays before it is cut off, from and to, in seconds."""

END_TIMEOUT_S: Final = 15.0
"""How long a watcher has to come to the end after the run."""

POLL_S: Final = 0.05


class WatchWorkload(KvWorkload):
    """Clients put, delete and change several keys at once; eight watchers follow.

    A watcher begins anywhere from the first revision to some ahead of the present, on one key or
    all, with or without the state before and either kind of event. It is cut off after a while, and
    resumed from the next revision, at another member, or another begins. The last ones stay until
    they have come to the end.
    """

    name = "watch"
    defaults = WorkloadOptions(keys=5, rate=200.0)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._end_at: float | None = None

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (check_watches, check_replay, check_convergence)

    def key(self, number: int) -> str:
        """The name of a key."""
        return f"watch/{number}"

    async def step(self, process: KvProcess) -> None:
        """See ``Workload``."""
        rng = process.rng
        drawn = rng.random()
        if drawn < 0.2:
            await self.final_read(process)
        elif drawn < 0.4:
            await self._delete(process, self.key(rng.randrange(self.options.keys)))
        else:
            count = 1 if drawn < 0.75 else 2
            numbers = rng.sample(range(self.options.keys), min(count, self.options.keys))
            await self._put(process, [self.key(number) for number in numbers])

    async def final_read(self, process: KvProcess) -> None:
        """Read every key."""
        prefix = self.key(0)[:-1]

        async def send(operation: Operation) -> None:
            found = await process.client.range(prefix, prefix=True)
            operation.revision = found.header.revision
            operation.output = {
                "kvs": [
                    [kv.key.decode(), self.decode(kv.value), kv.mod_revision] for kv in found.kvs
                ]
            }

        asked = {"prefix": prefix, "at": 0, "serializable": False}
        await process.attempt("read", "", send, input=asked)

    def helpers(self) -> Sequence[Callable[[KvProcess], Awaitable[None]]]:
        """The watchers."""
        return [self._follow] * WATCHERS

    async def _put(self, process: KvProcess, keys: Sequence[str]) -> None:
        values = {key: process.unique() for key in keys}

        async def send(operation: Operation) -> None:
            result = await process.client.txn(
                then=[Put(key, value) for key, value in values.items()]
            )
            operation.revision = result.header.revision

        await process.attempt("put", ",".join(keys), send, input=values)

    async def _delete(self, process: KvProcess, key: str) -> None:
        async def send(operation: Operation) -> None:
            result = await process.client.delete(key)
            operation.output = {"deleted": result.deleted}
            operation.revision = result.header.revision if result.deleted else 0

        await process.attempt("delete", key, send)

    # The watchers.

    async def _follow(self, process: KvProcess) -> None:
        """Watch, be cut off, resume or begin anew; at the end stay until all was told."""
        previous: Watcher | None = None
        following = 0
        while True:
            process.stay()
            if previous is not None and following and process.rng.random() < RESUME:
                watcher = attrs.evolve(
                    previous,
                    node=process.member,
                    start=following,
                    resumes=previous.id,
                    notices=[],
                )
            else:
                watcher = self._draw(process)
            to_the_end, following = await self._watch(process, watcher)
            if to_the_end:
                return
            previous = watcher
            process.hop()
            await self.wait_until(asyncio.get_running_loop().time() + POLL_S)

    def _draw(self, process: KvProcess) -> Watcher:
        """A watcher of any kind."""
        rng = process.rng
        present = self._watched_revision()
        start = rng.choice(
            (
                *(0, self._first, max(self._first, present - rng.randint(0, PAST_MAX))),
                *(present + 1, present + rng.randint(1, AHEAD_MAX)),
            )
        )
        one_key = rng.random() < 0.3
        key = self.key(rng.randrange(self.options.keys)) if one_key else self.key(0)[:-1]
        skip = rng.choice([(), (), (), ("put",), ("delete",)])
        return Watcher(
            0, process.member, key, not one_key, start, prev_kv=rng.random() < 0.5, skip=skip
        )

    async def _watch(self, process: KvProcess, watcher: Watcher) -> tuple[bool, int]:
        """Follow one watcher until it is cut off, or to the end of the run.

        Returns:
            Whether that was the end, and where to go on: 0 if that is compacted away.
        """
        recorder = self.setting.recorder
        recorder.watcher(watcher)
        watch = process.client.watch(
            watcher.key,
            prefix=watcher.prefix,
            start_revision=watcher.start,
            prev_kv=watcher.prev_kv,
            progress_notify=True,
            skip=[EventType[kind.upper()] for kind in watcher.skip],
            reconnect_timeout_s=process.timeout_s,
        )
        reading = asyncio.create_task(self._read(watch, watcher))
        end: int | None = None
        try:
            end = await self._stay(process.rng, watch, watcher, reading)
        finally:
            reading.cancel()
            await watch.close()
            ended = (await asyncio.gather(reading, return_exceptions=True))[0]
        if isinstance(ended, Compacted):
            recorder.notice(
                watcher, Notice(0, "canceled", 0, compact_revision=ended.compact_revision)
            )
            return end is not None, 0
        if isinstance(ended, Exception) and not isinstance(ended, EtcdError):
            raise ended
        recorder.notice(watcher, Notice(0, "left", end or 0))
        return end is not None, watch.next_revision or watcher.start

    async def _stay(
        self, rng: Random, watch: Watch, watcher: Watcher, reading: asyncio.Task[None]
    ) -> int | None:
        """Wait until the watcher is cut off or broken, or the run is over and it was told all.

        Returns the revision that it stayed for, None if it was not the end.
        """
        loop = asyncio.get_running_loop()
        cut_at = loop.time() + rng.uniform(*SPAN_S)
        while not self.stopping.is_set():
            if reading.done() or loop.time() > cut_at:
                return None
            if rng.random() < PROGRESS:
                await _ask_progress(watch)
            await asyncio.wait({reading}, timeout=POLL_S)
        if self._end_at is None:
            self._end_at = loop.time() + END_TIMEOUT_S
        while (end := self._last_for(watcher)) >= watch.next_revision:
            if loop.time() > self._end_at:
                break
            if reading.done():
                return None
            await asyncio.wait({reading}, timeout=POLL_S)
        return end

    async def _read(self, watch: Watch, watcher: Watcher) -> None:
        async for message in watch.messages():
            self.setting.recorder.notice(watcher, self._notice(message))

    def _notice(self, message: pb.WatchResponse) -> Notice:
        if message.created:
            return Notice(0, "created", message.header.revision)
        if not message.events:
            return Notice(0, "progress", message.header.revision)
        seen = tuple(self._seen(Event.of(event)) for event in message.events)
        return Notice(0, "events", message.header.revision, seen)

    def _seen(self, event: Event) -> SeenEvent:
        kv = event.kv
        deleted = event.type is EventType.DELETE
        before = event.prev_kv
        return SeenEvent(
            kv.key.decode(),
            None if deleted else self.decode(kv.value),
            kv.mod_revision,
            0 if deleted else kv.create_revision,
            0 if deleted else kv.version,
            (self.decode(before.value), before.mod_revision) if before else None,
        )

    @property
    def _first(self) -> int:
        return self._base_revision + 1

    def _watched_revision(self) -> int:
        return max(self._watched, self._first)

    def _last_for(self, watcher: Watcher) -> int:
        """The last revision known so far that concerns a watcher."""

        def wanted(key: str, value: str | None) -> bool:
            matches = key.startswith(watcher.key) if watcher.prefix else key == watcher.key
            return matches and ("delete" if value is None else "put") not in watcher.skip

        return max((e.revision for e in self._reference if wanted(e.key, e.value)), default=0)


async def _ask_progress(watch: Watch) -> None:
    """Ask for a progress notice; a stream that is just breaking cannot be asked."""
    try:
        await watch.request_progress()
    except (asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.AioRpcError):
        return
    except asyncio.CancelledError:  # what grpc raises for a call that was cancelled
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
