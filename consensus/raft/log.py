"""The log as the core sees it: every entry after the snapshot, and how far it is on disk.

    snapshot.index < first_index ... last_index
    persisted_index <= last_index: entries up to here were synced by this node

The core appends and truncates here at once; the driver makes it so on disk and reports back. The
entries are kept in memory until they are compacted, which bounds nothing by itself: the driver
bounds it by asking for snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence

from consensus.raft.messages import LogEntry, SnapshotMeta


class Compacted(Exception):
    """The entry asked for lies before the log: it is inside the snapshot."""


class RaftLog:
    """Entries after a snapshot.

    Args:
        snapshot: what the log continues from.
        entries: what was found on disk after it, all synced.
    """

    def __init__(self, snapshot: SnapshotMeta, entries: Sequence[LogEntry] = ()) -> None:
        self.snapshot = snapshot
        self._entries = list(entries)
        self.persisted_index = self.last_index

    @property
    def first_index(self) -> int:
        """Index of the first entry, or where it would be."""
        return self.snapshot.index + 1

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the snapshot."""
        return self.snapshot.index + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the snapshot."""
        return self._entries[-1].term if self._entries else self.snapshot.term

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at ``index``; None where the log does not reach.

        Raises:
            Compacted: the entry lies inside the snapshot.
        """
        offset = index - self.snapshot.index
        if offset <= 0:
            if offset == 0:
                return self.snapshot.term
            raise Compacted(f"index {index} is inside the snapshot at {self.snapshot.index}")
        if offset > len(self._entries):
            return None
        return self._entries[offset - 1].term

    def has(self, index: int, term: int) -> bool:
        """Whether the entry at ``index`` has ``term``. Inside the snapshot: cannot be told, no."""
        if index < self.snapshot.index:
            return False
        return self.term_at(index) == term

    def entry(self, index: int) -> LogEntry:
        """Return the entry at ``index``, which must be in the log."""
        return self._entries[index - self.snapshot.index - 1]

    def slice(self, start: int, stop: int, bytes_max: int | None = None) -> list[LogEntry]:
        """Return entries ``start`` to ``stop - 1``, at least one, up to ``bytes_max`` of data.

        Raises:
            Compacted: ``start`` lies inside the snapshot.
        """
        if start <= self.snapshot.index:
            raise Compacted(f"index {start} is inside the snapshot at {self.snapshot.index}")
        first = start - self.first_index
        end = min(max(0, stop - self.first_index), len(self._entries))
        if bytes_max is None:
            return self._entries[first:end]
        # Count before copying: what is left for a member far behind may be long.
        size = 0
        for number in range(first, end):
            size += len(self._entries[number].data)
            if size > bytes_max and number > first:
                return self._entries[first:number]
        return self._entries[first:end]

    def append(self, entries: Sequence[LogEntry]) -> None:
        """Add entries that follow the last one."""
        self._entries.extend(entries)

    def truncate(self, last_index: int) -> list[LogEntry]:
        """Drop every entry after ``last_index`` and return what was dropped."""
        keep = last_index - self.snapshot.index
        dropped = self._entries[keep:]
        del self._entries[keep:]
        self.persisted_index = min(self.persisted_index, last_index)
        return dropped

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up to date as this one (paper, 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def last_index_not_above(self, index: int, term: int) -> int:
        """Return the greatest index at or before ``index`` whose term is at most ``term``.

        This is how a whole term of disagreement is skipped at once. Returns the snapshot's index
        where every entry in the log has a greater term.
        """
        probe = min(index, self.last_index)
        while probe > self.snapshot.index and self._entries[probe - self.first_index].term > term:
            probe -= 1
        return probe

    def compact(self, snapshot: SnapshotMeta) -> None:
        """Let ``snapshot`` stand for every entry that it covers; what follows it stays."""
        covered = snapshot.index - self.snapshot.index
        del self._entries[: max(0, covered)]
        self.snapshot = snapshot
        self.persisted_index = max(self.persisted_index, snapshot.index)

    def reset(self, snapshot: SnapshotMeta) -> None:
        """Start anew after ``snapshot``: nothing of the old log is left."""
        self._entries.clear()
        self.snapshot = snapshot
        self.persisted_index = snapshot.index
