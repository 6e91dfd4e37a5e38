"""The client side of watch streams: what every watcher was sent, and what it should have been sent.

Delivery is asynchronous, so two systems can be compared only at moments when every event has come.
The oracle keeps one watcher of everything from revision 1; from that log the driver knows how many
events any other watcher must have, and waits for exactly that (``Watcher.caught_up``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs
import grpc

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2
from tests.differential.operations import Answer

DELIVERY_TIMEOUT_S: Final = 20.0
ALL: Final = b"\x00"


def in_range(key: bytes, start: bytes, end: bytes) -> bool:
    """Whether ``key`` is in etcd's range of ``start`` and ``end``."""
    if not end:
        return key == start
    return key >= start and (end == ALL or key < end)


class EventLog:
    """Every event of the oracle, in order: what its watcher of everything was sent."""

    def __init__(self) -> None:
        self._source: WatchStream | None = None

    @property
    def events(self) -> list[Any]:
        """All events so far."""
        return self._source.watchers[0].events if self._source else []

    async def follow(self, stream: WatchStream) -> None:
        """Take the oracle's events from a new stream of its own."""
        create = pb.WatchCreateRequest(key=ALL, range_end=ALL, start_revision=1)
        await stream.create(pb.WatchRequest(create_request=create), 0)
        self._source = stream

    async def reach(self, revision: int) -> None:
        """Return once all events up to ``revision`` are here."""
        if self._source is None:
            raise RuntimeError("the event log follows no stream yet")
        await self._source.until(
            lambda: revision <= (self.events[-1].kv.mod_revision if self.events else 1)
        )

    async def close(self) -> None:
        """End the stream."""
        if self._source is not None:
            await self._source.close()


@attrs.define(slots=True)
class Watcher:
    """One watcher: what was asked, and everything that it was sent.

    ``faults`` are broken rules that need no second system to see: a revision split over two
    answers, a header older than its events, an answer after the last.
    """

    request: Any
    start: int
    doomed: bool
    events: list[Any] = attrs.field(factory=list)
    closing: Any = None
    faults: list[str] = attrs.field(factory=list)
    fragments: int = 0
    _split: bool = False
    _expected: int = 0
    _scanned: int = 0

    def take(self, message: Any) -> None:
        """Record one answer that is for this watcher."""
        if self.closing is not None:
            self.faults.append("an answer came after the watcher was canceled")
        if message.canceled:
            self.closing = message
            return
        if not message.events:
            return
        first, last = message.events[0].kv.mod_revision, message.events[-1].kv.mod_revision
        if message.header.revision < last:
            self.faults.append(f"header.revision {message.header.revision} is below event {last}")
        if self.events and first <= self.events[-1].kv.mod_revision and not self._split:
            self.faults.append(f"revision {first} came in two answers without fragment")
        self.fragments += message.fragment
        if message.fragment and not self.request.fragment:
            self.faults.append("a fragment came to a watcher that did not ask for it")
        self._split = message.fragment
        self.events.extend(message.events)

    def expected(self, log: EventLog, revision: int) -> int:
        """How many events up to ``revision`` this watcher must have been sent."""
        request = self.request
        start_key = request.key or ALL
        while self._scanned < len(log.events):
            event = log.events[self._scanned]
            if event.kv.mod_revision > revision:
                break
            self._scanned += 1
            filtered = (
                pb.WatchCreateRequest.NOPUT
                if event.type == mvccpb_pb2.Event.PUT
                else pb.WatchCreateRequest.NODELETE
            ) in request.filters
            wanted = event.kv.mod_revision >= self.start and not filtered
            self._expected += wanted and in_range(event.kv.key, start_key, request.range_end)
        return self._expected

    def caught_up(self, log: EventLog, revision: int) -> bool:
        """Whether nothing up to ``revision`` is still on its way."""
        if self.doomed or self.closing is not None:
            return self.closing is not None
        return len(self.events) >= self.expected(log, revision)


class WatchStream:
    """One Watch call, and the watchers on it."""

    def __init__(self, call: Any, log: EventLog) -> None:
        self._call = call
        self._log = log
        self.watchers: list[Watcher] = []
        """Every watcher that was created, in order, also those that are canceled by now."""
        self._live: dict[int, Watcher] = {}
        self._creating: deque[tuple[Any, int, asyncio.Future[Any]]] = deque()
        self._progress: deque[asyncio.Future[Any]] = deque()
        self._news = asyncio.Event()
        self.failure: str = ""
        self._reader = asyncio.create_task(self._read())

    async def create(self, request: Any, compacted: int) -> Answer:
        """Send a create request and return the ``created`` answer."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._creating.append((request.create_request, compacted, answered))
        await self._call.write(request)
        return await self._answer(answered)

    async def progress(self, request: Any) -> Answer:
        """Ask for progress and return the answer."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._progress.append(answered)
        await self._call.write(request)
        return await self._answer(answered)

    async def cancel(self, request: Any) -> Answer:
        """Cancel a watcher and return the closing answer; silence when there is no such watcher."""
        watcher = self._live.get(request.cancel_request.watch_id)
        await self._call.write(request)
        if watcher is None:
            return Answer("OK", "silence")
        await self.until(lambda: watcher.closing is not None)
        return Answer("OK", "", watcher.closing)

    async def drain(self, revision: int) -> None:
        """Return once no watcher waits for an event up to ``revision``."""
        await self.until(lambda: all(w.caught_up(self._log, revision) for w in self.watchers))

    async def settle(self, revision: int) -> None:
        """``drain``, and then ask for progress: nothing can be on its way after the answer."""
        await self.drain(revision)
        await self.progress(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def close(self) -> None:
        """End the stream as a client does."""
        self._call.cancel()
        await asyncio.wait([self._reader])

    async def _answer(self, answered: asyncio.Future[Any]) -> Answer:
        async with asyncio.timeout(DELIVERY_TIMEOUT_S):
            await asyncio.wait([answered, self._reader], return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return Answer("OK", "", answered.result())
        return Answer("STREAM ENDED", self.failure)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition()`` holds after some answer, or nothing came for long."""
        while not condition():
            self._news.clear()
            if self._reader.done():
                return
            try:
                async with asyncio.timeout(DELIVERY_TIMEOUT_S):
                    await self._news.wait()
            except TimeoutError:
                return  # what is missing shows when the watchers are compared

    async def _read(self) -> None:
        try:
            async for message in self._call:
                self._dispatch(message)
                self._news.set()
            self.failure = "the server ended the stream"
        except grpc.aio.AioRpcError as error:
            self.failure = f"{error.code().name}: {error.details()}"
        except asyncio.CancelledError:
            self.failure = "closed by the client"
        self._news.set()

    def _dispatch(self, message: Any) -> None:
        if message.created:
            request, compacted, answered = self._creating.popleft()
            if not message.canceled:
                start = request.start_revision or message.header.revision + 1
                doomed = 0 < request.start_revision < compacted
                watcher = Watcher(request, start, doomed)
                self.watchers.append(watcher)
                self._live[message.watch_id] = watcher
            answered.set_result(message)
        elif message.watch_id == -1 and self._progress:
            self._progress.popleft().set_result(message)
        elif message.watch_id in self._live:
            watcher = self._live[message.watch_id]
            watcher.take(message)
            if message.canceled:
                del self._live[message.watch_id]
        else:
            faults = self.watchers[-1].faults if self.watchers else []
            faults.append(f"an answer for watch id {message.watch_id}, which does not exist")
