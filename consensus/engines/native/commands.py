"""From places in the log to numbers of commands, and back.

The log also holds entries that are not commands (a new leader's no-op, a change of members), so an
entry's place is not the number of its command. Those are few: their places are remembered, and a
command's number is its place less how many of them come before it.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from consensus.raft.messages import EntryKind, LogEntry


class CommandIndex:
    """The numbering of one log.

    Args:
        base_index: place of the last entry before the log.
        base_command: number of the last command up to it.
    """

    def __init__(self, base_index: int, base_command: int) -> None:
        self._base_index = base_index
        self._base_command = base_command
        self._others: list[int] = []

    def append(self, entries: Sequence[LogEntry]) -> None:
        """Entries were appended; the first one replaces whatever was at or after its place."""
        if not entries:
            return
        del self._others[bisect.bisect_left(self._others, entries[0].index) :]
        self._others += [index for index, _, kind, _ in entries if kind is not EntryKind.COMMAND]

    def rebase(self, index: int) -> None:
        """The log was compacted up to ``index``."""
        command = self.command_at(index)
        del self._others[: bisect.bisect_right(self._others, index)]
        self._base_index, self._base_command = index, command

    def command_at(self, index: int) -> int:
        """Return the number of the last command at or before place ``index``."""
        others = bisect.bisect_right(self._others, index)
        return self._base_command + (index - self._base_index) - others

    def place_of(self, command: int) -> int:
        """Return the place of a command that comes after the base, or the base's own place."""
        place = self._base_index + (command - self._base_command)
        if command == self._base_command:
            return place
        for other in self._others:
            if other > place:
                break
            place += 1
        return place
