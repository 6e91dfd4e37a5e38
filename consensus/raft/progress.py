"""What a leader knows about one other member's log, and how fast it may send to it.

``match_index < next_index`` always. Three states (etcd's flow control has the same three):

* PROBE: where the logs agree is not known; one message at a time.
* REPLICATE: it is known; messages are pipelined, up to a bound on messages and on bytes.
* SNAPSHOT: the member lacks entries that this log no longer has; nothing is sent until the
  snapshot arrived or failed.
"""

from __future__ import annotations

import enum
from collections import deque


class ProgressState(enum.Enum):
    """How a leader sends to one member."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One member as its leader sees it.

    Args:
        next_index: first index to send.
        inflight_messages_max: unanswered AppendEntries with entries, at most.
        inflight_bytes_max: bytes of data in them; one message may exceed it alone.
    """

    def __init__(
        self, next_index: int, inflight_messages_max: int, inflight_bytes_max: int
    ) -> None:
        self.match_index = 0
        self.next_index = next_index
        self.state = ProgressState.PROBE
        self.recent_active = False
        self.heard_tick: int | None = None
        self.snapshot_index = 0
        self.probe_sent = False
        self.heartbeat_round = 0
        self.commit_sent = 0
        self._inflight: deque[tuple[int, int]] = deque()
        self._inflight_bytes = 0
        self._messages_max = inflight_messages_max
        self._bytes_max = inflight_bytes_max

    @property
    def paused(self) -> bool:
        """Whether nothing more may be sent now."""
        if self.state is ProgressState.PROBE:
            return self.probe_sent
        if self.state is ProgressState.SNAPSHOT:
            return True
        return len(self._inflight) >= self._messages_max or self._inflight_bytes >= self._bytes_max

    def become_probe(self) -> None:
        """Look for where the logs agree, one message at a time."""
        if self.state is ProgressState.SNAPSHOT:
            self.next_index = max(self.match_index, self.snapshot_index) + 1
        else:
            self.next_index = self.match_index + 1
        self._enter(ProgressState.PROBE)

    def become_replicate(self) -> None:
        """The logs agree up to ``match_index``: stream what follows."""
        self.next_index = self.match_index + 1
        self._enter(ProgressState.REPLICATE)

    def become_snapshot(self, snapshot_index: int) -> None:
        """Wait for a snapshot to arrive there."""
        self._enter(ProgressState.SNAPSHOT)
        self.snapshot_index = snapshot_index

    def sent(self, last_index: int, size: int) -> None:
        """Entries up to ``last_index`` are on their way (``size`` bytes)."""
        if self.state is ProgressState.REPLICATE:
            self.next_index = last_index + 1
            self._inflight.append((last_index, size))
            self._inflight_bytes += size
        else:
            self.probe_sent = True

    def matched(self, index: int) -> bool:
        """The member has everything up to ``index``. Returns whether that is news."""
        while self._inflight and self._inflight[0][0] <= index:
            self._inflight_bytes -= self._inflight.popleft()[1]
        if index <= self.match_index:
            return False
        self.match_index = index
        self.next_index = max(self.next_index, index + 1)
        self.probe_sent = False
        return True

    def rejected(self, rejected_index: int, try_index: int) -> bool:
        """The member lacks ``rejected_index``; look again after ``try_index``.

        Returns False for a refusal that is out of date: a reordered or repeated message.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected_index <= self.match_index:
                return False
            self.become_probe()
            return True
        if self.state is ProgressState.SNAPSHOT or rejected_index != self.next_index - 1:
            return False
        self.next_index = max(min(rejected_index, try_index + 1), self.match_index + 1)
        self.probe_sent = False
        return True

    def heard(self) -> None:
        """The member answered a heartbeat: a lost message must not pause it for ever."""
        self.probe_sent = False
        if self.state is ProgressState.REPLICATE and self.paused:
            self._inflight_bytes -= self._inflight.popleft()[1]

    def reconnected(self) -> None:
        """There is a new connection to the member: what was in flight may be lost."""
        if self.state is ProgressState.REPLICATE:
            self.become_probe()
        self.probe_sent = False

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.probe_sent = False
        self.snapshot_index = 0
        self._inflight.clear()
        self._inflight_bytes = 0
