"""Linearizable reads without a log entry: the thesis's section 6.4; leases, 6.4.1."""

from __future__ import annotations

import pytest

from consensus.raft import reads
from consensus.raft.messages import (
    AppendEntriesResponse,
    Heartbeat,
    HeartbeatResponse,
    ReadIndex,
    TimeoutNow,
)
from consensus.raft.ready import ReadState
from consensus.types import Role
from tests.consensus.raft.group import Group, between, of_kind

TIMEOUT = 10


def led(names: str = "abc") -> Group:
    """A group that "a" leads, with one command committed."""
    group = Group(names)
    group.elect("a")
    group.propose("a", "x")
    group.stabilize()
    return group


def ask(group: Group, name: str, request: int = 1) -> bool:
    asked = group[name].read_index(request)
    group.run(name)
    return asked


def test_a_read_is_confirmed_by_a_round_that_a_majority_answers() -> None:
    """Thesis, section 6.4, steps 1 to 3."""
    group = led("abcde")
    assert ask(group, "a")
    group.deliver(between("a", "b"))
    group.deliver(between("b", "a"))
    assert group.members["a"].reads == [], "two of five"
    group.deliver(between("a", "c"))
    group.deliver(between("c", "a"))
    assert group.members["a"].reads == [ReadState(1, group["a"].commit_index)]


def test_an_answer_to_an_earlier_round_confirms_nothing() -> None:
    """Thesis, section 6.4: the round must begin after the read did."""
    group = led()
    group.tick("a")
    group.deliver(between("a"))
    late = [m for m in group.wire if isinstance(m, HeartbeatResponse)]
    group.wire.clear()
    ask(group, "a")
    for message in late:
        group.step(message)
    assert group.members["a"].reads == []
    group.stabilize()
    assert len(group.members["a"].reads) == 1


def test_reads_that_come_up_during_a_round_share_the_next() -> None:
    """However many there are, two rounds serve them: one under way, one that waits."""
    group = led()
    ask(group, "a", 1)
    for request in range(2, 30):
        ask(group, "a", request)
    rounds = {m.round for m in group.wire if isinstance(m, Heartbeat)}
    assert len(rounds) == 1
    group.deliver()
    group.deliver(count=1)
    assert [read.request for read in group.members["a"].reads] == [1]
    rounds |= {m.round for m in group.wire if isinstance(m, Heartbeat)}
    assert len(rounds) == 2
    group.stabilize()
    assert [read.request for read in group.members["a"].reads] == list(range(1, 30))
    assert not any(isinstance(m, Heartbeat) for m in group.wire)


def test_reads_behind_a_round_that_is_lost_go_with_the_next_heartbeat() -> None:
    """Waiting for a round to be answered must not wait for ever."""
    group = led()
    ask(group, "a", 1)
    group.drop(of_kind(Heartbeat))
    ask(group, "a", 2)
    assert not group.wire
    group.beat("a")
    group.stabilize()
    assert [read.request for read in group.members["a"].reads] == [1, 2]


def test_appends_that_are_answered_confirm_no_read() -> None:
    """They may have been sent before the read began."""
    group = led()
    ask(group, "a")
    group.drop(of_kind(Heartbeat))
    for peer in "bc":
        group.step(
            AppendEntriesResponse(sender=peer, receiver="a", term=1, success=True, match_index=2)
        )
    assert group.members["a"].reads == []


def test_read_index_waits_for_the_terms_first_commit() -> None:
    """Thesis, section 6.4, step 1: before that a leader does not know what is committed."""
    group = led()
    group.propose("a", "y")
    group.deliver(between("a", "b"))  # "b" has it, and so it is committed; only nobody knows yet
    group.deliver(between("b", "a"))
    assert group["a"].commit_index == 3
    group.wire.clear()
    group.cut = {"a"}
    group.win("b")
    committed_by_a = group["a"].commit_index
    assert group["b"].commit_index < committed_by_a
    ask(group, "b")
    for _ in range(3):
        group.tick("b")
        group.deliver(of_kind(Heartbeat))
        group.deliver(of_kind(HeartbeatResponse))
    assert group.members["b"].reads == []
    group.stabilize("b", "c")
    group.beat("b")
    (read,) = group.members["b"].reads
    assert read.index is not None
    assert read.index >= committed_by_a


def test_a_follower_asks_the_leader() -> None:
    """Thesis, section 6.4: so that followers can share the load."""
    group = led()
    assert ask(group, "c", 5)
    assert [type(m) for m in group.wire] == [ReadIndex]
    group.stabilize()
    assert group.members["c"].reads == [ReadState(5, 2)]


