"""What a member knows about its group, from PySyncObj's state and from what its links have seen.

PySyncObj forgets neither a leader that fell silent while this member was cut off, nor peers that
are connected but do not answer; here silence counts.
"""

from __future__ import annotations

from consensus.engines.pysyncobj.raft import PeerNode, Raft
from consensus.engines.pysyncobj.setup import Setup
from consensus.engines.pysyncobj.transport import PeerTransport


class GroupView:
    """Answers who leads and whether a majority works together.

    Args:
        setup: the configuration.
        raft, transport: the running member's.
    """

    def __init__(self, setup: Setup, raft: Raft, transport: PeerTransport) -> None:
        self._setup = setup
        self._raft = raft
        self._transport = transport

    def leader(self) -> PeerNode | None:
        """Who leads, as far as known: a leader not heard for an election timeout is none."""
        leader = self._raft.leader
        if leader is None or self._raft.leads:
            return leader
        silent_s = self._raft.now() - self._transport.heard_leader_at
        return leader if silent_s <= self._setup.timing.election_max_s else None

    def is_linked_to_majority(self) -> bool:
        """Whether enough peers are connected to elect a leader."""
        return self._setup.is_majority(self._transport.linked)

    def has_quorum(self) -> bool:
        """Whether this member is part of a working majority, as far as it knows."""
        leader = self.leader()
        if leader is None:
            return False
        if not self._raft.leads:
            return self._transport.is_linked(leader)
        since = self._raft.now() - self._setup.timing.election_max_s
        return self._setup.is_majority(self._raft.responders(since))

    def visible(self) -> object:
        """What a change of the status would change."""
        raft = self._raft
        return raft.term, raft.leads, raft.is_candidate, self.leader(), self.has_quorum()
