"""PySyncObj's ``SyncObj``, dressed for the event loop.

Every use of PySyncObj's private names is in this module, and the version is pinned. Two things are
handed in through its own factories, which choose by the settings' values: our poller and our log
are objects, where PySyncObj's own are named by text. And what it compresses is stored instead.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import attrs
import pysyncobj.pickle as library_pickle
from pysyncobj import (
    FAIL_REASON,
    SyncObj,
    SyncObjConf,
    SyncObjConsumer,
    replicated,
    syncobj,
    tcp_connection,
)
from pysyncobj.dns_resolver import globalDnsResolver
from pysyncobj.node import TCPNode

from consensus.engines.pysyncobj.codec import COMMAND_BYTES_MAX
from consensus.engines.pysyncobj.journal import SegmentJournal
from consensus.engines.pysyncobj.poller import EpollPoller
from consensus.errors import ConsensusError, NotLeader, OutcomeUnknown, ProposalDropped
from consensus.types import NodeId

NEVER: Final = 1 << 60
ENTRIES_MESSAGE_BYTES: Final = 4 * COMMAND_BYTES_MAX
"""PySyncObj cuts a larger entry into pieces, and miscounts them. None is larger."""

SOCKET_BUFFER_BYTES: Final = 1024 * 1024
RECEIVE_BYTES: Final = 256 * 1024
CONNECTION_RETRY_S: Final = 0.1
FALLBACK_FACTOR: Final = 2.0
"""A leader that hears no quorum for this many times the longest election timeout steps down."""

_REGULAR: Final = 0  # PySyncObj's type byte of an ordinary command

_create_poller = syncobj.createPoller
_create_journal = syncobj.createJournal


def _poller_of(kind: Any) -> Any:
    return kind if isinstance(kind, EpollPoller) else _create_poller(kind)


def _journal_of(file: Any) -> Any:
    return file if isinstance(file, SegmentJournal) else _create_journal(file)


class StoredZlib:
    """Stands in for ``zlib`` where PySyncObj compresses messages: stores them as they are.

    Measured: compressing a 1.5 MB command holds the loop for 60 ms, for each peer; storing it takes
    1.5 ms. Any zlib reads stored blocks (RFC 1950; RFC 1951, section 3.2.4).
    """

    BLOCK_BYTES_MAX: Final = 0xFFFF

    decompress = staticmethod(zlib.decompress)

    @classmethod
    def compress(cls, data: bytes, _level: int = 0) -> bytes:
        """Return ``data`` as a zlib stream."""
        size = len(data)
        if size > cls.BLOCK_BYTES_MAX:
            return zlib.compress(data, 0)
        head = struct.pack("<BBBHH", 0x78, 0x01, 1, size, size ^ 0xFFFF)
        return head + data + struct.pack(">I", zlib.adler32(data))


syncobj.createPoller = _poller_of
syncobj.createJournal = _journal_of
tcp_connection.zlib = StoredZlib


class PeerNode(TCPNode):  # type: ignore[misc]
    """A member. Its address is its identity; ``dial`` is where it is reached: a proxy, in tests."""

    def __init__(self, name: NodeId, address: str, dial: str | None = None) -> None:
        super().__init__(address)
        self.name = name
        self._dial_host, port = (dial or address).rsplit(":", 1)
        self._dial_port = int(port)
        self._hash = hash(address)  # peers are keys of every table, looked up all the time

    def __hash__(self) -> int:
        return self._hash

    @property
    def ip(self) -> str | None:
        """Numeric address to connect to; None while its name does not resolve."""
        return globalDnsResolver().resolve(self._dial_host.strip("[]"))  # type: ignore[no-any-return]

    @property
    def port(self) -> int:
        """Port to connect to."""
        return self._dial_port


class Consumer(SyncObjConsumer):  # type: ignore[misc]
    """The one replicated method. What it calls never raises: a raise here would wedge the group."""

    def __init__(self, deliver: Callable[[str], None]) -> None:
        super().__init__()
        self._deliver = deliver

    @replicated  # type: ignore[untyped-decorator]
    def frame(self, text: str) -> None:
        """One committed frame."""
        self._deliver(text)


@attrs.frozen(slots=True)
class Timing:
    """Seconds. ``election_s`` is the shortest election timeout; the longest is twice that."""

    election_s: float
    heartbeat_s: float

    @property
    def election_max_s(self) -> float:
        """The longest time a follower waits for its leader."""
        return 2 * self.election_s


def settings(
    timing: Timing,
    listen: str,
    poller: EpollPoller,
    journal: SegmentJournal,
    dump: str,
    password: str | None,
) -> SyncObjConf:
    """Return PySyncObj's configuration for this engine."""
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=False,  # its batch mode waits for the heartbeat: 100 ms a command
        commandsWaitLeader=False,
        commandsQueueSize=0,  # drained in the call that fills it
        dynamicMembershipChange=False,
        raftMinTimeout=timing.election_s,
        raftMaxTimeout=timing.election_max_s,
        appendEntriesPeriod=timing.heartbeat_s,
        leaderFallbackTimeout=FALLBACK_FACTOR * timing.election_max_s,
        connectionTimeout=FALLBACK_FACTOR * timing.election_max_s,
        connectionRetryTime=min(CONNECTION_RETRY_S, timing.heartbeat_s),
        bindAddress=listen,
        maxBindRetries=1,
        appendEntriesBatchSizeBytes=ENTRIES_MESSAGE_BYTES,
        sendBufferSize=SOCKET_BUFFER_BYTES,
        recvBufferSize=RECEIVE_BYTES,
        logCompactionMinEntries=NEVER,  # the engine says when
        logCompactionMinTime=NEVER,
        useFork=False,
        fullDumpFile=dump,
        serializer=_unused,
        deserializer=_unused,
        pollerType=poller,
        journalFile=journal,
        password=password,
    )


