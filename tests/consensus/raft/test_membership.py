"""Changes of members: the thesis's chapter 4, and the bug in single-server changes of 2015."""

from __future__ import annotations

import random

import pytest

from consensus.errors import NotLeader, ProposalDropped
from consensus.raft.configuration import Configuration, InvalidChange
from consensus.raft.core import Core
from consensus.raft.messages import AppendEntries, EntryKind, LogEntry, TimeoutNow
from consensus.raft.ready import HardState
from consensus.types import Role
from tests.consensus.raft.group import Group, between, entries_of, of_kind, terms_of


def change(group: Group, voters: str, learners: str = "", *, leader: str = "a") -> int:
    index = group[leader].change_membership(voters, learners)
    group.run(leader)
    return index


def settled(group: Group, leader: str = "a") -> None:
    for _ in range(3):
        group.beat(leader)


def configuration_entry(index: int, term: int, configuration: Configuration) -> LogEntry:
    return LogEntry(index, term, EntryKind.CONFIGURATION, configuration.encode())


def test_one_voter_is_added_in_one_step() -> None:
    """Thesis, section 4.1."""
    group = Group("abc", outsiders="d")
    group.elect("a")
    change(group, "abcd")
    settled(group)
    assert all(group[name].configuration == Configuration.of("abcd") for name in "abcd")
    assert len(terms_of(group["a"])) == 2, "the no-op and one configuration"


def test_many_change_at_once_by_way_of_a_joint_configuration() -> None:
    """Thesis, section 4.3: the leader ends the joint configuration by itself."""
    group = Group("abc", outsiders="de")
    group.elect("a")
    first = change(group, "ade", "b")
    assert group["a"].configuration == Configuration(
        voters=("a", "d", "e"), voters_outgoing=("a", "b", "c"), learners_next=("b",)
    )
    settled(group)
    assert all(
        group[name].configuration == Configuration.of("ade", "b", removed="c") for name in "adeb"
    )
    assert group["a"].log.last_index == first + 1


def test_a_configuration_is_in_force_when_it_is_appended_and_not_when_committed() -> None:
    """Thesis, section 4.1: on the leader and on whoever receives it."""
    group = Group("abc", outsiders="d")
    group.elect("a")
    change(group, "abcd")
    assert group["a"].configuration.voters == ("a", "b", "c", "d")
    group.deliver(between("a", "b"))
    assert group["b"].configuration.voters == ("a", "b", "c", "d")
    assert group["c"].configuration.voters == ("a", "b", "c")
    assert group["a"].commit_index == 1
    group.deliver(between("b", "a"))
    assert group["a"].commit_index == 1, "two of three are not a majority of four"


def test_a_configuration_is_undone_when_it_is_truncated() -> None:
    """Thesis, section 4.1: each server uses the latest configuration *in its log*."""
    group = Group("abc", outsiders="d")
    group.elect("a")
    group.cut = {"a"}
    change(group, "abcd")
    assert group["a"].configuration.voters == ("a", "b", "c", "d")
    group.elect("b")
    group.cut = set()
    settled(group, "b")
    assert group["a"].configuration == Configuration.of("abc")


def test_truncation_undoes_every_configuration_after_it() -> None:
    """Two configurations may be dropped at once: the one before both is in force again."""
    joint = Configuration.of("abc").change("ade")
    group = Group("c")
    entries = [
        *entries_of(1),
        configuration_entry(2, 1, joint),
        configuration_entry(3, 1, joint.leave_joint()),
    ]
    group.add("b", Configuration.of("abc"), entries, HardState(1))
    assert group["b"].configuration == Configuration.of("ade", removed="bc")
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
    assert group["b"].configuration == Configuration.of("abc")


def test_the_configuration_in_force_is_found_again_after_a_restart() -> None:
    """Uncommitted ones count as well; and one inside the snapshot does."""
    group = Group("abc", outsiders="d")
    group.elect("a")
    change(group, "abcd")
    group.deliver(between("a", "b"))
    group.restart("b")
    assert group["b"].configuration.voters == ("a", "b", "c", "d")
    settled(group)
    meta = group["a"].compact(group["a"].applied_index)
    assert meta.configuration == Configuration.of("abcd")
    disk = group.members["a"].disk
    disk.snapshot, disk.entries = meta, []
    group.restart("a")
    assert group["a"].configuration == Configuration.of("abcd")


def test_a_snapshot_carries_the_configuration_as_of_its_index() -> None:
    """Thesis, section 5.1: not a later one, which may yet be undone."""
    group = Group("abc", outsiders="d")
    group.elect("a")
    group.propose("a", "x")
    group.stabilize()
    change(group, "abcd")
    meta = group["a"].compact(2)
    assert meta.configuration == Configuration.of("abc")
    assert group["a"].configuration == Configuration.of("abcd")


