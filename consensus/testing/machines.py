"""Two small machines that the engine suite watches engines with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from consensus.statemachine import BytesSnapshot, StateMachine, StateSnapshot
from consensus.types import Entry, Position

POISON: Final = b"poison"


class RecordingMachine(StateMachine):
    """Remembers every command that it applied, in order. Its result is how many it has.

    Args:
        directory: keeps its state there when given: a durable machine. Otherwise in memory.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.commands: list[bytes] = []
        self.entries: list[Entry] = []
        """What was applied in this life of the process: not part of the state."""
        self.discarded = 0
        self.restored = 0
        self._position = Position()
        self._file = directory / "recording.json" if directory is not None else None
        if self._file is not None and self._file.exists():
            self._load(self._file.read_bytes())

    def apply(self, entry: Entry) -> int:
        """Append the command."""
        self.commands.append(entry.command)
        self.entries.append(entry)
        self._position = Position(entry.index, entry.term, entry.clock_ms)
        self._save()
        return len(self.commands)

    def query(self, request: Any) -> list[bytes]:
        """Return all commands."""
        return list(self.commands)

    def snapshot(self) -> StateSnapshot:
        """Freeze the list."""
        return BytesSnapshot(json.dumps([command.hex() for command in self.commands]).encode())

    def restore(self, data: bytes) -> None:
        """Replace the list."""
        self.restored += 1
        self.commands = [bytes.fromhex(text) for text in json.loads(data)]

    def restore_steps(self, chunks: Iterable[bytes], position: Position) -> Iterator[None]:
        """Replace the list, and on disk the file, at once in the last step."""
        yield from super().restore_steps(chunks, position)
        self._position = position
        self._save()

    def position(self) -> Position:
        """Where the file stands; index 0 in memory."""
        return self._position if self._file is not None else Position()

    def discard(self) -> None:
        """Empty the list and remove the file."""
        self.discarded += 1
        self.commands = []
        self._position = Position()
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def place(self, position: Position) -> None:
        """Pretend to stand elsewhere, as a machine does whose log was lost. For tests."""
        self._position = position
        self._save()

    def _save(self) -> None:
        if self._file is None:
            return
        at = self._position
        state = {
            "position": [at.index, at.term, at.clock_ms, at.group_id],
            "commands": [command.hex() for command in self.commands],
        }
        aside = self._file.with_suffix(".tmp")
        aside.write_text(json.dumps(state))
        aside.replace(self._file)

    def _load(self, data: bytes) -> None:
        state = json.loads(data)
        self._position = Position(*state["position"])
        self.commands = [bytes.fromhex(text) for text in state["commands"]]


class BreakableMachine(RecordingMachine):
    """Raises at the command ``POISON`` until it is repaired."""

    def __init__(self, directory: Path | None = None, repaired: bool = False) -> None:
        super().__init__(directory)
        self.repaired = repaired

    def apply(self, entry: Entry) -> int:
        """Append the command, or raise."""
        if entry.command == POISON and not self.repaired:
            raise RuntimeError("this machine has a bug")
        return super().apply(entry)
