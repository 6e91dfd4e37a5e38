"""What members say to each other: the paper's messages (figure 2 and 13) under the paper's names.

Every message names its sender, its receiver and its sender's term. Links may lose, duplicate,
delay and reorder them; nothing here relies on more.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import attrs

from consensus.raft.configuration import Configuration
from consensus.types import NodeId


class EntryKind(enum.IntEnum):
    """What an entry of the log is for."""

    COMMAND = 0
    NOOP = 1
    CONFIGURATION = 2


class LogEntry(NamedTuple):
    """One entry of the log. A named tuple, as what is made so often is."""

    index: int  # type: ignore[assignment]
    term: int
    kind: EntryKind
    data: bytes


@attrs.frozen(slots=True)
class SnapshotMeta:
    """Where a snapshot stands: the last entry it covers, and the configuration as of it."""

    index: int
    term: int
    configuration: Configuration


@attrs.frozen(slots=True, kw_only=True)
class Message:
    """Base of all messages."""

    sender: NodeId
    receiver: NodeId
    term: int


@attrs.frozen(slots=True, kw_only=True)
class PreVote(Message):
    """Would you vote for me? ``term`` is the one I would campaign in (section 9.6)."""

    last_log_index: int
    last_log_term: int


@attrs.frozen(slots=True, kw_only=True)
class PreVoteResponse(Message):
    """Granted: ``term`` is the candidate's future term. Refused: ``term`` is the voter's own."""

    granted: bool


@attrs.frozen(slots=True, kw_only=True)
class RequestVote(Message):
    """Vote for me. ``transfer`` says that the leader itself asked for this (section 3.10)."""

    last_log_index: int
    last_log_term: int
    transfer: bool = False


@attrs.frozen(slots=True, kw_only=True)
class RequestVoteResponse(Message):
    """A vote, or its refusal."""

    granted: bool


@attrs.frozen(slots=True, kw_only=True)
class AppendEntries(Message):
    """Entries that follow ``prev_log_index``, and how far the leader has committed.

    ``quiet``: only the commit index is news, so that agreement needs no answer.
    """

    prev_log_index: int
    prev_log_term: int
    entries: tuple[LogEntry, ...]
    leader_commit: int
    quiet: bool = False


@attrs.frozen(slots=True, kw_only=True)
class AppendEntriesResponse(Message):
    """How the follower's log compares.

    On success ``match_index`` is the last index known to equal the leader's. On failure
    ``rejected_index`` repeats ``prev_log_index``, and ``conflict_term`` and ``conflict_index`` tell
    the leader where to try next: the follower's greatest index at or before ``rejected_index``
    whose term is not above the leader's there, and that entry's term.
    """

    success: bool
    match_index: int = 0
    rejected_index: int = 0
    conflict_index: int = 0
    conflict_term: int = 0


@attrs.frozen(slots=True, kw_only=True)
class Heartbeat(Message):
    """I lead. ``round`` numbers the leader's rounds of heartbeats, for ReadIndex and leases."""

    leader_commit: int
    round: int


@attrs.frozen(slots=True, kw_only=True)
class HeartbeatResponse(Message):
    """I still follow you, as of ``round``."""

    round: int


@attrs.frozen(slots=True, kw_only=True)
class InstallSnapshot(Message):
    """You are behind my log: take this snapshot. Its data travels beside, in chunks."""

    snapshot: SnapshotMeta


@attrs.frozen(slots=True, kw_only=True)
class TimeoutNow(Message):
    """Campaign at once: I hand leadership to you (section 3.10)."""


@attrs.frozen(slots=True, kw_only=True)
class Propose(Message):
    """Data of COMMAND entries that a follower forwards.

    Sent once, never again: a repeat could apply twice.
    """

    request: int
    commands: tuple[bytes, ...]


@attrs.frozen(slots=True, kw_only=True)
class ProposeRejected(Message):
    """The commands of this request were not appended anywhere."""

    request: int


@attrs.frozen(slots=True, kw_only=True)
class ReadIndex(Message):
    """A follower asks for an index that is safe to read at (section 6.4)."""

    request: int


@attrs.frozen(slots=True, kw_only=True)
class ReadIndexResponse(Message):
    """The answer to ``ReadIndex``."""

    request: int
    index: int


AnyMessage = (
    PreVote
    | PreVoteResponse
    | RequestVote
    | RequestVoteResponse
    | AppendEntries
    | AppendEntriesResponse
    | Heartbeat
    | HeartbeatResponse
    | InstallSnapshot
    | TimeoutNow
    | Propose
    | ProposeRejected
    | ReadIndex
    | ReadIndexResponse
)