def _unused(*_arguments: Any) -> Any:
    raise AssertionError("Raft replaces PySyncObj's serializer as a whole")


def frame_text(command: bytes) -> str | None:
    """Return the frame inside a log entry; None for entries of PySyncObj's own (a leader's no-op).

    Raises:
        ValueError: an ordinary command that is not a call of ours.
    """
    if command[:1] != bytes([_REGULAR]):
        return None
    call = library_pickle.loads(command[1:])
    if isinstance(call, tuple) and len(call) == 2 and len(call[1]) == 1:
        text = call[1][0]
        if isinstance(text, str):
            return text
    raise ValueError("a log entry that this engine did not write")


class _Silent:
    def notify(self) -> None:
        """Nobody needs to be woken."""


def reason_error(reason: int) -> ConsensusError:
    """Return the outcome that one of PySyncObj's reasons stands for."""
    if reason in (FAIL_REASON.LEADER_CHANGED, FAIL_REASON.UNKNOWN_OUTCOME):
        return OutcomeUnknown("the leader changed while the command was under way")
    if reason in (FAIL_REASON.MISSING_LEADER, FAIL_REASON.NOT_LEADER):
        return NotLeader(None)
    if reason == FAIL_REASON.DISCARDED:
        return ProposalDropped("another leader's command took its place in the log")
    return ProposalDropped("PySyncObj refused the command")


class Raft(SyncObj):  # type: ignore[misc]
    """One member of the group.

    Args:
        me: this member.
        others: its peers.
        conf: from ``settings``.
        consumer: gets committed frames.
        snapshots: takes the place of PySyncObj's serializer.
        transport: called with (raft, me, others); returns the transport.
    """

    def __init__(
        self,
        me: PeerNode,
        others: list[PeerNode],
        conf: SyncObjConf,
        consumer: Consumer,
        snapshots: Any,
        transport: Callable[..., Any],
    ) -> None:
        super().__init__(me, others, conf, consumers=[consumer], transportClass=transport)
        self._consumer = consumer
        self._SyncObj__serializer = snapshots
        # Its pipe wakes another thread's poll. There is no other thread.
        notifier: Any = self._SyncObj__pipeNotifier  # type: ignore[has-type]
        self._SyncObj__pipeNotifier = _Silent()
        self._poller.unsubscribe(notifier._PipeNotifier__pipeR)
        os.close(notifier._PipeNotifier__pipeR)
        os.close(notifier._PipeNotifier__pipeW)

    # -- what it knows ------------------------------------------------------------------------

    @property
    def term(self) -> int:
        """The current term."""
        return int(self.raftCurrentTerm)

    @property
    def leads(self) -> bool:
        """Whether this member is leader, as far as it knows."""
        return bool(self._isLeader())

    @property
    def is_candidate(self) -> bool:
        """Whether this member stands for election."""
        return bool(self._SyncObj__raftState == syncobj._RAFT_STATE.CANDIDATE)

    @property
    def leader(self) -> PeerNode | None:
        """The leader of the current term, as far as this member knows."""
        return self._getLeader()  # type: ignore[no-any-return]

    @property
    def applied_term(self) -> int:
        """Term of the last entry that PySyncObj applied."""
        log: SegmentJournal = self._SyncObj__raftLog
        return log.term_at(self.raftLastApplied) or 0

    @property
    def applying_term(self) -> int:
        """Term of the entry that PySyncObj applies right now."""
        log: SegmentJournal = self._SyncObj__raftLog
        return log.term_at(self.raftLastApplied + 1) or 0

    def responders(self, since: float) -> int:
        """How many peers answered this leader after ``since`` (PySyncObj's monotonic seconds)."""
        return sum(1 for at in self._SyncObj__lastResponseTime.values() if at > since)

    @staticmethod
    def now() -> float:
        """PySyncObj's monotonic clock, in seconds."""
        return float(syncobj.monotonicTime())

    # -- what it does -------------------------------------------------------------------------

    def append(self, text: str, failed: Callable[[int], None]) -> None:
        """Append a frame as leader and send it to the peers, now.

        ``failed`` is called with PySyncObj's reason when it gives up on the frame.
        """

        def outcome(_result: Any, reason: int) -> None:
            if reason != FAIL_REASON.SUCCESS:
                failed(reason)

        self._consumer.frame(text, callback=outcome)
        self._checkCommandsToApply()

    def send_soon(self) -> None:
        """Have the next tick send to the peers, whenever the last heartbeat was."""
        self._SyncObj__newAppendEntriesTime = 0

    def next_index(self, node: PeerNode) -> int:
        """The next index that this leader sends to ``node``."""
        return int(self._SyncObj__raftNextIndex.get(node, 0))

    def set_next_index(self, node: PeerNode, index: int) -> None:
        """Change what ``node`` is sent next."""
        self._SyncObj__raftNextIndex[node] = index

    def postpone_election(self, at_least_s: float = 0.0) -> None:
        """Wait a whole election timeout from now, or ``at_least_s`` seconds if given."""
        wait_s = at_least_s or self._SyncObj__generateRaftTimeout()
        self._SyncObj__raftElectionDeadline = self.now() + wait_s

    def close(self) -> None:
        """Release sockets and log."""
        self.destroy()
