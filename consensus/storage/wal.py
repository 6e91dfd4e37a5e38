"""The write-ahead log: segments of checked records, written by one writer in one order.

A segment is preallocated, so that a sync touches data only. How far it was synced is written
*after* each sync and so is itself made durable by the next one: after a loss of power it is at most
one batch old (of that one last batch, damage cannot be told from a torn write). See ``segments``
for the layout and ``recovery`` for what is made of it after a crash.

The term is noted a second time, apart from the records, in the same sync: what a member promised in
which term is the one thing that its peers cannot give back to it (``salvage``).

Overwriting is by index: an entry whose index is not above the last one's replaces it and all after
it. Hard state is a record among the others, so that votes and entries cannot be reordered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from consensus import failpoints
from consensus.errors import StorageError
from consensus.raft.messages import LogEntry
from consensus.raft.ready import HardState
from consensus.storage.files import FileSystem
from consensus.storage.records import Base, Record, encode
from consensus.storage.recovery import LogDamaged, Recovered, read_log
from consensus.storage.segments import (
    BLOCK_BYTES,
    Segment,
    name_of,
    noted_term,
    numbers_in,
    write_head,
    write_slot,
    write_term,
)

SEGMENT_BYTES: Final = 64 * 1024 * 1024


class WriteAheadLog:
    """One member's log on disk.

    Args:
        files: where the segments are.
        group_id: the group that this log belongs to; another group's log is refused.
        segment_bytes: how large a new segment is made.
    """

    def __init__(
        self, files: FileSystem, *, group_id: int = 0, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._files = files
        self._group_id = group_id
        self._segment_bytes = segment_bytes
        self._segments: list[Segment] = []
        self._slot = 0
        self._failed = ""
        self._hard_state = HardState()
        self._base = Base(0, 0)
        self._last_index = 0
        self._term_slot = 0
        self._noted_term = -1

    def open(self) -> Recovered:
        """Read every segment, cut a torn tail, and be ready to append.

        Raises:
            LogDamaged: a synced record is bad; nothing was changed on disk.
            StorageError: another group's log, another version's, or the file system failed.
        """
        with self._telling("opening"):
            recovered, self._segments = read_log(self._files, self._group_id)
            noted = noted_term(self._files)
            recovered.noted_term = noted or 0
            self._hard_state = recovered.hard_state
            self._base = recovered.base
            self._last_index = recovered.last_index
            if self._segments:
                self._settle_tail(self._segments[-1], noted)
            else:
                self._add_segment(1, encode(self._base))
        return recovered

    def append(self, records: Sequence[Record]) -> None:
        """Write records after the last one and sync. One write, one sync.

        Raises:
            StorageError: the write or the sync failed, now or before. A sync is never retried:
                after a failure nobody knows what is on disk.
        """
        data = b"".join(map(encode, records))
        with self._telling("writing"):
            if self._segments[-1].end + len(data) > self._segment_bytes:
                self._add_segment(self._segments[-1].number + 1, b"", len(data))
            segment = self._segments[-1]
            failpoints.hit("wal.before_write")
            segment.file.write(segment.end, data)
            for record in records:
                if isinstance(record, HardState) and record.term > self._noted_term:
                    self._note_term(segment, record.term)
            failpoints.hit("wal.before_sync")
            segment.file.sync()
            failpoints.hit("wal.after_sync")
            segment.end += len(data)
            self._note_synced(segment)
        self._remember(records)

    def release_before(self, index: int) -> None:
        """Remove segments that hold nothing after ``index``; a snapshot covers them.

        Raises:
            StorageError: the file system failed, now or before.
        """
        with self._telling("shortening"):
            removed = False
            failpoints.hit("wal.before_release")
            while len(self._segments) > 1 and self._segments[0].last_index <= index:
                segment = self._segments.pop(0)
                segment.file.close()
                self._files.remove(name_of(segment.number))
                removed = True
            if removed:
                self._files.sync_names()

    def start_over(self, base: Base, hard_state: HardState) -> None:
        """Drop everything and begin anew after ``base``: a snapshot has taken the log's place.

        Raises:
            StorageError: the file system failed, now or before.
        """
        with self._telling("replacing"):
            failpoints.hit("wal.before_replace")
            older = numbers_in(self._files)
            old, self._segments = self._segments, []
            self._base, self._hard_state, self._last_index = base, hard_state, base.index
            self._add_segment(older[-1] + 1 if older else 1, encode(base))
            for segment in old:
                segment.file.close()
            for number in older:
                self._files.remove(name_of(number))
            self._files.sync_names()
            failpoints.hit("wal.after_replace")

    def salvage(self, damage: LogDamaged) -> Recovered:
        """Begin anew with what a damaged log still has before the damage; not to be trusted.

        The term is raised beyond every promise that may be lost, and the hard state says so until
        the member is repaired (see ``Core.repairing``).

        Raises:
            LogDamaged: the term cannot be told any more; nothing was changed on disk.
            StorageError: the file system failed.
        """
        with self._telling("salvaging"):
            term = noted_term(self._files)
        if term is None:
            raise damage
        return self.distrust(damage.recovered, term)

    def distrust(self, found: Recovered, term: int) -> Recovered:
        """Begin anew with ``found``: what was promised up to ``term`` may be lost.

        Raises:
            StorageError: the file system failed.
        """
        kept = Recovered() if found.unsure else found
        lost_term = max(term, kept.hard_state.term, kept.last_term)
        kept.hard_state = HardState(
            lost_term + 1, None, kept.hard_state.commit_index, lost_term=lost_term
        )
        kept.begins_late = False
        self.start_over(kept.base, kept.hard_state)
        if kept.entries:
            self.append(kept.entries)
        return kept

    def close(self) -> None:
        """Close the segments."""
        for segment in self._segments:
            segment.file.close()
        self._segments = []

    # -- inside -------------------------------------------------------------------------------

    def _add_segment(self, number: int, base: bytes, needed: int = 0) -> None:
        """Make a segment. The one that a log begins with says what the log continues from.

        Its first slot is synced as well: from then on whatever is wrong with it is damage.
        """
        failpoints.hit("wal.before_segment")
        file = self._files.open(name_of(number))
        opening = base + encode(self._hard_state)
        segment = Segment(number, file, BLOCK_BYTES + len(opening))
        file.resize(max(self._segment_bytes, segment.end + needed))
        write_head(file, number, self._group_id, 0 if base else self._segments[-1].end)
        file.write(BLOCK_BYTES, opening)
        self._note_term(segment, self._hard_state.term)
        file.sync()
        self._note_synced(segment)
        file.sync()
        self._files.sync_names()
        self._segments.append(segment)
        failpoints.hit("wal.after_segment")

    def _settle_tail(self, segment: Segment, noted: int | None) -> None:
        """Make what was read durable, then say so: from now on a fault in it is damage.

        A crash may have kept a record that nobody had been told of yet, and lost its note.
        """
        if noted is not None and self._hard_state.term > noted:
            self._note_term(segment, self._hard_state.term)
        segment.file.sync()
        self._note_synced(segment)
        segment.file.sync()

    def _note_synced(self, segment: Segment) -> None:
        self._slot = 1 - self._slot
        write_slot(segment.file, self._slot, segment.number, segment.end)

    def _note_term(self, segment: Segment, term: int) -> None:
        self._term_slot = 1 - self._term_slot
        self._noted_term = term
        write_term(segment.file, self._term_slot, segment.number, term)

    def _remember(self, records: Iterable[Record]) -> None:
        for record in records:
            if isinstance(record, LogEntry):  # nearly all are
                self._last_index = record.index
                continue
            match record:
                case HardState():
                    self._hard_state = record
                case Base():
                    self._base = record
                    self._last_index = max(self._last_index, record.index)
        self._segments[-1].last_index = max(self._segments[-1].last_index, self._last_index)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turn a failure of the file system into one that says what failed, and let it be final."""
        if self._failed:
            raise StorageError(self._failed)
        try:
            yield
        except OSError as error:
            self._failed = f"{what} the log failed: {error}; the node must stop"
            raise StorageError(self._failed) from error
