"""Replication: what a leader sends, what a follower takes, what counts as committed.

Paper, sections 5.3 (log replication), 5.4.2 (a leader commits only entries of its own term by
counting), 7 (snapshots); thesis, sections 3.10 (leadership transfer), 6.2 (a leader that hears
from no majority steps down), 10.2.1 (the leader's own sync overlaps with replication).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consensus.raft import membership, reads
from consensus.raft.invariants import check
from consensus.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    LogEntry,
    Propose,
    ProposeRejected,
    TimeoutNow,
)
from consensus.raft.progress import Progress, ProgressState
from consensus.raft.proposals import SeenProposals
from consensus.raft.quorum import VoteResult, committed_index, vote_result
from consensus.types import NodeId, Role

if TYPE_CHECKING:
    from consensus.raft.core import Core


# -- the leader -------------------------------------------------------------------------------


def become_leader(core: Core) -> None:
    """Lead this term: begin with an entry of one's own, which commits all that is before it."""
    core.role = Role.LEADER
    core.leader = core.node_id
    core.votes = {}
    core.election_elapsed = 0
    core.heartbeat_elapsed = 0
    core.transfer_target = None
    core.lease_forfeited = False
    core.progress = {}
    core.leader_since = core.now_ticks
    core.seen_proposals = SeenProposals()
    reads.reset(core)
    for peer in core.configuration.members:
        add_peer(core, peer)
    uncommitted = core.log.slice(core.commit_index + 1, core.log.last_index + 1)
    core.uncommitted_bytes = sum(len(entry.data) for entry in uncommitted)
    core.append_own([(EntryKind.NOOP, b"")])
    advance_commit(core)


def add_peer(core: Core, peer: NodeId) -> bool:
    """Begin to keep count of a member. Returns whether that is new."""
    if peer == core.node_id or peer in core.progress:
        return False
    progress = Progress(
        core.log.last_index + 1, core.config.inflight_messages_max, core.config.inflight_bytes_max
    )
    progress.recent_active = True  # it gets one election timeout before it counts as lost
    core.progress[peer] = progress
    return True


def tick_leader(core: Core) -> None:
    """One tick for a leader: heartbeats, the check of the quorum, and of its own disk."""
    core.heartbeat_elapsed += 1
    core.election_elapsed += 1
    if core.election_elapsed >= core.config.election_timeout_ticks:
        core.election_elapsed = 0
        if core.transfer_target is not None:
            core.transfer_target = None  # it did not take over in time: go on leading
            membership.committed(core)
        if not _quorum_is_active(core):
            core.become_follower(core.term, None)
            return
        membership.forget_gone(core)
    if core.persist_pending and core.persist_elapsed >= core.config.election_timeout_ticks:
        # A disk that stalls cannot lead: others can (a zombie leader blocks the whole group).
        core.become_follower(core.term, None)
        return
    if core.heartbeat_elapsed >= core.config.heartbeat_ticks:
        core.heartbeat_elapsed = 0
        reads.begin_round(core)


def append_to_all(core: Core) -> None:
    """Let every member have what it lacks, with the next ``Ready``."""
    for peer in core.progress:
        append_to(core, peer)


def append_to(core: Core, peer: NodeId, *, even_empty: bool = False) -> None:
    """Let one member have what it lacks, with the next ``Ready``; or ask where its log agrees.

    What comes up until then goes in one message: entries of several callers, and the commit index.
    """
    core.append_due[peer] = even_empty or core.append_due.get(peer, False)


def send_due(core: Core) -> None:
    """Send to every member that something is due to."""
    if not core.append_due:
        return
    due, core.append_due = core.append_due, {}
    cut: dict[int, tuple[LogEntry, ...]] = {}
    for peer in core.peers:
        if peer in due:
            _send_append(core, peer, due[peer], cut)


def _send_append(
    core: Core, peer: NodeId, even_empty: bool, cut: dict[int, tuple[LogEntry, ...]]
) -> None:
    """Send entries to one member until nothing is left or its bounds are reached.

    Args:
        cut: entries by their first index, as cut for another member: the same are not cut again.
    """
    progress = core.progress[peer]
    while not progress.paused:
        first = progress.next_index
        if first <= core.log.snapshot.index:
            _send_snapshot(core, peer, progress)
            return
        entries = cut.get(first)
        if entries is None:
            entries = cut[first] = tuple(
                core.log.slice(first, core.log.last_index + 1, core.config.message_bytes_max)
            )
        quiet = not entries and not even_empty
        if quiet and (
            progress.state is ProgressState.PROBE or progress.commit_sent >= core.commit_index
        ):
            return
        even_empty = False
        prev_log_term = core.log.term_at(first - 1)
        check(prev_log_term is not None, "a leader sends only what follows its own entries")
        core.send(
            AppendEntries(
                sender=core.node_id,
                receiver=peer,
                term=core.term,
                prev_log_index=first - 1,
                prev_log_term=prev_log_term or 0,
                entries=entries,
                leader_commit=core.commit_index,
                quiet=quiet,
            )
        )
        progress.commit_sent = core.commit_index
        if entries:
            progress.sent(entries[-1].index, sum(len(entry.data) for entry in entries))
        if progress.state is ProgressState.PROBE:
            progress.probe_sent = True


