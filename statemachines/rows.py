"""What all machines here share: a state of frozen rows, and snapshots that do not hold the loop.

A machine's state is a head (counters and the like) and a table of frozen records, which are
replaced and never changed in place. So a snapshot is a copy of references, taken in an instant, and
is turned into text piece by piece while later commands are applied. Rows come in the order of their
keys, so that equal states have equal bytes. A restore fills a second state aside, piece by piece,
and puts it in place of the first in its last step.
"""

from __future__ import annotations

import abc
import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from consensus import MethodMachine, Position, StateSnapshot

FORMAT: Final = 1
"""Version of the snapshots written here; the first line names it."""

PIECE_BYTES: Final = 64 * 1024
"""Size of a snapshot's pieces: writing or loading one takes a few milliseconds."""


def _plain(record: Any) -> Any:
    return attrs.astuple(record, recurse=False)


def _line(row: Any) -> bytes:
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), default=_plain)
    return text.encode() + b"\n"


@attrs.frozen(slots=True)
class Rows:
    """A frozen state: JSON values and frozen attrs records (written as lists of their fields).

    Args:
        head: what is not in the table.
        table: rows by key; its own copy, holding nothing that is changed later.
        keys: the table's keys in order; a copy too.
    """

    head: Any
    table: Mapping[Any, Any]
    keys: Sequence[Any]

    @classmethod
    def of(cls, head: Any, table: Mapping[Any, Any]) -> Rows:
        """Freeze ``table`` in the order of its keys."""
        return cls(head, dict(table), sorted(table))


class RowsSnapshot(StateSnapshot):
    """A snapshot of one JSON line for the head and one a row, written when it is asked for.

    Args:
        name: what the snapshot is of; a restore compares it.
        rows: the state.
    """

    def __init__(self, name: str, rows: Rows) -> None:
        self._first = [name, FORMAT, len(rows.keys), rows.head]
        self._rows = rows

    def chunks(self) -> Iterator[bytes]:
        """Yield the lines in pieces of at most ``PIECE_BYTES`` bytes."""
        piece = bytearray(_line(self._first))
        table = self._rows.table
        for key in self._rows.keys:
            piece += _line((key, table[key]))
            while len(piece) >= PIECE_BYTES:
                yield bytes(piece[:PIECE_BYTES])
                del piece[:PIECE_BYTES]
        if piece:
            yield bytes(piece)

    def release(self) -> None:
        """Let go of the rows."""
        self._rows = Rows(None, {}, ())


def read_first(name: str, line: bytes) -> tuple[int, Any]:
    """Return from a snapshot's first line the number of rows that follow, and the head.

    Raises:
        ValueError: it is a snapshot of something else than ``name``, of another format, or not one.
    """
    try:
        found, version, count, head = json.loads(line)
    except (ValueError, TypeError):
        found = version = count = head = None
    if (found, version) != (name, FORMAT) or not isinstance(count, int):
        raise ValueError(f"not a snapshot of {name}, format {FORMAT}: {line[:80]!r}")
    return count, head


class RowsMachine(MethodMachine):
    """A method machine whose state is rows. Subclasses say what the rows are."""

    def __init__(self) -> None:
        self.reset()

    @abc.abstractmethod
    def reset(self) -> None:
        """Become as new: bind every attribute to a new value."""

    @abc.abstractmethod
    def dump(self) -> Rows:
        """Return the state, quickly: references, no copies of rows."""

    @abc.abstractmethod
    def load_head(self, head: Any) -> None:
        """Take the head into a state as new. As it is JSON, records have become lists."""

    @abc.abstractmethod
    def load_row(self, key: Any, row: Any) -> None:
        """Take one row, after the head and the rows before it."""

    def snapshot(self) -> StateSnapshot:
        """Freeze the state now; it becomes text later."""
        return RowsSnapshot(type(self).__name__, self.dump())

    def restore(self, data: bytes) -> None:
        """Load what ``snapshot`` wrote."""
        for _ in self.restore_steps([data], Position()):
            pass

    def restore_steps(self, chunks: Iterable[bytes], position: Position) -> Iterator[None]:
        """Load piece by piece, aside; the state changes in the last step only.

        Raises:
            ValueError: this is a snapshot of another machine or format, or not a whole one.
        """
        aside = copy.copy(self)
        aside.reset()
        name = type(self).__name__
        missing: int | None = None
        rest = b""
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            if missing is None and lines:
                missing, head = read_first(name, lines.pop(0))
                aside.load_head(head)
            if missing is not None:
                missing -= len(lines)
                if missing < 0:
                    raise ValueError(f"not a snapshot of {name}: it goes on too long")
            for line in lines:
                aside.load_row(*json.loads(line))
            yield
        if missing != 0 or rest:
            raise ValueError(f"not a snapshot of {name}: it breaks off")
        vars(self).update(vars(aside))
