"""Reading a write-ahead log after a stop or a crash: what it holds, and whether it is whole.

What tells a torn tail from damage (Alagappan and others, "Protocol-Aware Recovery for
Consensus-Based Storage", FAST 2018):

* a bad record at or beyond the synced offset of the newest segment was never promised to anybody:
  it is cut;
* a bad record before it was promised: that is damage, and it is never cut silently;
* an older segment must end exactly where the one after it says that it ended;
* what the disk cannot read is damage too.
"""

from __future__ import annotations

import errno

import attrs

from consensus.errors import DataDamaged
from consensus.raft.messages import LogEntry
from consensus.raft.ready import HardState
from consensus.storage.files import File, FileSystem
from consensus.storage.records import Base, Record
from consensus.storage.segments import (
    BLOCK_BYTES,
    RecordReader,
    Segment,
    erase_tail,
    name_of,
    numbers_in,
    opening_is_whole,
    read_head,
    synced_offset,
    torn_bytes,
    was_never_used,
)


class LogDamaged(DataDamaged):
    """A record that was synced cannot be read. What came before it is in ``recovered``."""

    def __init__(self, segment: str, offset: int, why: str, recovered: Recovered) -> None:
        super().__init__(f"log segment {segment} is damaged at offset {offset}: {why}")
        self.segment = segment
        self.offset = offset
        self.recovered = recovered


@attrs.define(slots=True)
class Recovered:
    """What a log held when it was opened.

    Once older segments were released, the first one left begins in the middle (``begins_late``):
    entries that it takes for granted are gone with them. What it holds counts only if a later base,
    written before the release, says where the log begins now; until that is read the beginning is
    ``unsure``.

    ``noted_term`` is the term by the note beside the records. Above theirs it says that the last
    batch is gone with a promise in it: a crash tore its write, or what it held was damaged since.
    """

    base: Base = attrs.field(factory=lambda: Base(0, 0))
    hard_state: HardState = attrs.field(factory=HardState)
    entries: list[LogEntry] = attrs.field(factory=list)
    torn_bytes: int = 0
    begins_late: bool = False
    unsure: bool = False
    noted_term: int = 0

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the base."""
        return self.entries[-1].index if self.entries else self.base.index

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the base."""
        return self.entries[-1].term if self.entries else self.base.term

    def add(self, record: Record) -> None:
        """Take in the next record in log order.

        Raises:
            ValueError: entries between it and the one before are missing.
        """
        match record:
            case HardState():
                self.hard_state = record
            case Base():
                self._rebase(record)
            case LogEntry():
                self._add_entry(record)

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at ``index``, or of the base; None where neither is."""
        offset = index - self.base.index
        if offset == 0:
            return self.base.term
        return self.entries[offset - 1].term if 0 < offset <= len(self.entries) else None

    def _add_entry(self, entry: LogEntry) -> None:
        keep = entry.index - self.base.index - 1
        if keep > len(self.entries) or (keep < 0 and self.unsure):
            if not self.begins_late:
                raise ValueError(f"index {entry.index} follows index {self.last_index}")
            self.base, self.entries, self.unsure = Base(entry.index - 1, 0), [], True
        elif keep >= 0:
            del self.entries[keep:]
        else:
            return  # a snapshot covers it
        self.entries.append(entry)

    def _rebase(self, base: Base) -> None:
        covered = base.index - self.base.index
        if covered < 0:
            return
        if covered:
            joins = self.term_at(base.index) == base.term
            self.entries = self.entries[covered:] if joins else []
        self.base = base
        self.unsure = False


@attrs.define(slots=True)
class _Found:
    """A segment that may be part of the log."""

    number: int
    file: File
    previous_end: int
    problem: str


def read_log(files: FileSystem, group_id: int) -> tuple[Recovered, list[Segment]]:
    """Read every segment that the log consists of; cut a torn tail, remove what was replaced.

    Raises:
        LogDamaged: what was synced cannot be read.
        StorageError: another group's log, or another version's.
        OSError: the file system failed.
    """
    opened: list[File] = []
    try:
        chain, dropped = _chain(files, group_id, opened)
        begins_late = bool(chain) and chain[0].previous_end != 0
        recovered = Recovered(begins_late=begins_late, unsure=begins_late)
        segments = []
        for position, found in enumerate(chain):
            following = chain[position + 1] if position + 1 < len(chain) else None
            segments.append(_read_segment(found, following, recovered))
        if recovered.unsure:
            raise LogDamaged(
                name_of(chain[0].number), 0, "the segments before it are missing", recovered
            )
        for number in dropped:
            files.remove(name_of(number))
    except BaseException:
        for file in opened:
            file.close()
        raise
    return recovered, segments


def _chain(files: FileSystem, group_id: int, opened: list[File]) -> tuple[list[_Found], list[int]]:
    """Walk back from the newest segment to where the log begins.

    Returns:
        the segments of the log, and the numbers of those that are none of it: a newest one whose
        making a crash cut short, and what is older than the log's beginning.
    """
    chain: list[_Found] = []
    unfinished: list[int] = []
    numbers = numbers_in(files)
    while numbers and not (chain and numbers[-1] != chain[0].number - 1):
        number = numbers.pop()
        file = files.open(name_of(number))
        opened.append(file)
        try:
            previous_end, problem = read_head(file, number, group_id)
            whole = not problem and opening_is_whole(file, begins_log=previous_end == 0)
            may_be_unfinished = not whole and not chain and (bool(numbers) or number == 1)
            if may_be_unfinished and was_never_used(file, number):
                file.close()
                unfinished.append(number)  # nothing was ever promised from it
                continue
        except OSError as error:
            previous_end, problem = 0, _unreadable(error)
        chain.insert(0, _Found(number, file, previous_end, problem))
        if previous_end == 0 and not problem:
            break
    return chain, numbers + unfinished


def _read_segment(found: _Found, following: _Found | None, recovered: Recovered) -> Segment:
    name = name_of(found.number)
    if found.problem:
        raise LogDamaged(name, 0, found.problem, recovered)
    ended_at = following.previous_end if following is not None and not following.problem else None
    reader = RecordReader(found.file, ended_at)
    why = ""
    offset = reader.offset
    try:
        while (record := reader.next()) is not None:
            recovered.add(record)
            offset = reader.offset
    except ValueError as error:
        why = str(error)
    except OSError as error:
        raise LogDamaged(name, offset, _unreadable(error), recovered) from error
    why = why or reader.why
    promised = ended_at
    if following is None:
        promised = synced_offset(found.file, found.number) or BLOCK_BYTES
    if (promised is not None and offset < promised) or (why and following is not None):
        raise LogDamaged(name, offset, why or "the record is missing", recovered)
    if following is None:
        try:
            recovered.torn_bytes = torn_bytes(found.file, offset)
        except OSError as error:
            raise LogDamaged(name, offset, _unreadable(error), recovered) from error
        if recovered.torn_bytes:
            erase_tail(found.file, offset)
        found.file.note_blank(offset)
    return Segment(found.number, found.file, offset, recovered.last_index)


def _unreadable(error: OSError) -> str:
    """Say that a block cannot be read: damage, like a block that reads as something else.

    Raises:
        OSError: the same, if it is anything but that.
    """
    if error.errno != errno.EIO:
        raise error
    return "it cannot be read (input/output error)"
