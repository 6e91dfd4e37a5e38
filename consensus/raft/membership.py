"""Changing who is in the group (thesis, chapter 4; joint consensus, section 4.3).

* A configuration is in force from the moment its entry is appended, committed or not, and is
  undone when that entry is truncated.
* At most one change is uncommitted at a time, and a new leader changes nothing before an entry of
  its own term is committed (the bug in single-server changes that was found in 2015).
* A joint configuration ends by itself: when it is committed, its leader appends the next one.
* A leader that is not in the configuration in force takes no more commands; once that
  configuration is committed it steps down, and names a successor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from consensus.errors import ChangeUnderWay
from consensus.raft import changes, replication
from consensus.raft.configuration import Configuration
from consensus.raft.messages import EntryKind, Heartbeat, LogEntry
from consensus.raft.ready import HardState
from consensus.types import MemberChange, NodeId

if TYPE_CHECKING:
    from consensus.raft.core import Core


def load(core: Core) -> None:
    """Find the configurations in force from the snapshot and the log, as after a restart."""
    core.configurations = [(core.log.snapshot.index, core.log.snapshot.configuration)]
    appended(core, core.log.slice(core.log.first_index, core.log.last_index + 1))


def appended(core: Core, entries: Sequence[LogEntry]) -> None:
    """Entries were appended: a configuration among them is in force now."""
    for index, _, kind, data in entries:
        if kind is EntryKind.CONFIGURATION:
            core.configurations.append((index, Configuration.decode(data)))
            if core.is_leader:
                for peer in core.configuration.members:
                    if replication.add_peer(core, peer):
                        # Ask at once how far its log goes, not after the next heartbeat.
                        replication.append_to(core, peer, even_empty=True)


def truncated(core: Core, last_index: int) -> None:
    """Entries after ``last_index`` are gone, and with them their configurations."""
    while core.configurations[-1][0] > last_index and len(core.configurations) > 1:
        core.configurations.pop()


def configuration_at(core: Core, index: int) -> Configuration:
    """Return the configuration as of ``index``, for a snapshot there."""
    return next(configuration for at, configuration in reversed(core.configurations) if at <= index)


def forget_before(core: Core, index: int) -> None:
    """The log was compacted up to ``index``: keep the configuration in force there and later."""
    newest = configuration_at(core, index)
    later = [item for item in core.configurations if item[0] > index]
    core.configurations = [(index, newest), *later]


def may_campaign(core: Core) -> bool:
    """Whether this member may stand for election.

    It votes in the configuration in force, or it does in the one that is committed: a member whose
    own removal is not committed yet may hold the only log that can win, and must finish the removal
    (section 4.2.2). A member that is being repaired must not judge by its log who may lead.
    """
    if core.repairing:
        return False
    committed_configuration = configuration_at(core, core.commit_index)
    return core.configuration.is_voter(core.node_id) or committed_configuration.is_voter(
        core.node_id
    )


def propose_change(core: Core, voters: Iterable[NodeId], learners: Iterable[NodeId]) -> int:
    """Append the next configuration on the way to these members; return its index."""
    _check_may_change(core)
    return _append(core, core.configuration.change(voters, learners))


def propose_steps(core: Core, steps: Sequence[MemberChange]) -> int:
    """Append the configuration that these steps lead to, if they are safe now; return its index."""
    _check_may_change(core)
    return _append(core, changes.next_configuration(core, steps))


def _check_may_change(core: Core) -> None:
    if core.configurations[-1][0] > core.commit_index or core.configuration.joint:
        raise ChangeUnderWay("a change of members is not committed yet")
    if not core.log.has(core.commit_index, core.term):
        raise ChangeUnderWay("this leader has not committed an entry of its term yet")


def _append(core: Core, target: Configuration) -> int:
    core.append_own([(EntryKind.CONFIGURATION, target.encode())])
    return core.log.last_index


def committed(core: Core) -> None:
    """The leader's commit index moved: end a joint configuration, let go of who left."""
    index, configuration = core.configurations[-1]
    if index > core.commit_index:
        return
    if configuration.joint:
        if core.transfer_target is None:
            core.append_own([(EntryKind.CONFIGURATION, configuration.leave_joint().encode())])
        return
    for peer in core.peers:
        say_farewell(core, peer)
    if not configuration.is_voter(core.node_id):
        replication.resign(core)


def say_farewell(core: Core, peer: NodeId) -> None:
    """Tell a member that its removal is committed, once it has the entry; then let go of it."""
    index, configuration = core.configurations[-1]
    if index > core.commit_index or peer in configuration.members:
        return
    progress = core.progress.get(peer)
    if progress is None or progress.match_index < index:
        return  # it was let go, or cannot know yet what would be committed
    core.send(
        Heartbeat(
            sender=core.node_id,
            receiver=peer,
            term=core.term,
            leader_commit=core.commit_index,
            round=0,
        )
    )
    del core.progress[peer]


def forget_gone(core: Core) -> None:
    """Let go of members that left and did not answer for an election timeout."""
    index, configuration = core.configurations[-1]
    if index <= core.commit_index:
        for peer in core.peers:
            if peer not in configuration.members:
                del core.progress[peer]


def stand_alone(core: Core) -> tuple[LogEntry, HardState] | None:
    """Return what makes this member the only one, in a term of its own; None where it is already.

    For a member that is left of a group which lost its majority for good. All that is in its log
    stays and will be committed: whoever proposed what was not committed was never told that it
    failed, and what was committed must not be lost because this member had not heard of that yet.
    """
    now = core.configuration
    if now.members == now.voters == (core.node_id,):
        return None
    term = core.term + 1
    data = now.alone(core.node_id).encode()
    entry = LogEntry(core.log.last_index + 1, term, EntryKind.CONFIGURATION, data)
    return entry, HardState(term, core.node_id, core.commit_index)
