"""Defragment without stopping: write the store anew beside itself, catch up, and switch.

LMDB reuses freed pages but never gives them back to the file system. So a copy is made from a
snapshot, in slices, while entries go on being applied; those are applied to the copy as well (the
same entries give the same state); and once nothing is missing the copy takes the file's place in
one rename. Readers and watchers notice nothing. A kill at any moment leaves one file or the other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from consensus.errors import StorageError
from consensus.types import Entry, Position
from kvstore.applier import Applier
from kvstore.mvcc.snapshot import StoreSnapshot, load_steps, remove_database
from kvstore.mvcc.store import SLICE_S, Store

BACKLOG_BYTES_MAX: Final = 64 * 2**20
"""Bytes of commands that may wait to be applied to the copy; beyond, defragmenting gives up."""

CATCH_UP_RECORDS: Final = 250
"""Changed records between two commits of the copy."""


class Backlog:
    """Entries that were applied to the store and not yet to its copy."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self._bytes = 0
        self._broken = ""

    def add(self, entry: Entry) -> None:
        """Note an entry that was applied to the store."""
        if self._broken:
            return
        self._bytes += len(entry.command)
        self.entries.append(entry)
        if self._bytes > BACKLOG_BYTES_MAX:
            self.give_up("writes come faster than they can be copied; try again when it is quieter")

    def take(self) -> Entry:
        """Return the oldest entry."""
        entry = self.entries.popleft()
        self._bytes -= len(entry.command)
        return entry

    def give_up(self, reason: str) -> None:
        """Make the copy useless: the store went another way, or too far ahead."""
        self._broken = reason
        self.entries.clear()

    def check(self) -> None:
        """Raise if the copy is useless.

        Raises:
            StorageError: with the reason.
        """
        if self._broken:
            raise StorageError(f"defragmenting gave up: {self._broken}. Nothing was changed")


def rewrite_steps(
    store: Store, path: Path, min_lease_ttl_s: int, backlog: Backlog
) -> Iterator[None]:
    """Copy the store to ``path``, apply the backlog to the copy, and put it in the file's place.

    Args:
        backlog: receives every entry that is applied from now on, until this ends.

    Raises:
        StorageError: the disk failed, or the store went ahead too far; it is as it was.
    """
    frozen = StoreSnapshot(store)
    try:
        for _ in load_steps(path, frozen.chunks(), None):
            yield
            backlog.check()
    except StorageError:
        backlog.check()
        raise
    finally:
        frozen.release()
    copy = Store(path)
    try:
        applier = Applier(copy, min_lease_ttl_s)
        # A snapshot that is being read holds the old file.
        while True:
            backlog.check()
            _catch_up(applier, backlog)
            if not backlog.entries and not store.snapshots:
                break
            yield
        copy.close()
    except BaseException:
        copy.backend.close()
        remove_database(path)
        raise
    store.replace_file(path)


def _catch_up(applier: Applier, backlog: Backlog) -> None:
    """Apply waiting entries to the copy for one slice of time."""
    copy = applier.store
    deadline = time.perf_counter() + SLICE_S
    while backlog.entries and time.perf_counter() < deadline:
        entry = backlog.take()
        applier.apply(entry)
        group_id = copy.state.position.group_id
        copy.set_position(Position(entry.index, entry.term, entry.clock_ms, group_id))
        if copy.uncommitted >= CATCH_UP_RECORDS:
            copy.commit()
