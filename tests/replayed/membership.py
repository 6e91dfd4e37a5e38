"""Changes of members: bugs of other Raft implementations, on groups of real cores."""

from __future__ import annotations

import contextlib

from consensus.errors import ProposalDropped
from consensus.raft.configuration import Configuration
from consensus.raft.messages import AppendEntries, AppendEntriesResponse, EntryKind, LogEntry
from consensus.raft.ready import HardState
from consensus.types import UpdateMember
from tests.consensus.raft.group import Group, between, entries_of
from tests.mutation import Mutant
from tests.replayed.basics import a_group_works
from tests.replayed.bug import Source, Table, issue, must
from tests.replayed.machines import Stage
from tests.replayed.replication import RAFT, agree, known, settled

TABLE = Table(a_group_works)


@TABLE.replays(
    *issue("bakwc/PySyncObj", 133),
    promise="a member comes back with the members that it knew",
    mutant=Mutant(
        "does not look for configurations in its log when it starts",
        RAFT + "membership:load",
        "appended(core, core.log.slice(core.log.first_index, core.log.last_index + 1))",
        "pass",
    ),
)
def a_restart_forgets_members_that_were_added(stage: Stage) -> None:
    """Members that were added were known from the log only, and the log was not read for them at
    a start. After a restart the members counted majorities of different groups.
    """
    group = Group("abc", outsiders="d")
    group.elect("a")
    group["a"].change_membership("abcd")
    group.run("a")
    settled(group, "a")
    for name in "abcd":
        group.restart(name)
    voters = {name: "".join(group[name].configuration.voters) for name in "abcd"}
    assert set(voters.values()) == {"abcd"}, f"who votes, as each knows after a restart: {voters}"


@TABLE.replays(
    *issue("bakwc/PySyncObj", 121),
    *issue("patroni/patroni", 1701),
    promise="nothing that arrives stops a leader",
    mutant=Mutant(
        "an answer of a member that left breaks the leader",
        RAFT + "replication:handle_append_entries_response",
        "core.progress.get(message.sender)",
        "core.progress[message.sender]",
    ),
)
def a_late_answer_of_a_member_that_left_stops_the_leader(stage: Stage) -> None:
    """A member that only listened went away between two steps of the leader, which then looked it
    up in vain. The exception ended the thread that drives everything, and the lock that the leader
    kept was stuck.
    """
    group = Group("abc", "d")
    group.elect("a")
    group.propose("a", "x")
    group.deliver(between("a", "d"))
    late = [m for m in group.wire if isinstance(m, AppendEntriesResponse) and m.sender == "d"]
    assert late
    group.drop(between("d"))
    group.stabilize("a", "b", "c")
    group["a"].change_membership("abc")
    group.run("a")
    group.cut = {"d"}
    for _ in range(15):
        group.beat("a")
    assert "d" not in group["a"].peers
    with must("an answer that comes late is taken or ignored"):
        group.step(late[0])
    group.propose("a", "y")
    group.beat("a")
    assert group.members["b"].commands == ["x", "y"]


@TABLE.replays(
    Source(
        "raft-dev, bug in single-server membership changes",
        "https://groups.google.com/g/raft-dev/c/t4xj6dJTP6E",
    ),
    promise="what was applied once is never replaced",
    mutant=known("changes members before an entry of its own is committed"),
)
def two_changes_of_two_leaders_have_majorities_that_do_not_meet(stage: Stage) -> None:
    """A new leader changed the members before anything of its own term was committed. An
    uncommitted change of the leader before it was still about, and the majorities of the two had
    no member in common.

    "a" adds "e" and is lost; "b" removes "a" and commits with "c"; "a" comes back and wins with
    "d" and "e".
    """
    group = Group("abcd", outsiders="e", settings={"pre_vote": False})
    group.elect("a")
    group["a"].change_membership("abcde")
    group.run("a")
    for _ in range(6):
        group.deliver(lambda m: {m.sender, m.receiver} == {"a", "e"})
    group.wire.clear()
    assert "e" in group["e"].configuration.voters
    group.cut = {"a", "e"}
    group.win("b")
    with contextlib.suppress(ProposalDropped):  # the refusal is what saves the group
        group["b"].change_membership("bcd")
    group.propose("b", "of b")
    for _ in range(6):
        group.drop(lambda m: "d" in (m.sender, m.receiver))
        group.deliver()
    group.wire.clear()
    group.cut = {"b", "c"}
    group["a"].become_follower(2, None)
    group.win("a")
    group.propose("a", "of a")
    settled(group, "a")
    assert "of a" in group.members["d"].commands
    agree(group)


