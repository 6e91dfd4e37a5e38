"""One client's watch stream: requests in, responses out, through one bounded buffer.

Theory of operation. All that a client shall get stands in one queue, in order: answers to its
requests, events that the hub offers, and what catching up reads. The buffer is bounded: when the
client does not take its responses, ``offer`` refuses, the hub lets the watcher fall behind, and
``handle`` makes the client's next request wait.

``responses`` is the only place that takes from the queue, and the only one that catches up: it
reads one bounded slice of history for one watcher at a time, round robin, only while the buffer has
room, and gives the event loop a turn after each. So a client that takes nothing costs nothing but
its buffer, and one that takes everything cannot hold the loop.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from kvstore.errors import COMPACTED, EtcdError, Status
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.watch.hub import WatchHub
from kvstore.watch.index import range_is_empty
from kvstore.watch.slices import CATCH_UP_BYTES, Slice, make_slice
from kvstore.watch.watcher import CATCH_UP_REVISIONS_MAX, Watcher
from kvstore.watch.wire import EventBlock, canceled, created, fragments, watch_id_field

RESPONSES_BUFFERED_MAX: Final = 8192
"""Responses that wait for one client; when they are as many, its watchers fall behind. A client may
have a thousand watchers of one range on a stream, and a turn of the loop may apply several puts."""

BYTES_BUFFERED_MAX: Final = 4 * 1024 * 1024
"""The same in bytes. One response of any size is taken while the buffer is below."""

ANSWERS_BUFFERED_MAX: Final = 128
"""Answers to requests that wait for one client; its next request waits until there are fewer."""

SEND_BYTES: Final = 16_000
"""Responses leave together up to this size: the prefixes included, they fit one HTTP/2 frame."""

SEND_OVERHEAD_BYTES: Final = 5
"""What gRPC puts before each."""

RESPONSES_PER_SLICE: Final = 16
"""While a watcher is behind, a slice is read for it after at most so many responses."""

PROGRESS_INTERVAL_S_DEFAULT: Final = 600.0
PROGRESS_INTERVAL_S_MIN: Final = 0.1

INVALID_WATCH_ID: Final = -1
"""Stands for no watcher, or for all of a stream."""

DUPLICATE_WATCH_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
EMPTY_RANGE: Final = "mvcc: watcher range is empty"


class _Outgoing(NamedTuple):
    """A response in the buffer: its own bytes, and those it shares with other watchers'."""

    own: bytes
    shared: bytes = b""
    answer: bool = False


_new: Final = tuple.__new__
"""Makes a named tuple from its fields in a quarter of the time of a call."""


