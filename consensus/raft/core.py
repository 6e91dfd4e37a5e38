"""One member of a Raft group, without any I/O: state, roles, and the public face.

Theory of operation. The driver calls ``tick`` at a fixed pace, ``step`` for each message, and
``propose``, ``read_index`` and so on for its users. Each only changes state and queues messages.
The driver then asks ``take_ready`` and does what it says (see ``ready``). What a message does
depends on the role; the rules are in ``election``, ``replication``, ``reads`` and ``membership``,
as plain functions on this state.

Terms guard everything (paper, section 5.1): a message of an older term is answered so that its
sender learns of the newer one, or ignored; one of a newer term makes this member a follower first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from consensus.errors import BadTransferTarget, NotLeader, ProposalDropped, QueueFull
from consensus.raft import election, membership, reads, replication
from consensus.raft.config import CoreConfig
from consensus.raft.configuration import Configuration
from consensus.raft.invariants import check
from consensus.raft.log import RaftLog
from consensus.raft.messages import (
    AnyMessage,
    AppendEntries,
    AppendEntriesResponse,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    LogEntry,
    PreVote,
    PreVoteResponse,
    Propose,
    ProposeRejected,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
    TimeoutNow,
)
from consensus.raft.progress import Progress
from consensus.raft.proposals import SeenProposals
from consensus.raft.ready import HardState, ReadState, Ready
from consensus.types import MemberChange, NodeId, Role

if TYPE_CHECKING:
    import random


@attrs.define(slots=True)
class _Persisting:
    """A Ready whose entries are being written: when it is done, ``last_index`` is synced."""

    number: int
    last_index: int


class Core:
    """One member's consensus state.

    Args:
        config: settings and bounds.
        log: what was on disk.
        hard_state: what was on disk.
        applied_index: what the machine has applied already; at least the snapshot's index.
        prng: the source of election timeouts.
    """

    def __init__(
        self,
        config: CoreConfig,
        log: RaftLog,
        hard_state: HardState,
        prng: random.Random,
        applied_index: int = 0,
    ) -> None:
        self.config = config
        self.node_id = config.node_id
        self.log = log
        self.prng = prng
        self.role = Role.FOLLOWER
        # A crash may have cut the hard state off behind entries of a newer term. This member took
        # them from that term's leader and cast no vote in it, or the vote would be on disk.
        self.term = max(hard_state.term, log.last_term)
        self.voted_for = hard_state.voted_for if self.term == hard_state.term else None
        self.lost_term = hard_state.lost_term
        self.restarted = self.term > 0
        self.leader: NodeId | None = None
        self.commit_index = max(min(hard_state.commit_index, log.last_index), log.snapshot.index)
        self.applied_index = max(applied_index, log.snapshot.index)
        self.commit_index = max(self.commit_index, self.applied_index)
        check(self.applied_index <= log.last_index, "the machine has applied what the log lacks")
        self.configurations: list[tuple[int, Configuration]] = []
        membership.load(self)

        self.votes: dict[NodeId, bool] = {}
        self.stands_for_transfer = False
        self.progress: dict[NodeId, Progress] = {}
        self.read_queue = reads.ReadQueue()
        self.seen_proposals = SeenProposals()
        self.transfer_target: NodeId | None = None
        self.leader_since = 0
        self.lease_forfeited = False
        self.uncommitted_bytes = 0
        self.append_due: dict[NodeId, bool] = {}

        self.now_ticks = 0
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.election_timeout = 0
        self.persist_elapsed = 0

        self._messages: list[AnyMessage] = []
        self._messages_after_persist: list[AnyMessage] = []
        self._reads: list[ReadState] = []
        self._rejected: list[int] = []
        self._snapshot: SnapshotMeta | None = None
        self._ready_number = 0
        self._persisting: deque[_Persisting] = deque()
        self._handed_index = log.last_index
        self._applying_index = self.applied_index
        self._handed_hard_state = hard_state
        election.draw_timeout(self)

    # -- the public face ----------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The newest configuration in the log, committed or not: the one in force."""
        return self.configurations[-1][1]

    @property
    def is_leader(self) -> bool:
        """Whether this member leads its term, as far as it knows."""
        return self.role is Role.LEADER

    @property
    def repairing(self) -> bool:
        """Whether this member's disk was damaged and it may lack what it once acknowledged.

        It came back in a term above ``lost_term``, the last one in which it promised anything. Any
        leader that it hears from was therefore elected without it, by a majority that shares a
        member with the majority of every commit even if this one is left out, and so has all that
        is committed. What it acknowledges to such a leader is true. But by its own log it must not
        judge who may lead: it neither votes nor stands for election until it has applied an entry
        of such a leader's term, which comes after everything that was committed before.
        """
        return self.lost_term > 0

    @property
    def is_leaving(self) -> bool:
        """Whether this leader is on its way out: what it appended now, others would have to finish.

        It takes nothing more, so that nobody's proposal is left without an outcome.
        """
        return self.is_leader and not self.configuration.is_voter(self.node_id)

    def tick(self) -> None:
        """Let one tick of time pass."""
        self.now_ticks += 1
        if self._persisting:
            self.persist_elapsed += 1
        if self.is_leader:
            replication.tick_leader(self)
        else:
            election.tick_follower(self)

    def step(self, message: AnyMessage) -> None:
        """Take in one message."""
        if message.receiver != self.node_id:
            return
        if message.term > self.term and not self._admit_newer_term(message):
            return
        if message.term < self.term:
            self._answer_older_term(message)
            return
        self._dispatch(message)

    def propose(self, commands: Sequence[bytes]) -> int:
        """Append commands as the leader and return the index of the first.

        Raises:
            NotLeader: this member does not lead.
            QueueFull: too much is uncommitted.
            ProposalDropped: leadership is being handed over.
        """
        self._check_may_propose()
        size = sum(map(len, commands))
        if self.uncommitted_bytes and (
            self.uncommitted_bytes + size > self.config.uncommitted_bytes_max
        ):
            raise QueueFull(f"{self.uncommitted_bytes} bytes are not committed yet")
        first = self.log.last_index + 1
        self.append_own((EntryKind.COMMAND, command) for command in commands)
        return first

    def forward(self, request: int, commands: Sequence[bytes]) -> bool:
        """Send commands to the leader, once. False where no leader is known: nothing was sent.

        ``request`` must grow with each call, also across restarts of this member. A refusal comes
        back in ``Ready.rejected_proposals``; silence means that nobody can tell.
        """
        if self.leader is None or self.leader == self.node_id:
            return False
        self.send(
            Propose(
                sender=self.node_id,
                receiver=self.leader,
                term=self.term,
                request=request,
                commands=tuple(commands),
            )
        )
        return True

    def change_membership(self, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()) -> int:
        """Begin to change the members, as the leader; return the index of the first entry.

        Raises:
            NotLeader: this member does not lead.
            ProposalDropped: a change is under way, or this leader's term has committed nothing.
            InvalidChange: the change makes no sense.
        """
        self._check_may_propose()
        return membership.propose_change(self, voters, learners)

    def change_members(self, changes: Sequence[MemberChange]) -> int:
        """Make these steps from the configuration in force; return the index of the first entry.

        Raises:
            NotLeader: this member does not lead.
            ProposalDropped: as ``change_membership``.
            ChangeRefused: and its subclasses: the changes make no sense, or are not safe now.
        """
        self._check_may_propose()
        return membership.propose_steps(self, changes)

    def reconnected(self, peer: NodeId) -> None:
        """Messages to ``peer`` have a new connection."""
        replication.reconnected(self, peer)

    def read_index(self, request: int) -> bool:
        """Ask for an index that is safe to read at; the answer comes in ``Ready.reads``.

        Returns False where no leader is known.
        """
        return reads.request(self, request)

    def transfer_leadership(self, target: NodeId) -> None:
        """Hand leadership to ``target``; given up after an election timeout (section 3.10).

        Raises:
            NotLeader: this member does not lead.
            BadTransferTarget: ``target`` is not another voter.
        """
        if not self.is_leader:
            raise NotLeader(self.leader)
        if target == self.node_id or not self.configuration.is_voter(target):
            raise BadTransferTarget(f"{target!r} is not another voter of this group")
        self.transfer_target = target
        self.lease_forfeited = True
        self.election_elapsed = 0
        replication.continue_transfer(self)

    def leader_gone(self, peer: NodeId) -> bool:
        """A connection from another member ended; return whether this member lost its leader.

        The driver then calls ``campaign`` soon, each member after a random little while.
        """
        return election.leader_gone(self, peer)

    def campaign(self) -> None:
        """Stand for election now, as if the timeout had passed."""
        if not self.is_leader and membership.may_campaign(self):
            election.campaign(self)

    def snapshot_reported(self, peer: NodeId, *, arrived: bool) -> None:
        """The driver has streamed a snapshot to ``peer``, or failed to."""
        replication.snapshot_reported(self, peer, arrived=arrived)

    def compact(self, index: int) -> SnapshotMeta:
        """Drop the log up to ``index``, for which a snapshot is on disk; return where it stands."""
        check(index <= self.applied_index, "a snapshot cannot lead what is applied")
        term = self.log.term_at(index)
        check(term is not None, f"no entry at {index} to compact up to")
        meta = SnapshotMeta(index, term or 0, membership.configuration_at(self, index))
        self.log.compact(meta)
        membership.forget_before(self, index)
        return meta

    @property
    def has_ready(self) -> bool:
        """Whether ``take_ready`` has anything to say."""
        handed = self._handed_hard_state
        log = self.log
        return bool(
            self._messages
            or self._messages_after_persist
            or log.last_index > self._handed_index
            or self.commit_index != handed.commit_index
            or self.term != handed.term
            or self.voted_for != handed.voted_for
            or (
                self.commit_index > self._applying_index
                and log.persisted_index > self._applying_index
            )
            or self.append_due
            or self.read_queue.round_due
            or self._reads
            or self._rejected
            or self._snapshot is not None
        )

    @property
    def handed_index(self) -> int:
        """Index of the last entry that a ``Ready`` has handed out."""
        return self._handed_index

    @property
    def hard_state(self) -> HardState:
        """What must be on disk before this member's next promise."""
        return HardState(self.term, self.voted_for, self.commit_index, self.lost_term)

    def take_ready(self) -> Ready:
        """Hand out what is to be done since the last call."""
        if self.is_leader:
            replication.send_due(self)
            reads.send_round(self)
        if self.repairing and (self.log.term_at(self.applied_index) or 0) > self.lost_term:
            self.lost_term = 0
        self._ready_number += 1
        last_index = self.log.last_index
        entries: tuple[LogEntry, ...] = ()
        if last_index > self._handed_index:
            entries = tuple(self.log.slice(self._handed_index + 1, last_index + 1))
        handed = self._handed_hard_state
        promises_changed = (
            self.term != handed.term
            or self.voted_for != handed.voted_for
            or self.lost_term != handed.lost_term
        )
        hard_state = None
        if promises_changed or self.commit_index != handed.commit_index:
            hard_state = self._handed_hard_state = self.hard_state
        stop = self._may_apply_index() + 1
        committed: tuple[LogEntry, ...] = ()
        if stop > self._applying_index + 1:
            committed = tuple(
                self.log.slice(self._applying_index + 1, stop, self.config.apply_bytes_max)
            )
            self._applying_index = committed[-1].index
        ready = Ready(
            number=self._ready_number,
            messages=tuple(self._messages),
            hard_state=hard_state,
            entries=entries,
            snapshot=self._snapshot,
            must_sync=bool(entries) or promises_changed or self._snapshot is not None,
            messages_after_persist=tuple(self._messages_after_persist),
            committed=committed,
            reads=tuple(self._reads),
            rejected_proposals=tuple(self._rejected),
        )
        self._messages.clear()
        self._messages_after_persist.clear()
        self._reads.clear()
        self._rejected.clear()
        self._snapshot = None
        self._handed_index = last_index
        if ready.must_sync:
            self._persisting.append(_Persisting(ready.number, last_index))
        return ready

    def persisted(self, number: int) -> None:
        """The driver has synced what ``Ready`` ``number`` (and all before it) asked for."""
        synced = 0
        while self._persisting and self._persisting[0].number <= number:
            synced = self._persisting.popleft().last_index
        self.persist_elapsed = 0
        if synced > self.log.persisted_index:
            self.log.persisted_index = synced
            if self.is_leader:
                replication.advance_commit(self)

    def applied(self, index: int) -> None:
        """The machine has applied everything up to ``index``."""
        check(self.applied_index <= index <= self._applying_index, f"applied {index} unasked")
        self.applied_index = index

    # -- for the rule modules -----------------------------------------------------------------

    @property
    def peers(self) -> list[NodeId]:
        """Whom this leader sends to, in a fixed order."""
        return sorted(self.progress)

    @property
    def persist_pending(self) -> bool:
        """Whether a sync has not been reported yet."""
        return bool(self._persisting)

    def send(self, message: AnyMessage) -> None:
        """Queue a message that may leave at once."""
        self._messages.append(message)

    def send_after_persist(self, message: AnyMessage) -> None:
        """Queue a message that promises something about this node's disk."""
        self._messages_after_persist.append(message)

    def resolve_read(self, request: int, index: int | None) -> None:
        """Queue the answer to a read of this node."""
        self._reads.append(ReadState(request, index))

    def reject_proposal(self, request: int) -> None:
        """Queue the news that a forwarded proposal was refused."""
        self._rejected.append(request)

    def append_own(self, items: Iterable[tuple[EntryKind, bytes]]) -> None:
        """Append entries of this leader's term, and let replication run."""
        index, term, size = self.log.last_index, self.term, 0
        entries = []
        for kind, data in items:
            index += 1
            entries.append(LogEntry(index, term, kind, data))
            size += len(data)
        self.uncommitted_bytes += size
        self.log.append(entries)
        membership.appended(self, entries)
        replication.append_to_all(self)

    def truncate(self, last_index: int) -> None:
        """Drop conflicting entries of an older leader (paper, section 5.3)."""
        check(
            last_index >= self.commit_index,
            f"truncation to {last_index} would drop entries committed up to {self.commit_index}",
        )
        self.log.truncate(last_index)
        membership.truncated(self, last_index)
        self._handed_index = min(self._handed_index, last_index)
        for writing in self._persisting:
            writing.last_index = min(writing.last_index, last_index)

    def install(self, snapshot: SnapshotMeta) -> None:
        """Put a snapshot in the place of the whole log (paper, section 7)."""
        self.log.reset(snapshot)
        membership.load(self)
        self._snapshot = snapshot
        self._handed_index = snapshot.index
        self._applying_index = snapshot.index
        self.applied_index = snapshot.index
        self.commit_index = snapshot.index
        for writing in self._persisting:
            writing.last_index = min(writing.last_index, snapshot.index)

    def become_follower(self, term: int, leader: NodeId | None) -> None:
        """Follow ``leader`` (or nobody yet) in ``term``."""
        if term > self.term:
            self.term = term
            self.voted_for = None
        if self.is_leader:
            reads.fail_all(self)
        if self.role is not Role.FOLLOWER or self.leader != leader:
            self.election_elapsed = 0
            election.draw_timeout(self)
        self.role = Role.FOLLOWER
        self.leader = leader
        self.votes = {}
        self.progress = {}
        self.transfer_target = None
        self.uncommitted_bytes = 0
        self.append_due = {}

    # -- inside -------------------------------------------------------------------------------

    def _may_apply_index(self) -> int:
        """A machine never leads its own log: only synced entries are applied."""
        return min(self.commit_index, self.log.persisted_index)

    def _check_may_propose(self) -> None:
        if not self.is_leader:
            raise NotLeader(self.leader)
        if self.transfer_target is not None:
            raise ProposalDropped(f"leadership is being handed to {self.transfer_target}")
        if self.is_leaving:
            raise ProposalDropped("this leader is leaving the group")

    def _admit_newer_term(self, message: AnyMessage) -> bool:
        """Decide whether a message of a newer term is taken in, and follow that term if so."""
        match message:
            case PreVote():
                return not election.leader_is_alive(self)
            case PreVoteResponse(granted=True):
                return True  # the term is the one we would campaign in, not anybody's yet
            case RequestVote(transfer=False) if election.leader_is_alive(self):
                return False  # a member that lost touch must not depose a live leader (4.2.3)
            case AppendEntries() | Heartbeat() | InstallSnapshot():
                self.become_follower(message.term, message.sender)
            case _:
                self.become_follower(message.term, None)
        return True

    def _answer_older_term(self, message: AnyMessage) -> None:
        match message:
            case AppendEntries() | Heartbeat() | InstallSnapshot():
                # The old leader steps down when it sees our term in this refusal.
                self.send_after_persist(
                    AppendEntriesResponse(
                        sender=self.node_id,
                        receiver=message.sender,
                        term=self.term,
                        success=False,
                    )
                )
            case PreVote():
                election.answer_pre_vote(self, message, granted=False)
            case RequestVote():
                election.answer_vote(self, message, granted=False)
            case _:
                pass

    def _dispatch(self, message: AnyMessage) -> None:
        match message:
            case AppendEntries():
                replication.handle_append_entries(self, message)
            case AppendEntriesResponse():
                replication.handle_append_entries_response(self, message)
            case Heartbeat():
                replication.handle_heartbeat(self, message)
            case HeartbeatResponse():
                replication.handle_heartbeat_response(self, message)
            case Propose():
                replication.handle_propose(self, message)
            case ProposeRejected():
                self.reject_proposal(message.request)
            case ReadIndex():
                reads.handle_read_index(self, message)
            case ReadIndexResponse():
                self.resolve_read(message.request, message.index)
            case PreVote():
                election.handle_pre_vote(self, message)
            case PreVoteResponse():
                election.handle_pre_vote_response(self, message)
            case RequestVote():
                election.handle_request_vote(self, message)
            case RequestVoteResponse():
                election.handle_request_vote_response(self, message)
            case InstallSnapshot():
                replication.handle_install_snapshot(self, message)
            case TimeoutNow():
                election.handle_timeout_now(self, message)
