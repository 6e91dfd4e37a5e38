"""What happened, as a hash for machines and as lines for people.

Everything that happens is noted as a tuple of plain values. The hash is over their ``marshal``
form: quick, and in version 2 of that format the same for equal values in every process (no
references, no interning, nothing that depends on addresses or on the seed of ``hash``).
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, get_args

import attrs

from consensus.raft.messages import AnyMessage, AppendEntries, InstallSnapshot, Propose
from consensus.types import Committed, NodeId

MARSHAL_VERSION: Final = 2
NOTES_PENDING_MAX: Final = 10_000
"""Notes kept before they are hashed; ``settle`` is called more often than this many are made."""

_COMPOUND: Final = {"entries", "snapshot", "commands"}


def _plain_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind) if field.name not in _COMPOUND)


_NAMES: Final[dict[type, tuple[str, ...]]] = {
    kind: _plain_names(kind) for kind in get_args(AnyMessage)
}
_GETTERS: Final[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
    kind: attrgetter(*names) for kind, names in _NAMES.items()
}


class Trace:
    """The record of one run.

    Args:
        say: called with a line for a person about each thing noted; None to make no lines.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.say = say
        self._hash = hashlib.sha256()
        self._notes: list[tuple[Any, ...]] = []

    @property
    def digest(self) -> str:
        """The hash of everything so far, in hexadecimal."""
        self.settle()
        return self._hash.hexdigest()

    def settle(self) -> None:
        """Hash what is pending."""
        self._hash.update(marshal.dumps(self._notes, MARSHAL_VERSION))
        self._notes.clear()

    def note(self, now: int, what: str, *details: Any) -> None:
        """Note something: its time in microseconds, its name, and plain values."""
        self._notes.append((now, what, details))
        if self.say is not None:
            self.say(f"{now / 1e6:11.6f}  {what:<10} {' '.join(map(str, details))}")

    def applied(self, now: int, node: NodeId, batch: Sequence[Committed]) -> None:
        """Note what a member's machine applied: its place, and every command."""
        commands = [list(item.commands) for item in batch]
        self._notes.append((now, node, batch[0].index, batch[-1].term, commands))
        if self.say is not None:
            span = f"{batch[0].index}..{batch[-1].last_index}"
            self.say(f"{now / 1e6:11.6f}  applied    {node} {span}")

    def message(self, now: int, message: AnyMessage) -> None:
        """Note that a message was received: every field, and the last of its entries."""
        kind = type(message)
        if kind is AppendEntries:
            entries = message.entries  # type: ignore[union-attr]
            last = entries[-1] if entries else None
            more = (len(entries), last.term, last.data) if last else 0
            self._notes.append((now, _GETTERS[kind](message), more))
        elif kind is Propose:
            self._notes.append((now, _GETTERS[kind](message), message.commands))  # type: ignore[union-attr]
        else:
            self._notes.append((now, kind.__name__, _GETTERS[kind](message)))
        if self.say is not None:
            self._say_message(now, message)

    def _say_message(self, now: int, message: AnyMessage) -> None:
        assert self.say is not None
        fields = " ".join(
            f"{name}={value}"
            for name, value in zip(
                _NAMES[type(message)], _GETTERS[type(message)](message), strict=True
            )
            if name not in ("sender", "receiver")
        )
        if isinstance(message, AppendEntries) and message.entries:
            fields += f" entries={message.entries[0].index}..{message.entries[-1].index}"
        elif isinstance(message, Propose):
            fields += f" commands={len(message.commands)}"
        elif isinstance(message, InstallSnapshot):
            fields += f" snapshot={message.snapshot.index}@{message.snapshot.term}"
        self.say(
            f"{now / 1e6:11.6f}  {message.sender:>3} -> {message.receiver:<3} "
            f"{type(message).__name__} {fields}"
        )
