"""Leadership transfer: the thesis's section 3.10."""

from __future__ import annotations

import pytest

from consensus.errors import BadTransferTarget, NotLeader, ProposalDropped
from consensus.raft.messages import RequestVote, TimeoutNow
from consensus.types import Role
from tests.consensus.raft.group import Group, between, of_kind

TIMEOUT = 10


def led() -> Group:
    group = Group("abc")
    group.elect("a")
    return group


def test_leadership_goes_to_a_member_that_is_up_to_date_at_once() -> None:
    """No waiting for a timeout, and no pre-vote that a live leader would forbid."""
    group = led()
    group["a"].transfer_leadership("b")
    group.run("a")
    group.stabilize()
    assert group["b"].is_leader
    assert group["a"].role is Role.FOLLOWER
    assert group["b"].term == 2


def test_the_successor_is_brought_up_to_date_first() -> None:
    """Thesis, section 3.10, step 2: otherwise it could not win."""
    group = led()
    group.propose("a", "x")
    group.drop(between("a", "b"))
    group["a"].transfer_leadership("b")
    group.run("a")
    assert not [m for m in group.wire if isinstance(m, TimeoutNow)]
    for _ in range(3):
        group.tick("a")
        group.stabilize()
    assert group["b"].is_leader
    assert group.members["c"].commands == ["x"]


def test_no_proposals_while_leadership_is_handed_over() -> None:
    """Thesis, section 3.10, step 1: or the successor might never catch up."""
    group = led()
    group.cut = {"b"}
    group["a"].transfer_leadership("b")
    with pytest.raises(ProposalDropped, match="handed to b"):
        group["a"].propose([b"x"])
    group["c"].forward(4, [b"y"])
    group.run()
    group.stabilize("a", "c")
    assert group.members["c"].rejected == [4]


def test_a_transfer_is_given_up_after_an_election_timeout() -> None:
    """Thesis, section 3.10: the leader then takes proposals again."""
    group = led()
    group.cut = {"b"}
    group["a"].transfer_leadership("b")
    group.run("a")
    for _ in range(TIMEOUT - 1):
        group.beat("a")
        assert group["a"].transfer_target == "b"
    group.beat("a")
    assert group["a"].transfer_target is None
    assert group["a"].is_leader
    group.propose("a", "x")
    group.stabilize("a", "c")
    assert group.members["c"].commands == ["x"]


def test_the_request_says_that_the_leader_wants_it() -> None:
    """Thesis, section 4.2.3: so that voters who hear that leader grant it all the same."""
    group = led()
    group["a"].transfer_leadership("b")
    group.run("a")
    group.deliver(of_kind(TimeoutNow))
    asked = [m for m in group.wire if isinstance(m, RequestVote)]
    assert asked
    assert all(message.transfer for message in asked)


def test_the_successor_asks_again_where_a_vote_was_lost() -> None:
    """Its voters may have no connection to a member that has only just joined."""
    group = led()
    group["a"].transfer_leadership("b")
    group.run("a")
    group.deliver(of_kind(TimeoutNow))
    group.drop(between("b", "a"))
    group.deliver(between("b", "c"))
    group.drop(between("c", "b"))
    assert not group["b"].is_leader
    group.tick("b", group["b"].config.heartbeat_ticks)
    assert [m.transfer for m in group.wire if isinstance(m, RequestVote)] == [True, True]
    group.stabilize()
    assert (group["b"].is_leader, group["b"].term) == (True, 2)


def test_only_a_leader_hands_over_and_only_to_another_voter() -> None:
    group = Group("abc", "l")
    group.elect("a")
    with pytest.raises(NotLeader):
        group["b"].transfer_leadership("c")
    for target in ("a", "l", "nobody"):
        with pytest.raises(BadTransferTarget, match="not another voter"):
            group["a"].transfer_leadership(target)


def test_the_word_to_take_over_is_of_its_term() -> None:
    """One that was slow must not disturb a later leader."""
    group = led()
    group["a"].transfer_leadership("b")
    group.run("a")
    (late,) = [m for m in group.wire if isinstance(m, TimeoutNow)]
    group.wire.clear()
    group.elect("c")
    group.step(late)
    group.stabilize()
    assert group["c"].is_leader


def test_a_learner_ignores_the_word_to_take_over() -> None:
    group = Group("abc", "l")
    group.elect("a")
    group.step(TimeoutNow(sender="a", receiver="l", term=1))
    assert group["l"].role is Role.FOLLOWER
