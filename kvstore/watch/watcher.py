"""One watcher: what it wants, and how far it has got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2
from kvstore.watch.wire import watch_id_field

if TYPE_CHECKING:
    from kvstore.watch.stream import WatchStream

PUT: Final = mvccpb_pb2.Event.PUT
DELETE: Final = mvccpb_pb2.Event.DELETE

CATCH_UP_REVISIONS_MAX: Final = 1000
"""Revisions that one slice of catching up reads, and that one response holds, at most (etcd's)."""

CATCH_UP_REVISIONS_FIRST: Final = 100
"""Revisions of a watcher's first slice; later ones adapt to how many bytes came of it."""


@attrs.define(slots=True, eq=False)
class Watcher:
    """A watch as its stream and the hub know it.

    Args:
        stream: where its responses go.
        id: its number within the stream.
        key, range_end: what it watches, in etcd's convention.
        start_revision: what the client asked for; 0 for "from now on".
        next_revision: everything below has been delivered to the stream's buffer. While synced this
            is the first revision that it wants, and may lie in the future.
        no_put, no_delete: filters.
        prev_kv: whether events carry the value before.
        fragment: whether a large response may be split.
        progress_notify: whether it wants to hear of progress regularly.
    """

    stream: WatchStream
    id: int
    key: bytes
    range_end: bytes
    start_revision: int
    next_revision: int
    no_put: bool = False
    no_delete: bool = False
    prev_kv: bool = False
    fragment: bool = False
    progress_notify: bool = False
    synced: bool = False
    canceled: bool = False
    sent_events: bool = False
    slice_revisions: int = CATCH_UP_REVISIONS_FIRST
    id_field: bytes = b""

    @classmethod
    def of(
        cls, stream: WatchStream, watch_id: int, request: pb.WatchCreateRequest, current: int
    ) -> Watcher:
        """Make the watcher that ``request`` asks for when ``current`` is the store's revision."""
        filters = request.filters
        return cls(
            stream=stream,
            id=watch_id,
            key=request.key or b"\0",
            range_end=request.range_end,
            start_revision=request.start_revision,
            next_revision=request.start_revision or current + 1,
            no_put=pb.WatchCreateRequest.NOPUT in filters,
            no_delete=pb.WatchCreateRequest.NODELETE in filters,
            prev_kv=request.prev_kv,
            fragment=request.fragment,
            progress_notify=request.progress_notify,
            id_field=watch_id_field(watch_id),
        )

    def wants(self, event: mvccpb_pb2.Event) -> bool:
        """Return whether the filters let an event of its range pass."""
        if not self.no_put and not self.no_delete:
            return True
        return not (self.no_put if event.type == PUT else self.no_delete)
