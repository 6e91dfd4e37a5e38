"""Elections: timeouts, pre-votes, votes (paper, section 5.2 and 5.4.1; thesis, 3.10, 4.2.3, 9.6).

A follower that hears from no leader for a random time first asks for pre-votes, without raising
its term: a member that was merely cut off cannot depose a live leader when it comes back. With a
majority of pre-votes it raises its term, votes for itself and asks for votes. Who has heard from a
live leader lately grants neither, unless that leader itself asked for the election.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consensus.raft import membership, replication
from consensus.raft.messages import (
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from consensus.raft.quorum import VoteResult, vote_result
from consensus.types import NodeId, Role

if TYPE_CHECKING:
    from consensus.raft.core import Core


def draw_timeout(core: Core) -> None:
    """Draw the next election timeout: between one and two times the configured one."""
    base = core.config.election_timeout_ticks
    core.election_timeout = base + core.prng.randrange(base)


def leader_is_alive(core: Core) -> bool:
    """Whether this member must assume that a leader lives, and so may not help to depose it.

    It heard from one within the minimum timeout (a leader hears itself while its check of the
    quorum holds), or it has just restarted and cannot know whether it had.
    """
    timeout = core.config.election_timeout_ticks
    if core.restarted and core.now_ticks < timeout:
        return True
    return core.leader is not None and core.election_elapsed < timeout


def tick_follower(core: Core) -> None:
    """One tick for a member that does not lead."""
    core.election_elapsed += 1
    if core.election_elapsed < core.election_timeout:
        asks = core.role is not Role.FOLLOWER and not core.persist_pending
        if asks and core.election_elapsed % core.config.heartbeat_ticks == 0:
            _ask_for_votes(core)  # what was asked or answered may be lost (paper, section 5.1)
        return
    core.election_elapsed = 0
    draw_timeout(core)
    stalled = core.persist_pending and core.persist_elapsed >= core.config.election_timeout_ticks
    if membership.may_campaign(core) and not stalled:
        campaign(core)
    else:
        # It cannot lead, but it must not vouch for a leader that it no longer hears: a member that
        # does not know yet that it votes may hold the vote that decides.
        core.leader = None


def leader_gone(core: Core, peer: NodeId) -> bool:
    """The connection from ``peer`` ended; return whether that was the leader's.

    A process that died closes its connections: this member no longer vouches for that leader, and
    may stand at once. Pre-votes keep a leader that lives: a majority must have lost it. What is
    given up is the promise to elect nobody for a timeout, on which lease reads stand.
    """
    if not core.config.early_elections or not core.config.pre_vote:
        return False
    if core.role is not Role.FOLLOWER or core.leader != peer:
        return False
    core.leader = None
    return True


def campaign(core: Core, *, transfer: bool = False) -> None:
    """Begin to stand for election; a transferred leadership needs no pre-vote."""
    if core.config.pre_vote and not transfer:
        _become_pre_candidate(core)
    else:
        _become_candidate(core, transfer=transfer)


def handle_pre_vote(core: Core, message: PreVote) -> None:
    """Grant it if the sender's log would do and no leader is alive. Changes no state."""
    granted = (
        not core.repairing
        and message.term > core.term
        and not leader_is_alive(core)
        and core.log.is_up_to_date(message.last_log_index, message.last_log_term)
    )
    answer_pre_vote(core, message, granted=granted)


def answer_pre_vote(core: Core, message: PreVote, *, granted: bool) -> None:
    """Answer: granted in the term asked for, refused in our own."""
    core.send(
        PreVoteResponse(
            sender=core.node_id,
            receiver=message.sender,
            term=message.term if granted else core.term,
            granted=granted,
        )
    )


def handle_pre_vote_response(core: Core, message: PreVoteResponse) -> None:
    """Count it, if it is about the term that we would campaign in."""
    if core.role is not Role.PRE_CANDIDATE:
        return
    if message.granted and message.term != core.term + 1:
        return
    core.votes[message.sender] = message.granted
    match vote_result(core.configuration, core.votes):
        case VoteResult.WON:
            _become_candidate(core, transfer=False)
        case VoteResult.LOST:
            core.become_follower(core.term, None)
        case VoteResult.PENDING:
            pass


def handle_request_vote(core: Core, message: RequestVote) -> None:
    """Grant at most one vote a term, to a log at least as up to date (paper, 5.2 and 5.4.1)."""
    free = core.voted_for == message.sender or (core.voted_for is None and core.leader is None)
    free = free and not core.repairing
    granted = free and core.log.is_up_to_date(message.last_log_index, message.last_log_term)
    if granted:
        core.voted_for = message.sender
        core.election_elapsed = 0
    answer_vote(core, message, granted=granted)


def answer_vote(core: Core, message: RequestVote, *, granted: bool) -> None:
    """Answer after the vote is on disk: at most one vote a term, also across restarts."""
    core.send_after_persist(
        RequestVoteResponse(
            sender=core.node_id, receiver=message.sender, term=core.term, granted=granted
        )
    )


def handle_request_vote_response(core: Core, message: RequestVoteResponse) -> None:
    """Count it, each voter once."""
    if core.role is not Role.CANDIDATE:
        return
    core.votes[message.sender] = message.granted
    _decide(core)


def handle_timeout_now(core: Core, message: TimeoutNow) -> None:
    """The leader hands over: campaign at once."""
    if core.role is not Role.LEADER and membership.may_campaign(core):
        campaign(core, transfer=True)


def _become_pre_candidate(core: Core) -> None:
    core.role = Role.PRE_CANDIDATE
    core.leader = None
    core.votes = {core.node_id: True}
    core.election_elapsed = 0
    draw_timeout(core)
    if vote_result(core.configuration, core.votes) is VoteResult.WON:
        _become_candidate(core, transfer=False)
        return
    _ask_for_votes(core)


def _become_candidate(core: Core, *, transfer: bool) -> None:
    core.role = Role.CANDIDATE
    core.term += 1
    core.voted_for = core.node_id
    core.leader = None
    core.votes = {core.node_id: True}
    core.election_elapsed = 0
    core.stands_for_transfer = transfer
    draw_timeout(core)
    _ask_for_votes(core)
    _decide(core)


def _ask_for_votes(core: Core) -> None:
    """Ask every voter that has not answered: for its pre-vote, or as a candidate for its vote."""
    for peer in core.configuration.all_voters:
        if peer in core.votes:
            continue
        if core.role is Role.PRE_CANDIDATE:
            core.send(
                PreVote(
                    sender=core.node_id,
                    receiver=peer,
                    term=core.term + 1,
                    last_log_index=core.log.last_index,
                    last_log_term=core.log.last_term,
                )
            )
        else:
            # Our own vote must be on disk before anybody can count it.
            core.send_after_persist(
                RequestVote(
                    sender=core.node_id,
                    receiver=peer,
                    term=core.term,
                    last_log_index=core.log.last_index,
                    last_log_term=core.log.last_term,
                    transfer=core.stands_for_transfer,
                )
            )


def _decide(core: Core) -> None:
    match vote_result(core.configuration, core.votes):
        case VoteResult.WON:
            replication.become_leader(core)
        case VoteResult.LOST:
            core.become_follower(core.term, None)
        case VoteResult.PENDING:
            pass
