"""The watch hub: every watcher of a member, and the way of each revision to those it concerns.

Theory of operation. The state machine calls ``notify`` once for each revision, as part of applying
it. A watcher is *synced* when its stream's buffer has had everything up to the present; synced
watchers stand in an interval index, and ``notify`` finds those that the revision concerns, encodes
each event once, and puts the shared bytes into their streams' buffers. Nothing in it waits.

A watcher that asked for the past, or whose stream's buffer is full, is *behind*: it stands in no
index and costs ``notify`` nothing. Its stream reads history for it, slice by slice, when the client
takes what is there (``kvstore.watch.stream``), until it reaches the present in the same turn of the
event loop in which it looked; then it is synced again. So no watcher misses or repeats a revision,
and a slow one slows nobody.

Everything runs on the event loop; there are no locks because no step between two awaits can be seen
half done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import attrs
import structlog

from kvstore.pb import etcdserverpb_pb2, mvccpb_pb2
from kvstore.watch.index import WatchIndex
from kvstore.watch.slices import Slices
from kvstore.watch.store import HistoryStore
from kvstore.watch.watcher import PUT, Watcher
from kvstore.watch.wire import EventBlock, event_field, header_field

if TYPE_CHECKING:
    from kvstore.watch.stream import WatchStream

log = structlog.get_logger(__name__)

Concerned = list[tuple[Watcher, tuple[int, ...]]]
"""Watchers, each with the numbers of the events of a revision that it gets."""

HeaderOf = Callable[[int], etcdserverpb_pb2.ResponseHeader]
"""Makes the response header of this member for a revision."""

MAX_REQUEST_BYTES_DEFAULT: Final = 1_572_864
FRAGMENT_OVERHEAD_BYTES: Final = 512 * 1024
"""A response is split (where asked for) from max-request-bytes plus this on, as etcd does it."""


@attrs.define(slots=True)
class WatchStats:
    """Plain counters, for the metrics page."""

    events_sent: int = 0
    watchers: int = 0
    fell_behind: int = 0
    streams: int = 0


class WatchHub:
    """All watchers of one member.

    Args:
        store: where current and past revisions are read.
        header: makes response headers.
        max_request_bytes: the server's limit on requests; decides where fragments begin.
    """

    def __init__(
        self,
        store: HistoryStore,
        header: HeaderOf,
        *,
        max_request_bytes: int = MAX_REQUEST_BYTES_DEFAULT,
    ) -> None:
        self.store = store
        self.fragment_bytes = max_request_bytes + FRAGMENT_OVERHEAD_BYTES
        self.stats = WatchStats()
        self.slices = Slices()
        """History that watchers which are behind have read lately."""
        self._header = header
        self._index: WatchIndex[Watcher] = WatchIndex()
        self._progress: dict[WatchStream, None] = {}
        self._notified_revision = store.current_revision

    # -- what the state machine calls ---------------------------------------------------------

    def notify(self, revision: int, events: Sequence[mvccpb_pb2.Event]) -> None:
        """Deliver one revision that was just applied.

        Args:
            revision: its number; larger than at the last call.
            events: what it changed, in order. Not kept, not changed.
        """
        self._notified_revision = revision
        if len(events) == 1:
            # Most revisions are one put that concerns nobody: these lines are all they cost.
            groups = self._index.match_groups(events[0].kv.key)
            if groups:
                self._deliver(revision, events, _concerned_by_one(revision, events[0], groups))
        elif len(self._index):
            self._deliver(revision, events, self._concerned_by_many(revision, events))
        if self._progress:
            for stream in tuple(self._progress):
                stream.try_progress()

    def restored(self) -> None:
        """The store was replaced by a snapshot: every watcher goes on at its own next revision.

        Watchers whose next revision is compacted in the new store are canceled, with its compact
        revision, when their streams come to read for them.
        """
        self.slices.clear()
        seen = self._notified_revision
        current = self._notified_revision = self.store.current_revision
        for watcher in tuple(self._index):
            watcher.next_revision = max(watcher.next_revision, seen + 1)
            if watcher.next_revision <= current:
                self.fall_behind(watcher, watcher.next_revision)

    def compacted(self, revision: int) -> None:
        """Note that revisions below ``revision`` can no longer be read.

        Nothing is to be done at once: a synced watcher loses nothing, and one that is behind is
        canceled when its stream next reads for it.
        """
        self.slices.clear()
        log.debug("history compacted", revision=revision, watchers=self.stats.watchers)

    # -- what streams call --------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """The store's current revision."""
        return self.store.current_revision

    def header_field(self, revision: int) -> bytes:
        """Return the encoded ``header`` field of a response at ``revision``."""
        return header_field(self._header(revision))

    def sync(self, watcher: Watcher) -> None:
        """The watcher has had everything up to now: deliver to it from the next revision on."""
        watcher.synced = True
        self._index.add(watcher, watcher.key, watcher.range_end)

    def fall_behind(self, watcher: Watcher, revision: int) -> None:
        """Take a synced watcher out of delivery; its stream reads on for it from ``revision``."""
        self.forget(watcher)
        watcher.next_revision = revision
        self.stats.fell_behind += 1
        watcher.stream.catch_up(watcher)

    def forget(self, watcher: Watcher) -> None:
        """Stop delivering to a watcher. Does nothing where it is behind anyway."""
        if watcher.synced:
            watcher.synced = False
            self._index.remove(watcher, watcher.key, watcher.range_end)

    def await_progress(self, stream: WatchStream) -> None:
        """Let the stream try again to report progress after each revision."""
        self._progress[stream] = None

    def progress_done(self, stream: WatchStream) -> None:
        """The stream no longer waits to report progress."""
        self._progress.pop(stream, None)

    def block(self, watcher: Watcher, events: Sequence[mvccpb_pb2.Event]) -> EventBlock:
        """Encode events for a watcher that is catching up."""
        return EventBlock.of([self._encode(event, watcher.prev_kv) for event in events])

    # -- inside -------------------------------------------------------------------------------

    def _deliver(
        self, revision: int, events: Sequence[mvccpb_pb2.Event], concerned: Concerned
    ) -> None:
        if not concerned:
            return
        header = self.header_field(revision)
        # Watchers that want the same events hold one and the same tuple of numbers.
        blocks: dict[tuple[int, bool], EventBlock] = {}
        encoded: dict[tuple[int, bool], bytes] = {}
        for watcher, numbers in concerned:
            which = (id(numbers), watcher.prev_kv)
            block = blocks.get(which)
            if block is None:
                fields = []
                for number in numbers:
                    field = encoded.get((number, watcher.prev_kv))
                    if field is None:
                        field = self._encode(events[number], watcher.prev_kv)
                        encoded[number, watcher.prev_kv] = field
                    fields.append(field)
                block = blocks[which] = EventBlock.of(fields)
            if not watcher.stream.offer(watcher, header, block):
                self.fall_behind(watcher, revision)

    def _concerned_by_many(self, revision: int, events: Sequence[mvccpb_pb2.Event]) -> Concerned:
        """Return whom a revision concerns, each with the numbers of the events that it wants.

        The work grows with events times *different* ranges, not with events times watchers.
        """
        match_groups = self._index.match_groups
        groups: dict[int, tuple[dict[Watcher, None], list[int]]] = {}
        for number, event in enumerate(events):
            for group in match_groups(event.kv.key):
                groups.setdefault(id(group), (group, []))[1].append(number)
        concerned: Concerned = []
        for group, matching in groups.values():
            wanted: dict[tuple[bool, bool], tuple[int, ...]] = {}
            for watcher in group:
                if watcher.next_revision > revision:
                    continue
                filters = (watcher.no_put, watcher.no_delete)
                numbers = wanted.get(filters)
                if numbers is None:
                    numbers = tuple(n for n in matching if watcher.wants(events[n]))
                    wanted[filters] = numbers
                if numbers:
                    concerned.append((watcher, numbers))
        return concerned

    def _encode(self, event: mvccpb_pb2.Event, prev_kv: bool) -> bytes:
        """Encode one event, with the value before it where that is wanted and still there."""
        kv = event.kv
        if not prev_kv or (event.type == PUT and kv.create_revision == kv.mod_revision):
            return event_field(event)
        return event_field(event, self.store.get_at(kv.key, kv.mod_revision - 1))


def _concerned_by_one(
    revision: int, event: mvccpb_pb2.Event, groups: Sequence[dict[Watcher, None]]
) -> Concerned:
    """Return whom a revision of one event concerns, of those who watch its key."""
    only = (0,)
    return [
        (watcher, only)
        for group in groups
        for watcher in group
        if watcher.next_revision <= revision and watcher.wants(event)
    ]
