"""The client side of watch streams: what every watcher was sent, and what it should have been sent.

Delivery is asynchronous, so two systems can be compared only at moments when every event has come.
The oracle keeps one watcher of everything from revision 1; from that log the driver knows how many
events any other watcher must have, and waits for exactly that (``Watcher.caught_up``).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs
import grpc

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2
from tests.differential.operations import Answer

DELIVERY_TIMEOUT_S: Final = 10.0
ALL: Final = b"\x00"


def in_range(key: bytes, start: bytes, end: bytes) -> bool:
    """Whether ``key`` is in etcd's range of ``start`` and ``end``."""
    if not end:
        return key == start
    return key >= start and (end == ALL or key < end)


@attrs.frozen(slots=True)
class Logged:
    """What decides whether a watcher must be sent an event."""

    revision: int
    key: bytes
    put: bool


class EventLog:
    """Every event of the oracle, in order: what its watcher of everything was sent."""

    def __init__(self) -> None:
        self._source: WatchStream | None = None
        self._logged: list[Logged] = []

    @property
    def events(self) -> list[Any]:
        """All events so far."""
        return self._source.watchers[0].events if self._source else []

    @property
    def logged(self) -> list[Logged]:
        """The same in short, taken from each message once: thousands of watchers ask."""
        for event in self.events[len(self._logged) :]:
            put = event.type == mvccpb_pb2.Event.PUT
            self._logged.append(Logged(event.kv.mod_revision, event.kv.key, put))
        return self._logged

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

    ``at_compaction``: it starts at the compacted revision itself, of which not every server keeps
    the deletions. ``faults`` are broken rules that need no second system to see: a revision split
    over two answers, a header older than its events, an answer after the last.
    """

    request: Any
    start: int
    doomed: bool
    at_compaction: bool = False
    events: list[Any] = attrs.field(factory=list)
    closing: Any = None
    faults: list[str] = attrs.field(factory=list)
    fragments: int = 0
    overdue: bool = False
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
        logged = log.logged
        if not self._scanned:  # what is older it was never sent
            self._scanned = bisect_left(logged, self.start, key=lambda event: event.revision)
        unwanted = {
            put: (pb.WatchCreateRequest.NOPUT if put else pb.WatchCreateRequest.NODELETE)
            in request.filters
            for put in (True, False)
        }
        while self._scanned < len(logged):
            event = logged[self._scanned]
            if event.revision > revision:
                break
            self._scanned += 1
            wanted = event.revision >= self.start and not unwanted[event.put]
            if self.at_compaction and event.revision == self.start:
                wanted = wanted and event.put
            self._expected += wanted and in_range(event.key, start_key, request.range_end)
        return self._expected

    def caught_up(self, log: EventLog, revision: int) -> bool:
        """Whether nothing up to ``revision`` is still on its way; an overdue one is given up."""
        if self.overdue or self.closing is not None:
            return True
        return not self.doomed and len(self.events) >= self.expected(log, revision)

    def give_up(self, log: EventLog, revision: int) -> None:
        """It did not get in time what it must: say so, and wait for it no more."""
        self.overdue = True
        missing = "the closing answer" if self.doomed else "events"
        self.faults.append(
            f"{missing} overdue at revision {revision}: "
            f"{len(self.events)} of {self.expected(log, revision)} events came"
        )


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
        """Return once no watcher waits for an event up to ``revision``, or they are overdue."""

        def late() -> list[Watcher]:
            return [w for w in self.watchers if not w.caught_up(self._log, revision)]

        await self.until(lambda: not late())
        for watcher in late():
            watcher.give_up(self._log, revision)

    async def settle(self, revision: int) -> None:
        """``drain``, and then ask for progress: nothing can be on its way after the answer."""
        await self.drain(revision)
        await self.progress(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def close(self) -> None:
        """End the stream as a client does."""
        self._call.cancel()
        await asyncio.wait([self._reader])

    async def _answer(self, answered: asyncio.Future[Any]) -> Answer:
        await asyncio.wait(
            [answered, self._reader],
            timeout=DELIVERY_TIMEOUT_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if answered.done():
            return Answer("OK", "", answered.result())
        if not self._reader.done():
            return Answer("NO ANSWER", f"nothing came in {DELIVERY_TIMEOUT_S} s")
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
                return  # the caller sees what is missing

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
                watcher = Watcher(request, start, doomed, start == compacted)
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
