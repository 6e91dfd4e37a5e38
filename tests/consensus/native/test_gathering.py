"""What a leader holds back while a round is under way, and when it lets go."""

from __future__ import annotations

import pytest

from consensus.engines.native.batches import encode_batch
from consensus.engines.native.gathering import GATHERED_BYTES_MAX, GATHERED_MAX
from consensus.errors import NotLeader
from consensus.raft.configuration import Configuration
from consensus.raft.messages import (
    AnyMessage,
    AppendEntries,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    Propose,
    ProposeRejected,
)
from consensus.types import RemoveMember
from tests.consensus.native.member import Member, acknowledge, leader, propose
from tests.consensus.native.member import proposal as numbered


def forwarded(request: int, *sequences: int, term: int = 1, text: str = "") -> Propose:
    """What "a" forwards to the leader."""
    commands = tuple(encode_batch([numbered(sequence, text)]) for sequence in sequences)
    return Propose(sender="a", receiver="b", term=term, request=request, commands=commands)


def appended(messages: list[AnyMessage], to: str = "a") -> list[int]:
    """How many entries each message to a member carries."""
    return [
        len(message.entries)
        for message in messages
        if isinstance(message, AppendEntries) and message.receiver == to
    ]


def in_log(member: Member) -> int:
    """Commands in the leader's log."""
    log = member.driver.core.log
    entries = log.slice(log.snapshot.index + 1, log.last_index + 1)
    return sum(entry.kind is EntryKind.COMMAND for entry in entries)


def test_nothing_waits_where_nothing_is_under_way() -> None:
    member = leader()
    propose(member, 1)
    assert in_log(member) == 1
    assert not member.driver.holds_proposals


def test_what_one_turn_brings_goes_in_one_message() -> None:
    member = leader()
    member.sent.clear()
    member.driver.propose([numbered(1)])
    member.driver.receive(forwarded(1, 2))
    member.driver.receive(forwarded(2, 3))
    member.driver.pump()
    assert appended(member.sent) == [3]


def test_a_group_of_one_writes_what_one_turn_brings_at_once() -> None:
    member = Member("b", bootstrap=Configuration.of("b"))
    member.driver.core.campaign()
    member.driver.pump()
    before = len(member.log_files.operations)
    for number in (1, 2, 3):
        member.driver.propose([numbered(number)])
    member.driver.pump()
    syncs = [o for o in member.log_files.operations[before:] if o.kind == "sync"]
    assert len(syncs) == 1
    assert member.host.commands == ["c1", "c2", "c3"]


def test_what_comes_while_a_round_is_under_way_goes_in_one_message_after_it() -> None:
    member = leader()
    propose(member, 1)
    propose(member, 2)
    member.receive(forwarded(1, 3, 4))
    assert in_log(member) == 1
    assert member.driver.holds_proposals
    member.sent.clear()
    acknowledge(member)
    assert member.host.commands == ["c1"]
    assert appended(member.sent) == [3]  # with the news that the first one is committed
    acknowledge(member)
    assert member.host.commands == ["c1", "c2", "c3", "c4"]
    assert not member.driver.holds_proposals


def test_the_host_may_let_go_before_the_round_has_ended() -> None:
    member = leader()
    propose(member, 1)
    propose(member, 2)
    member.driver.release_proposals()
    member.driver.pump()
    assert in_log(member) == 2
    assert member.host.commands == []


def test_what_this_node_proposed_meanwhile_goes_in_one_entry() -> None:
    member = leader()
    propose(member, 1)
    for number in (2, 3):
        propose(member, number)
    member.receive(forwarded(1, 4))
    propose(member, 5)
    member.sent.clear()
    acknowledge(member)
    assert appended(member.sent) == [3]
    acknowledge(member)
    assert member.host.commands == ["c1", "c2", "c3", "c4", "c5"]


def test_a_tick_lets_go() -> None:
    member = leader()
    propose(member, 1)
    propose(member, 2)
    member.driver.tick()
    member.driver.pump()
    assert in_log(member) == 2


@pytest.mark.parametrize("text", ["", "x" * (GATHERED_BYTES_MAX // 8)])
def test_no_more_than_its_bounds_is_held_back(text: str) -> None:
    member = leader()
    propose(member, 1)
    for number in range(GATHERED_MAX + 1):
        member.receive(forwarded(number, 2 + number, text=text))
        held = 1 + number - (in_log(member) - 1)
        assert held <= GATHERED_MAX
        assert held * len(text) < GATHERED_BYTES_MAX
    assert in_log(member) > 1


def test_a_leader_that_is_deposed_passes_on_its_own_and_forgets_what_was_forwarded() -> None:
    """Only who leads the term that a command was sent in may append it."""
    member = leader()
    propose(member, 1)
    propose(member, 2)
    member.receive(forwarded(1, 3))
    sent = member.receive(
        Heartbeat(sender="c", receiver="b", term=2, leader_commit=0, round=1),
    )
    (passed_on,) = [message for message in sent if isinstance(message, Propose)]
    assert passed_on.receiver == "c"
    assert passed_on.commands == (encode_batch([numbered(2)]),)
    assert in_log(member) == 1
    assert not member.driver.holds_proposals


def test_a_leader_that_loses_its_majority_says_that_its_own_were_not_appended() -> None:
    member = leader()
    propose(member, 1)
    propose(member, 2)
    core = member.driver.core
    core.become_follower(core.term, None)
    member.driver.pump()
    assert isinstance(member.host.outcomes[2], NotLeader)
    assert 1 not in member.host.outcomes  # it is in the log: nobody can tell yet


def test_what_was_forwarded_twice_is_appended_once() -> None:
    member = leader()
    propose(member, 1)
    member.receive(forwarded(7, 2))
    member.receive(forwarded(7, 2))
    acknowledge(member)
    acknowledge(member)
    assert member.host.commands == ["c1", "c2"]


def test_what_came_before_a_hand_over_is_appended_before_it() -> None:
    member = leader()
    propose(member, 1)
    propose(member, 2)
    member.receive(forwarded(1, 3))
    member.driver.transfer_leadership("a")
    member.driver.pump()
    assert in_log(member) == 3
    assert member.host.outcomes == {}


def test_what_came_before_a_change_of_members_is_appended_before_it() -> None:
    member = leader()
    hear_all(member)
    propose(member, 1)
    member.receive(forwarded(1, 2))
    member.driver.change_members([RemoveMember("a")])
    member.driver.pump()
    assert in_log(member) == 2


def test_a_leader_that_goes_refuses_at_once() -> None:
    """Once it is gone nobody may say for it that a command was not appended."""
    member = leader()
    hear_all(member)
    member.driver.change_members([RemoveMember("b")])
    member.driver.pump()
    said = member.receive(forwarded(1, 2))
    assert [message.request for message in said if isinstance(message, ProposeRejected)] == [1]


def hear_all(member: Member) -> None:
    """The leader has heard of everyone lately, as changes of members need it."""
    for peer in "ac":
        member.receive(HeartbeatResponse(sender=peer, receiver="b", term=1, round=0))