def test_nobody_is_asked_where_no_leader_is_known() -> None:
    group = Group("abc")
    assert not ask(group, "a")
    assert not group.wire


def test_reads_that_come_together_share_a_round() -> None:
    """Thesis, section 6.4: one round for any number of reads."""
    group = led()
    for request in range(100):
        group["a"].read_index(request)
    group.run("a")
    assert len([m for m in group.wire if isinstance(m, Heartbeat)]) == 2
    group.stabilize()
    assert [read.request for read in group.members["a"].reads] == list(range(100))


def test_a_deposed_leader_confirms_no_read() -> None:
    """Thesis, section 6.4: its reads fail, and are not left hanging."""
    group = led()
    group.cut = {"a"}
    group.elect("b")
    group.propose("b", "newer")
    group.stabilize("b", "c")
    ask(group, "a")
    group.stabilize()
    assert group.members["a"].reads == []
    group.cut = set()
    group.tick("a")
    group.stabilize()
    assert group["a"].role is Role.FOLLOWER
    assert group.members["a"].reads == [ReadState(1, None)]


def test_a_single_member_confirms_at_once() -> None:
    group = Group("a")
    group.elect("a")
    ask(group, "a")
    assert group.members["a"].reads == [ReadState(1, 1)]


def test_learners_do_not_confirm_reads() -> None:
    """Thesis, section 4.2.1."""
    group = Group("abc", "l")
    group.elect("a")
    ask(group, "a")
    group.deliver(between("a", "l"))
    group.deliver(between("l", "a"))
    assert group.members["a"].reads == []


def test_both_majorities_confirm_a_read_during_a_change_of_members() -> None:
    """Thesis, section 4.3: every decision of a joint configuration needs both."""
    group = Group("abc", outsiders="de")
    group.elect("a")
    group["a"].change_membership("ade")
    group.run("a")
    group.drop()
    ask(group, "a")
    for peer in "de":
        group.deliver(between("a", peer))
        group.deliver(between(peer, "a"))
    assert group.members["a"].reads == []
    group.deliver(between("a", "b"))
    group.deliver(between("b", "a"))
    assert len(group.members["a"].reads) == 1


def test_reads_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "READS_PENDING_MAX", 3)
    group = led()
    for request in range(5):
        group["a"].read_index(request)
    group.run("a")
    assert group.members["a"].reads == [ReadState(3, None), ReadState(4, None)]


# -- leases ---------------------------------------------------------------------------------------


def test_a_lease_lasts_one_election_timeout_from_when_its_round_was_sent() -> None:
    """Thesis, section 6.4.1."""
    group = led()
    group.beat("a")
    assert reads.lease_valid(group["a"])
    group.cut = {"b", "c"}
    valid = 0
    while reads.lease_valid(group["a"]):
        group.tick("a")
        valid += 1
    assert valid == TIMEOUT - 1, "less one tick for clocks that drift"


def test_nobody_can_be_elected_while_a_lease_holds() -> None:
    """Thesis, section 6.4.1: what makes the lease safe is that followers keep their promise."""
    for pre_vote in (True, False):
        group = Group("abc", settings={"pre_vote": pre_vote})
        group.elect("a")
        group.beat("a")
        group.cut = {"a"}
        while reads.lease_valid(group["a"]):
            group["b"].campaign()
            group.run("b")
            group.stabilize("b", "c")
            assert not group["b"].is_leader
            for name in "abc":
                group.tick(name)


def test_a_lease_of_a_leader_that_hands_over_is_void() -> None:
    """Thesis, section 6.4.1: the successor need not wait."""
    group = led()
    group.beat("a")
    group["a"].transfer_leadership("b")
    assert not reads.lease_valid(group["a"])


def test_a_hand_over_that_was_given_up_voids_leases_for_the_rest_of_the_term() -> None:
    """The word to take over may still be under way, and its candidate is granted at once."""
    group = led()
    group.beat("a")
    group["a"].transfer_leadership("b")
    group.run("a")
    late = [m for m in group.wire if isinstance(m, TimeoutNow)]
    group.wire.clear()
    for _ in range(TIMEOUT + 2):
        group.beat("a")
    assert group["a"].transfer_target is None
    assert group["a"].is_leader
    group.cut = {"a"}
    for message in late:
        group.step(message)
    group.stabilize("b", "c")
    assert group["b"].is_leader
    assert not reads.lease_valid(group["a"]), "a stale read was possible"
