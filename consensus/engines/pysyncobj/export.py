"""Reading a stopped member's log, for whoever takes it over.

Nothing is changed. What is read is exactly what a start would go on from: the snapshot, and the
entries after it, committed or not.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from pysyncobj.syncobj import _COMMAND_TYPE

from consensus.engines.pysyncobj.codec import Frame, decode_frame
from consensus.engines.pysyncobj.dump import DUMP_NAME, DumpReader
from consensus.engines.pysyncobj.journal import LogEntry, SegmentJournal
from consensus.errors import StorageError
from consensus.types import Position


@attrs.frozen(slots=True)
class ExportedEntry:
    """One entry: its place in PySyncObj's log, its term, and its frame if it carries one."""

    index: int
    term: int
    frame: Frame | None


@attrs.frozen(slots=True)
class ExportedLog:
    """A member's whole state.

    Args:
        base: of the machine in the snapshot; index 0 where there is no snapshot.
        base_index, base_term: of the last entry that the snapshot covers; 0 without one.
        chunks: the snapshot's data; nothing without one.
        entries: what follows.
        term: the member's.
        voted_for: whom it voted for in that term, by peer address.
    """

    base: Position
    base_index: int
    base_term: int
    chunks: Iterator[bytes]
    entries: Iterator[ExportedEntry]
    term: int
    voted_for: str | None


@contextmanager
def exported(directory: Path) -> Iterator[ExportedLog]:
    """Open a stopped member's engine directory.

    Raises:
        StorageError: something in it is damaged; the text says what to do.
    """
    journal = SegmentJournal(directory)
    reader: DumpReader | None = None
    try:
        base, base_index, base_term = Position(), 0, 0
        chunks: Iterator[bytes] = iter(())
        entries: list[LogEntry] = journal[:]
        dump = directory / DUMP_NAME
        if dump.exists():
            reader = DumpReader(dump)
            for _ in reader.verify_steps():
                pass
            base = reader.head.position
            _, base_index, base_term = reader.head.last
            chunks = reader.chunks()
            entries = _after(entries, base_index, base_term, directory)
        elif entries and entries[0][1] > 1:
            raise StorageError(f"{dump} is missing, and the log begins at entry {entries[0][1]}")
        term = max([journal.getCurrentTerm(), base_term, *(entry[2] for entry in entries[-1:])])
        voted_for = journal.getVotedForNodeId() if term == journal.getCurrentTerm() else None
        yield ExportedLog(base, base_index, base_term, chunks, _decoded(entries), term, voted_for)
    finally:
        journal._destroy()
        if reader is not None:
            reader.close()


def _after(entries: list[LogEntry], index: int, term: int, directory: Path) -> list[LogEntry]:
    """Return what goes on from a snapshot; nothing where the log is older or not the same."""
    if entries and entries[0][1] > index + 1:
        raise StorageError(
            f"{directory}: the snapshot ends at entry {index}, and the log begins at entry "
            f"{entries[0][1]}: what was between them is missing"
        )
    for place, entry in enumerate(entries):
        if entry[1] == index:
            return entries[place + 1 :] if entry[2] == term else []
    return []


def _decoded(entries: list[LogEntry]) -> Iterator[ExportedEntry]:
    for command, index, term in entries:
        frame = None
        if command[0] == _COMMAND_TYPE.REGULAR:
            frame = decode_frame(_text_of(command[1:]))
        yield ExportedEntry(index, term, frame)


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, text and tuples; a pickle that wants anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse: our frames name no class."""
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _text_of(pickled: bytes) -> str:
    try:
        called = _PlainUnpickler(io.BytesIO(pickled)).load()
        text = called[1][0]
        if not isinstance(text, str):
            raise TypeError(f"{type(text).__name__} in place of a frame")
    except (pickle.UnpicklingError, EOFError, IndexError, TypeError, ValueError) as error:
        raise StorageError(f"an entry of the log is not one of ours: {error}") from None
    return text
