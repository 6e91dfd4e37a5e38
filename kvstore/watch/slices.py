"""Slices of history, shared by the watchers that need the same.

A client that does not keep up lets all its watchers of a range fall behind at one revision, and all
of them read on from there. What one has read is kept for the next, encoded, whichever stream it is
on. Nothing in a slice can change: history is only ever compacted away or replaced as a whole, and
then everything kept here is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from kvstore.watch.wire import EventBlock

if TYPE_CHECKING:
    from kvstore.pb import mvccpb_pb2
    from kvstore.watch.hub import WatchHub
    from kvstore.watch.watcher import Watcher

CATCH_UP_BYTES: Final = 1024 * 1024
"""Bytes of events from which a response of a watcher that catches up is closed."""

SLICES_KEPT_MAX: Final = 8
SLICES_KEPT_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of events. A slice that is larger by itself is not kept."""

_Key = tuple[int, bytes, bytes, bool, bool, bool]


@attrs.frozen(slots=True, eq=False)
class Slice:
    """What a watcher gets of some revisions.

    Args:
        blocks: the responses, each with the revision for its header.
        next_revision: where to read on.
        size: bytes of events.
    """

    blocks: tuple[tuple[int, EventBlock], ...]
    next_revision: int
    size: int


class Slices:
    """The slices read last."""

    def __init__(self) -> None:
        self._kept: dict[_Key, Slice] = {}
        self._bytes = 0

    def get(self, watcher: Watcher) -> Slice | None:
        """Return the slice that a watcher needs next, if it was read lately."""
        return self._kept.get(_key(watcher))

    def keep(self, watcher: Watcher, found: Slice) -> None:
        """Keep what was read for a watcher; the oldest ones make room."""
        if found.size > SLICES_KEPT_BYTES_MAX:
            return
        self._kept[_key(watcher)] = found
        self._bytes += found.size
        while len(self._kept) > SLICES_KEPT_MAX or self._bytes > SLICES_KEPT_BYTES_MAX:
            self._bytes -= self._kept.pop(next(iter(self._kept))).size

    def clear(self) -> None:
        """History is not what it was: forget everything."""
        self._kept.clear()
        self._bytes = 0


def _key(watcher: Watcher) -> _Key:
    return (
        watcher.next_revision,
        watcher.key,
        watcher.range_end,
        watcher.prev_kv,
        watcher.no_put,
        watcher.no_delete,
    )


def make_slice(
    hub: WatchHub,
    watcher: Watcher,
    revisions: Sequence[tuple[int, Sequence[mvccpb_pb2.Event]]],
    next_revision: int,
) -> Slice:
    """Encode what a watcher wants of revisions that were read for it."""
    blocks = tuple(_blocks(hub, watcher, revisions, next_revision))
    return Slice(blocks, next_revision, sum(len(block.data) for _, block in blocks))


def _blocks(
    hub: WatchHub,
    watcher: Watcher,
    revisions: Sequence[tuple[int, Sequence[mvccpb_pb2.Event]]],
    next_revision: int,
) -> Iterator[tuple[int, EventBlock]]:
    """Group whole revisions into responses of about ``CATCH_UP_BYTES``.

    Yields each with the revision for its header: the last one, up to which nothing is missing;
    for the slice's last response, that is where the slice ended.
    """
    fields: list[bytes] = []
    size = 0
    before = 0
    for revision, events in revisions:
        wanted = [event for event in events if watcher.wants(event)]
        if not wanted:
            continue
        block = hub.block(watcher, wanted)
        if fields and size + len(block.data) > CATCH_UP_BYTES:
            yield before, EventBlock.of(fields)
            fields, size = [], 0
        fields.extend(block.events)
        size += len(block.data)
        before = revision
    if fields:
        yield max(before, next_revision - 1), EventBlock.of(fields)