def test_one_change_at_a_time() -> None:
    """Thesis, section 4.1."""
    group = Group("abc", outsiders="de")
    group.elect("a")
    change(group, "abcd")
    with pytest.raises(ProposalDropped, match="not committed yet"):
        change(group, "abcde")
    settled(group)
    change(group, "abcde")


def test_no_change_before_an_entry_of_the_leaders_own_term_is_committed() -> None:
    """The bug of 2015: two leaders' uncommitted changes with majorities that do not meet."""
    group = Group("abcd")
    group.win("a")
    assert group["a"].commit_index == 0
    with pytest.raises(ProposalDropped, match="has not committed an entry of its term"):
        change(group, "abc")
    group.stabilize()
    change(group, "abc")


def test_changes_that_make_no_sense_are_refused() -> None:
    group = Group("abc")
    group.elect("a")
    with pytest.raises(InvalidChange, match="at least one voter"):
        change(group, "")
    with pytest.raises(InvalidChange, match="both"):
        change(group, "abc", "a")
    with pytest.raises(NotLeader):
        change(group, "ab", leader="b")


def test_both_majorities_are_needed_while_joint() -> None:
    """Thesis, section 4.3: for commitment and for elections."""
    group = Group("abc", outsiders="def")
    group.elect("a")
    group.cut = {"b", "c"}
    change(group, "def")
    settled(group)
    assert group["a"].commit_index == 1, "all the new ones and one of the old are not enough"
    group.cut = {"d", "e", "f"}
    group["a"].become_follower(1, None)
    with pytest.raises(AssertionError, match="did not win"):
        group.elect("a")
    group.cut = {"c", "f"}
    group.elect("a")
    group.cut = set()
    group.beat("a")


def test_a_new_leader_ends_the_joint_configuration_that_it_finds() -> None:
    """Thesis, section 4.3."""
    group = Group("abc", outsiders="d")
    group.elect("a")
    change(group, "bd", "")
    group.deliver(between("a"))
    group.cut = {"a"}
    group.wire.clear()
    assert group["b"].configuration.joint
    group["d"].become_follower(1, None)
    group.cut = set()
    group.elect("b")
    settled(group, "b")
    assert group["b"].configuration == Configuration.of("bd", removed="ac")
    assert group["d"].configuration == Configuration.of("bd", removed="ac")


def test_a_removed_leader_steps_down_once_that_is_committed() -> None:
    """Thesis, section 4.2.2; and it names a successor, so that nobody waits for a timeout."""
    group = Group("abc")
    group.elect("a")
    change(group, "bc")
    assert group["a"].is_leader, "it leads until the change is committed"
    group.deliver(between("a", "b"))
    group.deliver(between("b", "a"))
    assert group["a"].is_leader, "its own copy does not count any more: one of two has it"
    group.deliver(between("a", "c"))
    group.deliver(between("c", "a"))
    assert group["a"].role is Role.FOLLOWER
    assert [m.receiver for m in group.wire if isinstance(m, TimeoutNow)] != []
    group.stabilize()
    assert group["b"].is_leader or group["c"].is_leader
    group.tick("a", 100)
    assert group["a"].role is Role.FOLLOWER, "it does not campaign"


def test_removing_the_leader_of_two_leaves_one_that_works() -> None:
    """The last message of a removed leader may be lost; the other must get along alone."""
    group = Group("ab")
    group.elect("a")
    change(group, "b")
    group.deliver(between("a", "b"))
    group.deliver(between("b", "a"))
    group.cut = {"a"}
    group.drop()
    group.elect("b")
    group.propose("b", "x")
    group.stabilize("b")
    assert group.members["b"].commands == ["x"]


@pytest.mark.parametrize("learners", ["", "a"], ids=["removed", "demoted"])
def test_a_member_whose_removal_is_not_committed_yet_still_campaigns(learners: str) -> None:
    """Thesis, section 4.2.2. Only its log can win, and the one that stays needs its vote."""
    group = Group("ab")
    group.elect("a")
    change(group, "b", learners)
    group.drop()
    group.restart("a")
    assert not group["a"].configuration.is_voter("a")
    for _ in range(60):
        for name in "ab":
            group.tick(name)
        group.stabilize()
    assert group["b"].is_leader
    removed = set("a") - set(learners)
    assert group["b"].configuration == Configuration.of("b", learners, removed=removed)
    group.propose("b", "x")
    group.stabilize()
    assert group.members["b"].commands == ["x"]