def handle_append_entries_response(core: Core, message: AppendEntriesResponse) -> None:
    """Learn how far a member's log agrees; send on, or look further back."""
    progress = core.progress.get(message.sender)
    if not core.is_leader or progress is None:
        return
    _heard(core, progress)
    if not message.success:
        _handle_rejection(core, progress, message)
        return
    check(
        message.match_index <= core.log.last_index,
        f"{message.sender} says it matches up to {message.match_index}, beyond this leader's log",
    )
    was_paused = progress.paused
    if progress.state is ProgressState.SNAPSHOT and message.match_index >= progress.snapshot_index:
        progress.matched(message.match_index)
        progress.become_replicate()
        news = True
    else:
        news = progress.matched(message.match_index)
        if progress.state is ProgressState.PROBE and news:
            progress.become_replicate()
    if news or was_paused:
        if news:
            advance_commit(core)
        if core.is_leader:
            append_to(core, message.sender)
            if core.transfer_target == message.sender:
                continue_transfer(core)
            membership.say_farewell(core, message.sender)


def reconnected(core: Core, peer: NodeId) -> None:
    """There is a new connection to a member: send to it at once, not at the next heartbeat."""
    progress = core.progress.get(peer)
    if core.is_leader and progress is not None:
        progress.reconnected()
        append_to(core, peer, even_empty=True)


def handle_heartbeat_response(core: Core, message: HeartbeatResponse) -> None:
    """A member still follows: count it for the round, and resend what may have been lost."""
    progress = core.progress.get(message.sender)
    if not core.is_leader or progress is None:
        return
    _heard(core, progress)
    progress.heartbeat_round = max(progress.heartbeat_round, message.round)
    progress.heard()
    if progress.match_index < core.log.last_index:
        append_to(core, message.sender, even_empty=True)
    reads.round_acknowledged(core)


def advance_commit(core: Core) -> None:
    """Commit what a majority has on disk, if it is of this term (paper, figure 8)."""
    match_index = {peer: progress.match_index for peer, progress in core.progress.items()}
    match_index[core.node_id] = core.log.persisted_index
    index = committed_index(core.configuration, match_index)
    if index <= core.commit_index or core.log.term_at(index) != core.term:
        return
    entries = core.log.slice(core.commit_index + 1, index + 1)
    core.uncommitted_bytes = max(
        0, core.uncommitted_bytes - sum(len(entry.data) for entry in entries)
    )
    core.commit_index = index
    append_to_all(core)  # followers apply, and answer their own callers, once they hear of it
    reads.committed(core)
    membership.committed(core)


def continue_transfer(core: Core) -> None:
    """Bring the chosen successor up to date, then tell it to campaign (section 3.10)."""
    target = core.transfer_target
    if target is None or target not in core.progress:
        return
    if core.progress[target].match_index == core.log.last_index:
        core.send(TimeoutNow(sender=core.node_id, receiver=target, term=core.term))
    else:
        append_to(core, target)


def resign(core: Core) -> None:
    """Step down for good after one's own removal, and name the most up-to-date successor."""
    voters = [peer for peer in core.peers if core.configuration.is_voter(peer)]
    if voters:
        best = max(voters, key=lambda peer: (core.progress[peer].match_index, peer))
        core.send(TimeoutNow(sender=core.node_id, receiver=best, term=core.term))
    core.become_follower(core.term, None)


def snapshot_reported(core: Core, peer: NodeId, *, arrived: bool) -> None:
    """A snapshot was streamed, or was not: look for where the logs agree again."""
    progress = core.progress.get(peer)
    if not core.is_leader or progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    if not arrived:
        progress.snapshot_index = 0
    progress.become_probe()


def handle_propose(core: Core, message: Propose) -> None:
    """Append what a follower forwarded, or say that it was not appended.

    Only the leader that was meant may refuse, and only once: a copy of the message may have been
    appended before. A term has one leader, in one life of its process, so the term names it.
    """
    if not core.is_leader or not core.seen_proposals.add(message.sender, message.request):
        return
    if (
        core.transfer_target is not None
        or core.is_leaving
        or message.sender not in core.configuration.members
    ):
        _reject(core, message)
        return
    size = sum(map(len, message.commands))
    if core.uncommitted_bytes and (
        core.uncommitted_bytes + size > core.config.uncommitted_bytes_max
    ):
        _reject(core, message)
        return
    core.append_own((EntryKind.COMMAND, command) for command in message.commands)


