"""Receiving AppendEntries as the paper has it (section 5.3, figure 2, receiver steps 3 and 4).

PySyncObj cuts its log behind ``prevLogIdx`` whenever it has anything there, without looking for a
conflict. Its leader re-sends after each acknowledgement, so a follower drops entries that it has
acknowledged and applied, only to append them again: a crash in between loses them. Here a message
is settled before PySyncObj sees it: entries that the log has already are taken out, and what is
left either extends the log or truly conflicts with it.
"""

from __future__ import annotations

import enum
from typing import Any, Protocol

import attrs

Message = dict[str, Any]


class Log(Protocol):
    """What must be known of the log."""

    @property
    def last_index(self) -> int:
        """Index of the newest entry."""

    def term_at(self, index: int) -> int | None:
        """Term at an index; None where the log has no entry."""

    def first_index_of_term(self, index: int) -> int:
        """First index with the same term as at ``index``."""


class Verdict(enum.Enum):
    """What to do with an AppendEntries."""

    HAND_ON = "hand on"
    """Give ``message`` to PySyncObj."""
    MATCHED = "matched"
    """All of it is in the log: acknowledge up to ``index``; ``message`` is only a heartbeat."""
    CONFLICT = "conflict"
    """The entry before it differs: ask for ``index``; ``message`` is only a heartbeat."""
    APPLIED_CONFLICT = "applied conflict"
    """It would replace the applied entry ``index``: a promise is broken. Stop."""


@attrs.frozen(slots=True)
class Settled:
    """A verdict with what it needs."""

    verdict: Verdict
    message: Message
    index: int = 0


def settle(log: Log, applied_index: int, message: Message) -> Settled:
    """Compare an AppendEntries that carries ``prevLogIdx`` with the log."""
    previous, previous_term = message["prevLogIdx"], message["prevLogTerm"]
    entries = message["entries"]
    own_term = log.term_at(previous)
    if own_term is None:
        return Settled(Verdict.HAND_ON, message)  # PySyncObj asks for what follows its last entry
    if own_term != previous_term:
        if previous <= applied_index:
            return Settled(Verdict.APPLIED_CONFLICT, message, previous)
        wanted = max(log.first_index_of_term(previous), applied_index + 1)
        return Settled(Verdict.CONFLICT, heartbeat(message, applied_index), wanted)
    matched, known = previous, 0
    for _, index, term in entries:
        if log.term_at(index) != term:
            break
        matched, known = index, known + 1
    rest = entries[known:]
    if rest and rest[0][1] <= applied_index:
        return Settled(Verdict.APPLIED_CONFLICT, message, rest[0][1])
    if rest or matched == log.last_index:
        trimmed = {
            **message,
            "prevLogIdx": matched,
            "prevLogTerm": log.term_at(matched),
            "entries": rest,
        }
        return Settled(Verdict.HAND_ON, trimmed)
    return Settled(Verdict.MATCHED, heartbeat(message, matched), matched)


def heartbeat(message: Message, commit_index_max: int) -> Message:
    """Return the part of a message that says "this is the leader", and no more.

    The commit index is capped at what is known to match: PySyncObj would otherwise take the end of
    its own log for committed.
    """
    return {
        "type": message["type"],
        "term": message["term"],
        "commit_index": min(message["commit_index"], commit_index_max),
        "serialized": None,
    }
