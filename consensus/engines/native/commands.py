"""From places in the log to numbers of commands, and back.

An entry may hold many commands, or none (a new leader's no-op, a change of members), so an entry's
place is not the number of its command. How many commands there are up to each place is remembered
for as long as the entry itself is.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from consensus.engines.native.batches import commands_in
from consensus.raft.messages import LogEntry


class CommandIndex:
    """The numbering of one log.

    Args:
        base_index: place of the last entry before the log.
        base_command: number of the last command up to it.
    """

    def __init__(self, base_index: int, base_command: int) -> None:
        self._base_index = base_index
        self._last_commands = [base_command]
        """Number of the last command up to each place, from the base on."""

    def append(self, entries: Sequence[LogEntry]) -> None:
        """Entries were appended; the first one replaces whatever was at or after its place."""
        if not entries:
            return
        last_commands = self._last_commands
        del last_commands[entries[0].index - self._base_index :]
        number = last_commands[-1]
        for entry in entries:
            number += commands_in(entry)
            last_commands.append(number)

    def rebase(self, index: int) -> None:
        """The log was compacted up to ``index``."""
        del self._last_commands[: index - self._base_index]
        self._base_index = index

    def command_at(self, index: int) -> int:
        """Return the number of the last command at or before place ``index``.

        Of a place before the base that is the base's own; beyond the log, that of the log's end.
        """
        offset = min(max(0, index - self._base_index), len(self._last_commands) - 1)
        return self._last_commands[offset]

    def place_of(self, command: int) -> int:
        """Return the place of a command that comes after the base, or the base's own place.

        A command that the log does not have yet would be right behind it.
        """
        return self._base_index + bisect.bisect_left(self._last_commands, command)

    def place_covered_by(self, command: int) -> int:
        """Return the last place whose commands end with ``command`` or before; at least the base's.

        Entries behind it that hold no command do not count.
        """
        last_commands = self._last_commands
        offset = bisect.bisect_left(last_commands, command)
        if offset == len(last_commands) or last_commands[offset] > command:
            whole = last_commands[max(0, offset - 1)]
            offset = bisect.bisect_left(last_commands, whole)
        return self._base_index + offset