@TABLE.replays(
    *issue("etcd-io/etcd", 10563),
    promise="a group goes on after a member was removed",
    mutant=known("uses a configuration only once it is committed"),
)
def the_removal_of_the_leader_of_two_leaves_one_that_cannot_lead(stage: Stage) -> None:
    """Of two members the leader was removed. The message that this is committed was lost; the
    leader was gone, and the other needed its vote for ever.
    """
    group = Group("ab")
    group.elect("a")
    group["a"].change_membership("b")
    group.run("a")
    for _ in range(2):
        group.deliver(between("a", "b"))
        group.drop(lambda m: m.sender == "a" and group["a"].commit_index > 1)
        group.deliver(between("b", "a"))
    assert not group["a"].is_leader, "the removal is not committed"
    group.cut = {"a"}
    group.wire.clear()
    group.tick("b", 100)
    assert group["b"].is_leader, "the only member that is left does not lead after 100 ticks"
    group.propose("b", "x")
    assert group.members["b"].commands == ["x"]


@TABLE.replays(
    *issue("scylladb/scylladb", 30936),
    promise="a configuration is undone when it is truncated",
    mutant=known("truncation undoes one configuration only"),
)
def two_truncated_configurations_leave_one_behind(stage: Stage) -> None:
    """A member dropped two configurations of a deposed leader at once and undid only the newer:
    it went on with one that is in nobody's log.
    """
    joint = Configuration.of("abc").change("ade")
    entries = [
        *entries_of(1),
        LogEntry(2, 1, EntryKind.CONFIGURATION, joint.encode()),
        LogEntry(3, 1, EntryKind.CONFIGURATION, joint.leave_joint().encode()),
    ]
    group = Group(())
    group.add("b", Configuration.of("abc"), entries, HardState(1))
    group.add("a", Configuration.of("abc"))
    group.step(
        AppendEntries(
            sender="a",
            receiver="b",
            term=2,
            prev_log_index=1,
            prev_log_term=1,
            entries=tuple(entries_of(2, first=2)),
            leader_commit=1,
        )
    )
    found = "".join(group["b"].configuration.all_voters)
    assert found == "abc", (
        f"no log has another configuration than abc, and b counts votes of {found}"
    )


@TABLE.replays(
    *issue("RedisLabs/redisraft", 17),
    promise="what was acknowledged is never lost",
    mutant=known("a joint configuration needs the new majority only"),
)
def a_minority_removes_the_others_and_goes_on_alone(stage: Stage) -> None:
    """Members were removed on the smaller side of a partition. Both sides went on, each with a
    leader, and the writes of one of them were lost.
    """
    group = Group("abcde")
    group.elect("a")
    group.cut = {"c", "d", "e"}
    group["a"].change_membership("ab")
    group.run("a")
    for _ in range(6):
        group.deliver()
    if group["a"].is_leader:
        group.propose("a", "of two")
        for _ in range(6):
            group.deliver()
    group.cut = {"a", "b"}
    group.wire.clear()
    group.elect("c")
    group.propose("c", "of three")
    settled(group, "c")
    assert group.members["d"].commands == ["of three"]
    agree(group)


@TABLE.replays(
    *issue("etcd-io/etcd", 21694),
    promise="a learner stays one until it is promoted",
    mutant=Mutant(
        "a new address makes a voter of a learner",
        RAFT + "changes:_Draft.apply",
        "self.peers[node] = Peer(node, address, context)",
        "self.peers[node] = Peer(node, address, context)\n"
        "            self.learners.discard(node)\n"
        "            self.voters.add(node)",
    ),
)
def a_new_address_makes_a_voter_of_a_learner(stage: Stage) -> None:
    """A learner's address was changed, and with it the note that it is a learner was lost: it
    counted as a voter although nobody had promoted it.
    """
    group = Group("abc", "d", settings={"strict_reconfig_check": False})
    group.elect("a")
    settled(group, "a")
    group["a"].change_members([UpdateMember("d", "10.0.0.4:2380")])
    group.run("a")
    settled(group, "a")
    now = group["b"].configuration
    assert now.learners == ("d",), f"d was not promoted, and votes: {''.join(now.voters)}"
