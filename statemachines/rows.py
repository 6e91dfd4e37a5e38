"""What all machines here share: a state of frozen rows, and snapshots that do not hold the loop.

A machine's tables map names to frozen records, which are replaced and never changed in place. So a
snapshot is a list of references, taken in an instant, and is turned into text piece by piece while
later commands are applied. Rows come in a fixed order (sorted by name), because equal states must
have equal bytes: the order in which a dictionary was filled differs between a member that applied
every command and one that was restored.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import attrs

from consensus import MethodMachine, Position, StateSnapshot
from consensus.statemachine import SNAPSHOT_CHUNK_BYTES_MAX

FORMAT: Final = 1
"""Version of the snapshots written here; the first row names it."""


def _plain(record: Any) -> Any:
    return attrs.astuple(record, recurse=False)


def _line(row: Any) -> bytes:
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), default=_plain)
    return text.encode() + b"\n"


class RowsSnapshot(StateSnapshot):
    """A snapshot that is one JSON line a row, written when it is asked for.

    Args:
        rows: JSON values and frozen attrs records (written as lists of their fields).
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def chunks(self) -> Iterator[bytes]:
        """Yield the lines in pieces of about ``SNAPSHOT_CHUNK_BYTES_MAX`` bytes."""
        piece = bytearray()
        for row in self._rows:
            piece += _line(row)
            while len(piece) >= SNAPSHOT_CHUNK_BYTES_MAX:
                yield bytes(piece[:SNAPSHOT_CHUNK_BYTES_MAX])
                del piece[:SNAPSHOT_CHUNK_BYTES_MAX]
        if piece:
            yield bytes(piece)

    def release(self) -> None:
        """Let go of the rows."""
        self._rows = ()


class RowsMachine(MethodMachine):
    """A method machine whose state is rows. Subclasses say what the rows are."""

    @abc.abstractmethod
    def dump_rows(self) -> list[Any]:
        """Return the state as rows in a fixed order, quickly: references, no copies."""

    @abc.abstractmethod
    def load_rows(self, rows: list[Any]) -> None:
        """Replace the state with rows that ``dump_rows`` gave (records have become lists)."""

    def snapshot(self) -> StateSnapshot:
        """Freeze the state now; it becomes text later."""
        return RowsSnapshot([[type(self).__name__, FORMAT], *self.dump_rows()])

    def restore(self, data: bytes) -> None:
        """Load what ``snapshot`` wrote."""
        for _ in self.restore_steps([data], Position()):
            pass

    def restore_steps(self, chunks: Iterable[bytes], position: Position) -> Iterator[None]:
        """Load piece by piece; the state changes in the last step only.

        Raises:
            ValueError: this is a snapshot of another machine or format, or not one at all.
        """
        rows: list[Any] = []
        rest = b""
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            rows.extend(map(json.loads, lines))
            yield
        expected = [type(self).__name__, FORMAT]
        if rest or not rows or rows[0] != expected:
            found = rows[0] if rows else "nothing"
            raise ValueError(f"not a whole snapshot of {expected[0]}, format {FORMAT}: {found}")
        self.load_rows(rows[1:])