class WatchStream:
    """The state of one Watch call.

    Use: one task calls ``handle`` for each request and ``finish_requests`` at the end of requests,
    another sends what ``responses`` yields; ``close`` in the end.

    Args:
        hub: the member's watchers.
        progress_interval_s: seconds between progress notifications of a watcher that asks for them;
            up to a tenth is added so that streams opened together do not all report together.
        responses_max, bytes_max: bounds of the buffer.
    """

    def __init__(
        self,
        hub: WatchHub,
        *,
        progress_interval_s: float = PROGRESS_INTERVAL_S_DEFAULT,
        responses_max: int = RESPONSES_BUFFERED_MAX,
        bytes_max: int = BYTES_BUFFERED_MAX,
    ) -> None:
        self._hub = hub
        self._progress_interval_s = max(progress_interval_s, PROGRESS_INTERVAL_S_MIN)
        self._responses_max = responses_max
        self._bytes_max = bytes_max
        self._watchers: dict[int, Watcher] = {}
        self._behind: deque[Watcher] = deque()
        self._next_id = 0
        self._out: deque[_Outgoing] = deque()
        self._out_bytes = 0
        self._answers = 0
        self._wake = asyncio.Event()
        self._answer_taken = asyncio.Event()
        self._progress_asked = False
        self._progress_timer: asyncio.TimerHandle | None = None
        self._requests_done = False
        self._closed = False
        self._ended_by: Status | None = None
        hub.stats.streams += 1

    # -- requests -----------------------------------------------------------------------------

    async def handle(self, request: pb.WatchRequest) -> None:
        """Do what a request asks. Answers come from ``responses`` in the order of requests.

        Waits while ``ANSWERS_BUFFERED_MAX`` answers are not taken yet. A request without content is
        ignored, as etcd does.
        """
        while self._answers >= ANSWERS_BUFFERED_MAX and not self._closed:
            self._answer_taken.clear()
            await self._answer_taken.wait()
        if self._closed:
            return
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._create(request.create_request)
        elif kind == "cancel_request":
            self._cancel(request.cancel_request.watch_id)
        elif kind == "progress_request":
            self._progress_asked = True
            self.try_progress()

    def finish_requests(self) -> None:
        """The client half-closed: no request will come. Open watches go on, as they do in etcd; the
        stream ends when none is left."""
        self._requests_done = True
        self.wake()

    def close(self, status: Status | None = None) -> None:
        """Drop everything now; ``responses`` ends, with ``status`` as an error if it is given.

        Safe to call twice; the first status counts.
        """
        if self._closed:
            return
        self._closed = True
        self._ended_by = status
        for watcher in self._watchers.values():
            self._drop(watcher)
        self._watchers.clear()
        self._behind.clear()
        self._out.clear()
        self._out_bytes = 0
        self._hub.progress_done(self)
        self._hub.stats.streams -= 1
        if self._progress_timer is not None:
            self._progress_timer.cancel()
            self._progress_timer = None
        self._answer_taken.set()
        self.wake()

    def _create(self, request: pb.WatchCreateRequest) -> None:
        revision = self._hub.revision
        header = self._hub.header_field(revision)
        reason = self._refusal(request)
        if reason:
            self._answer(created(header, INVALID_WATCH_ID, reason))
            return
        watch_id = request.watch_id
        if watch_id == 0:
            while self._next_id in self._watchers:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        watcher = Watcher.of(self, watch_id, request, revision)
        self._watchers[watch_id] = watcher
        self._hub.stats.watchers += 1
        self._answer(created(header, watch_id))
        if watcher.next_revision > revision:
            self._hub.sync(watcher)
        else:
            self.catch_up(watcher)
        if watcher.progress_notify and self._progress_timer is None:
            self._arm_progress_timer()

    def _refusal(self, request: pb.WatchCreateRequest) -> str:
        """Return why a watch cannot be created, in etcd's words; nothing when it can."""
        if request.start_revision < 0:
            return COMPACTED.message
        if range_is_empty(request.key or b"\0", request.range_end):
            return EMPTY_RANGE
        if request.watch_id != 0 and request.watch_id in self._watchers:
            return DUPLICATE_WATCH_ID
        return ""

    def _cancel(self, watch_id: int) -> None:
        watcher = self._watchers.pop(watch_id, None)
        if watcher is None:
            return
        self._drop(watcher)
        self._answer(canceled(self._hub.header_field(self._hub.revision), watch_id))
        self.try_progress()

    def _drop(self, watcher: Watcher) -> None:
        """End a watcher wherever it stands."""
        if watcher.canceled:
            return
        watcher.canceled = True
        self._hub.forget(watcher)
        self._hub.stats.watchers -= 1

    # -- what the hub calls -------------------------------------------------------------------

    def offer(self, watcher: Watcher, header: bytes, block: EventBlock) -> bool:
        """Take events for a synced watcher, or return False when the buffer is full."""
        out = self._out
        if len(out) >= self._responses_max or self._out_bytes >= self._bytes_max:
            return False
        if watcher.fragment:
            self._put_events(watcher, header, block)
            return True
        # What follows is done for each watcher of a put, so in as few steps as can be.
        own, shared = header + watcher.id_field, block.data
        watcher.sent_events = True
        self._hub.stats.events_sent += len(block.events)
        self._out_bytes += len(own) + len(shared)
        if not out:
            self.wake()
        out.append(_new(_Outgoing, (own, shared, False)))
        return True

    def catch_up(self, watcher: Watcher) -> None:
        """Read history for a watcher from its ``next_revision`` on, when there is room."""
        self._behind.append(watcher)
        self.wake()

    def try_progress(self) -> None:
        """Answer a progress request if every watcher has had everything up to now.

        Where one has not, the answer comes as soon as all have: requests made meanwhile share it.
        """
        if not self._progress_asked:
            return
        revision = self._hub.revision
        if self._behind or not all(
            watcher.canceled or _is_current(watcher, revision)
            for watcher in self._watchers.values()
        ):
            self._hub.await_progress(self)
            return
        self._progress_asked = False
        self._hub.progress_done(self)
        header = self._hub.header_field(revision)
        self._answer(header + watch_id_field(INVALID_WATCH_ID))

    def wake(self) -> None:
        """Have ``responses`` look again."""
        self._wake.set()

    # -- responses ----------------------------------------------------------------------------

    async def responses(self) -> AsyncIterator[list[bytes]]:
        """Yield encoded WatchResponses, those that may leave together at once, until the end.

        Raises:
            EtcdError: the stream was closed with a status.
        """
        sent_since_slice = 0
        while not self._closed:
            if (
                self._behind
                and not self._full()
                and (not self._out or sent_since_slice >= RESPONSES_PER_SLICE)
            ):
                sent_since_slice = 0
                self._read_slice()
                await asyncio.sleep(0)
            elif self._out:
                batch = self._take(RESPONSES_PER_SLICE if self._behind else self._responses_max)
                sent_since_slice += len(batch)
                yield batch
            elif self._requests_done and not self._live():
                break
            else:
                self._wake.clear()
                await self._wake.wait()
        if self._ended_by is not None:
            raise EtcdError(self._ended_by)

    def _live(self) -> bool:
        return any(not watcher.canceled for watcher in self._watchers.values())

    def _full(self) -> bool:
        return len(self._out) >= self._responses_max or self._out_bytes >= self._bytes_max

    def _put(self, item: _Outgoing) -> None:
        self._out.append(item)
        self._out_bytes += len(item.own) + len(item.shared)
        self.wake()

    def _answer(self, message: bytes) -> None:
        self._answers += 1
        self._put(_Outgoing(message, answer=True))

    def _take(self, count_max: int) -> list[bytes]:
        """Take the first response, and those behind it that may leave with it."""
        batch: list[bytes] = []
        out, room = self._out, SEND_BYTES
        while out and len(batch) < count_max:
            own, shared, answer = out[0]
            size = len(own) + len(shared)
            room -= size + SEND_OVERHEAD_BYTES
            if room < 0 and batch:
                break
            out.popleft()
            self._out_bytes -= size
            if answer:
                self._answers -= 1
                self._answer_taken.set()
            batch.append(own + shared)
        return batch

    def _put_events(self, watcher: Watcher, header: bytes, block: EventBlock) -> None:
        own = header + watcher.id_field
        watcher.sent_events = True
        self._hub.stats.events_sent += len(block.events)
        if watcher.fragment:
            for piece_own, events in fragments(own, block, self._hub.fragment_bytes):
                self._put(_Outgoing(piece_own, events))
        else:
            self._put(_Outgoing(own, block.data))

    # -- catching up --------------------------------------------------------------------------

    def _read_slice(self) -> None:
        """Read one slice of history for the watcher that waited longest."""
        watcher = self._behind.popleft()
        if watcher.canceled:
            self.try_progress()
            return
        store = self._hub.store
        compact_revision = store.compact_revision
        if watcher.next_revision < compact_revision:
            # The watch id stays taken until the client cancels it, as in etcd.
            self._drop(watcher)
            self._put(_Outgoing(canceled(self._hub.header_field(0), watcher.id, compact_revision)))
            self.try_progress()
            return
        current = store.current_revision
        to_revision = min(current, watcher.next_revision + watcher.slice_revisions - 1)
        if watcher.next_revision <= to_revision:
            found = self._hub.slices.get(watcher)
            if found is None:
                revisions, next_revision = store.history(
                    watcher.next_revision,
                    watcher.key,
                    watcher.range_end,
                    CATCH_UP_REVISIONS_MAX,
                    to_revision,
                )
                found = make_slice(self._hub, watcher, revisions, next_revision)
                self._hub.slices.keep(watcher, found)
            watcher.next_revision = found.next_revision
            self._put_slice(watcher, found)
        if watcher.next_revision > current:
            self._hub.sync(watcher)
            self.try_progress()
        else:
            self._behind.append(watcher)

    def _put_slice(self, watcher: Watcher, found: Slice) -> None:
        for last_revision, block in found.blocks:
            self._put_events(watcher, self._hub.header_field(last_revision), block)
        if found.size > CATCH_UP_BYTES:
            watcher.slice_revisions = max(1, watcher.slice_revisions // 2)
        elif found.size < CATCH_UP_BYTES // 4:
            watcher.slice_revisions = min(CATCH_UP_REVISIONS_MAX, watcher.slice_revisions * 2)

    # -- progress notifications ---------------------------------------------------------------

    def _arm_progress_timer(self) -> None:
        delay_s = self._progress_interval_s * (1 + random.random() / 10)
        loop = asyncio.get_running_loop()
        self._progress_timer = loop.call_later(delay_s, self._notify_progress)

    def _notify_progress(self) -> None:
        """Report to each watcher that asked, is current, and had no event in this interval."""
        revision = self._hub.revision
        header = b""
        for watcher in self._watchers.values():
            if not watcher.progress_notify or watcher.canceled:
                continue
            if watcher.sent_events:
                watcher.sent_events = False
            elif _is_current(watcher, revision) and not self._full():
                header = header or self._hub.header_field(revision)
                self._put(_Outgoing(header + watcher.id_field))
        self._arm_progress_timer()


def _is_current(watcher: Watcher, revision: int) -> bool:
    """Return whether a progress revision of ``revision`` may be reported to the watcher.

    Nothing up to there may still come for it, and it must have asked for revisions that old: a
    watch that starts in the future hears of no progress before its start (etcd since 3.5.18).
    """
    return (
        watcher.synced
        and watcher.start_revision <= revision
        and watcher.next_revision <= revision + 1
    )