def _reject(core: Core, message: Propose) -> None:
    """Refuse forwarded commands: they are certainly not appended."""
    core.send(
        ProposeRejected(
            sender=core.node_id,
            receiver=message.sender,
            term=core.term,
            request=message.request,
        )
    )


# -- the follower -----------------------------------------------------------------------------


def handle_append_entries(core: Core, message: AppendEntries) -> None:
    """Take entries that follow ours; truncate only on a real conflict (paper, figure 2)."""
    _follow(core, message.sender, message.term)
    if message.prev_log_index < core.commit_index:
        # What is committed here equals the leader's log: an old message, answered with the fact.
        if not message.quiet:
            _answer_append(core, message.sender, core.commit_index)
        return
    if not core.log.has(message.prev_log_index, message.prev_log_term):
        conflict_index = core.log.last_index_not_above(
            message.prev_log_index, message.prev_log_term
        )
        core.send_after_persist(
            AppendEntriesResponse(
                sender=core.node_id,
                receiver=message.sender,
                term=core.term,
                success=False,
                rejected_index=message.prev_log_index,
                conflict_index=conflict_index,
                conflict_term=core.log.term_at(conflict_index) or 0,
            )
        )
        return
    last_new_index = message.prev_log_index + len(message.entries)
    for number, entry in enumerate(message.entries):
        if not core.log.has(entry.index, entry.term):
            if entry.index <= core.log.last_index:
                core.truncate(entry.index - 1)
            new = message.entries[number:]
            core.log.append(new)
            membership.appended(core, new)
            break
    # Only what this message vouches for may be committed by it (never our own unmatched tail).
    core.commit_index = max(core.commit_index, min(message.leader_commit, last_new_index))
    if not message.quiet:
        _answer_append(core, message.sender, last_new_index)


def handle_heartbeat(core: Core, message: Heartbeat) -> None:
    """The leader lives. Its commit index is bounded to what it knows that we have."""
    _follow(core, message.sender, message.term)
    core.commit_index = max(core.commit_index, min(message.leader_commit, core.log.last_index))
    core.send(
        HeartbeatResponse(
            sender=core.node_id, receiver=message.sender, term=core.term, round=message.round
        )
    )


def handle_install_snapshot(core: Core, message: InstallSnapshot) -> None:
    """Take a snapshot that is ahead of us; one that our log covers only moves the commit index."""
    _follow(core, message.sender, message.term)
    snapshot = message.snapshot
    if snapshot.index > core.commit_index:
        if core.log.has(snapshot.index, snapshot.term):
            core.commit_index = snapshot.index
        else:
            core.install(snapshot)
    _answer_append(core, message.sender, core.commit_index)


# -- inside -----------------------------------------------------------------------------------


def _follow(core: Core, leader: NodeId, term: int) -> None:
    check(
        not (core.is_leader and core.term == term), f"two leaders in term {term}: {leader} and we"
    )
    if core.role is not Role.FOLLOWER or core.leader != leader:
        core.become_follower(term, leader)
    core.election_elapsed = 0


def _answer_append(core: Core, leader: NodeId, match_index: int) -> None:
    core.send_after_persist(
        AppendEntriesResponse(
            sender=core.node_id,
            receiver=leader,
            term=core.term,
            success=True,
            match_index=match_index,
        )
    )


def _handle_rejection(core: Core, progress: Progress, message: AppendEntriesResponse) -> None:
    try_index = message.conflict_index
    if message.conflict_index > core.log.snapshot.index:
        # Where both skip a whole term at once, divergence is found in a round trip per term.
        try_index = core.log.last_index_not_above(message.conflict_index, message.conflict_term)
    if progress.rejected(message.rejected_index, try_index):
        append_to(core, message.sender)


def _send_snapshot(core: Core, peer: NodeId, progress: Progress) -> None:
    if not progress.recent_active:
        return  # it would not arrive
    progress.become_snapshot(core.log.snapshot.index)
    core.send(
        InstallSnapshot(
            sender=core.node_id, receiver=peer, term=core.term, snapshot=core.log.snapshot
        )
    )


def _heard(core: Core, progress: Progress) -> None:
    progress.recent_active = True
    progress.heard_tick = core.now_ticks


def _quorum_is_active(core: Core) -> bool:
    active = {peer: progress.recent_active for peer, progress in core.progress.items()}
    active[core.node_id] = True
    for progress in core.progress.values():
        progress.recent_active = False
    return vote_result(core.configuration, active) is VoteResult.WON