def test_a_removed_member_cannot_disturb_the_others() -> None:
    """Thesis, section 4.2.3."""
    for pre_vote in (True, False):
        group = Group("abcd", settings={"pre_vote": pre_vote})
        group.elect("a")
        group.cut = {"d"}
        change(group, "abc")
        settled(group)
        group.cut = set()
        term = group["a"].term
        for _ in range(60):
            group.tick("d")
            group.tick("b")
            group.tick("c")
            group.beat("a")
        assert group["a"].is_leader
        assert {group[name].term for name in "abc"} == {term}


def test_a_removed_member_is_told_and_sent_to_no_more() -> None:
    group = Group("abc")
    group.elect("a")
    change(group, "ab")
    group.stabilize()
    assert "c" not in group["a"].progress
    assert group["c"].configuration == Configuration.of("ab", removed="c")
    group.wire.clear()
    group.tick("a")
    assert {m.receiver for m in group.wire} == {"b"}


def test_learners_receive_everything_and_count_for_nothing() -> None:
    """Thesis, section 4.2.1."""
    group = Group("abc", "lm")
    group.elect("a")
    group.cut = {"b", "c"}
    group.propose("a", "x")
    group.stabilize("a", "l", "m")
    assert terms_of(group["l"]) == terms_of(group["a"])
    assert group["a"].commit_index == 1
    group.tick("a", 30)
    assert not group["a"].is_leader, "a learner's answers hold up no leader"


def test_a_learner_is_promoted_and_then_counts() -> None:
    """Thesis, section 4.2.1: catch up first, vote afterwards."""
    group = Group("ab", "l")
    group.elect("a")
    group.propose("a", "x")
    group.stabilize()
    change(group, "abl")
    settled(group)
    group.cut = {"b"}
    group.propose("a", "y")
    group.stabilize("a", "l")
    assert group.members["l"].commands == ["x", "y"]


def test_a_member_that_does_not_know_yet_that_it_votes_still_grants() -> None:
    """Thesis, section 4.2.1: servers vote for candidates outside their own configuration."""
    group = Group("abc", outsiders="d", settings={"pre_vote": False})
    group.elect("a")
    change(group, "abcd")
    group.deliver(between("a", "b"))
    group.wire.clear()
    group.cut = {"a"}
    group["d"].become_follower(1, None)
    group.elect("b")
    assert group["d"].voted_for == "b"


def test_a_change_waits_for_a_transfer_and_goes_on_when_it_is_given_up() -> None:
    group = Group("abc", outsiders="de")
    group.elect("a")
    change(group, "ade")
    group["a"].transfer_leadership("c")
    group.run("a")
    group.drop(of_kind(TimeoutNow))
    for _ in range(14):
        group.tick("a")
        group.drop(of_kind(TimeoutNow))
        group.stabilize("a", "b", "d", "e")
    assert group["a"].configuration == Configuration.of("ade", removed="bc")


def next_members(core: Core, prng: random.Random, names: str) -> tuple[str, str]:
    """Some voters more or less or demoted; whoever was removed stays away."""
    now = core.configuration
    fresh = sorted(set(names) - set(now.members) - set(now.removed))
    voters = set(now.voters) | set(prng.sample(fresh, min(len(fresh), prng.choice((0, 1, 2)))))
    demoted = set(prng.sample(sorted(voters), min(len(voters) - 1, prng.choice((0, 1, 2)))))
    learners = {node for node in (*demoted, *now.learners) if prng.random() < 0.8}
    promoted = {node for node in learners - demoted if prng.random() < 0.5}
    voters = voters - demoted | promoted
    return "".join(sorted(voters)), "".join(sorted(learners - voters))


def test_no_two_majorities_ever_disagree_while_members_come_and_go() -> None:
    """R1, R5, R13: random changes, losses, elections and restarts; one order of commands."""
    changes = 0
    for seed in range(30):
        prng = random.Random(seed)
        names = "abcdefghij"
        group = Group("abc", outsiders="defghij", seed=seed)
        leaders: dict[int, str] = {}
        for number in range(300):
            name = prng.choice(names)
            group.tick(name, prng.choice((1, 2, 8)))
            core = group[name]
            if core.is_leader:
                leaders.setdefault(core.term, name)
                assert leaders[core.term] == name
                try:
                    group.propose(name, f"{number}")
                    if prng.random() < 0.3:
                        change(group, *next_members(core, prng, names), leader=name)
                        changes += 1
                except ProposalDropped:
                    pass
            if prng.random() < 0.03:
                group.restart(name)
            messages = list(group.wire)
            prng.shuffle(messages)
            group.wire.clear()
            for message in messages:
                if prng.random() < 0.85:
                    group.step(message)
        longest = max((group.members[name].applied for name in names), key=len)
        for name in names:
            applied = group.members[name].applied
            assert applied == longest[: len(applied)], f"seed {seed}: {name} applied another order"
    assert changes > 100, f"{changes} changes in all: these seeds show little"
