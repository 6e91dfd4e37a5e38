"""The driver between a core and its node: every proposal has one outcome, and the right one."""

from __future__ import annotations

import pytest

from consensus.engines.native.batches import count_of
from consensus.errors import NotLeader, OutcomeUnknown, ProposalDropped, QueueFull
from consensus.raft.configuration import Configuration
from consensus.raft.messages import (
    AppendEntries,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    LogEntry,
    Propose,
    ProposeRejected,
    ReadIndex,
    ReadIndexResponse,
)
from consensus.types import Role
from tests.consensus.native.member import (
    Member,
    acknowledge,
    command,
    leader,
    noop,
    propose,
)


def alone() -> Member:
    member = Member("b", bootstrap=Configuration.of("b"))
    member.driver.core.campaign()
    member.driver.pump()
    assert member.driver.core.is_leader
    return member


def test_a_group_of_one_applies_what_it_proposes() -> None:
    member = alone()
    propose(member, 1, 2)
    propose(member, 3)
    assert member.host.commands == ["c1", "c2", "c3"]
    assert member.host.outcomes == {}


def test_proposals_of_one_turn_share_a_write_and_a_sync() -> None:
    member = alone()
    before = len(member.log_files.operations)
    propose(member, *range(1, 101))
    syncs = [o for o in member.log_files.operations[before:] if o.kind == "sync"]
    assert len(syncs) == 1
    assert len(member.host.commands) == 100


def test_a_proposal_whose_place_went_to_another_entry_was_certainly_dropped() -> None:
    member = leader()
    propose(member, 1)
    place = member.driver.core.log.last_index
    member.append((place - 1, 1), noop(place, 2), term=2, commit=place)
    assert isinstance(member.host.outcomes[1], ProposalDropped)
    assert member.host.commands == []


def test_a_deposed_leaders_proposal_may_still_come() -> None:
    """Nothing is said before its place in the log is decided."""
    member = leader()
    propose(member, 1)
    member.receive(Heartbeat(sender="c", receiver="b", term=2, leader_commit=0, round=1))
    assert member.driver.core.role is Role.FOLLOWER
    assert member.host.outcomes == {}
    place = member.driver.core.log.last_index
    member.append((place, 1), noop(place + 1, 2), term=2, commit=place + 1)
    assert member.host.commands == ["c1"]
    assert member.host.outcomes == {}


def test_nothing_can_be_proposed_where_no_leader_is_known() -> None:
    member = Member("b")
    propose(member, 1)
    assert isinstance(member.host.outcomes[1], NotLeader)


def following() -> Member:
    member = Member("b")
    member.append((0, 0), noop(1, 1), term=1, commit=1)
    return member


def forwarded(member: Member) -> Propose:
    (message,) = [message for message in member.sent if isinstance(message, Propose)]
    return message


def test_a_followers_proposals_go_to_the_leader_once() -> None:
    member = following()
    member.sent.clear()
    propose(member, 1, 2)
    message = forwarded(member)
    assert (message.receiver, sum(map(count_of, message.commands))) == ("a", 2)
    member.append((1, 1), command(2, 1, "c1"), command(3, 1, "c2"), term=1, commit=3)
    assert not [other for other in member.sent if isinstance(other, Propose)]
    assert member.host.commands == ["c1", "c2"]
    assert member.host.outcomes == {}


def test_what_the_leader_refused_was_certainly_dropped() -> None:
    member = following()
    member.sent.clear()
    propose(member, 1)
    request = forwarded(member).request
    member.receive(ProposeRejected(sender="a", receiver="b", term=1, request=request))
    assert isinstance(member.host.outcomes[1], ProposalDropped)


def test_what_a_leader_that_is_gone_did_not_get_through_was_certainly_dropped() -> None:
    """An entry of a later term is applied: nothing that is not before it can come any more."""
    member = following()
    propose(member, 1)
    member.receive(Heartbeat(sender="c", receiver="b", term=2, leader_commit=0, round=1))
    assert member.host.outcomes == {}, "it may be in the new leader's log"
    propose(member, 2)
    member.append((1, 1), noop(2, 2), term=2, commit=2, sender="c")
    assert list(member.host.outcomes) == [1], "what went to the new leader is not meant"
    assert isinstance(member.host.outcomes[1], ProposalDropped)


def test_what_a_leader_that_is_gone_got_through_is_applied() -> None:
    member = following()
    member.sent.clear()
    propose(member, 1)
    (own,) = forwarded(member).commands
    member.append(
        (1, 1),
        LogEntry(2, 1, EntryKind.COMMAND, own),
        noop(3, 2),
        term=2,
        commit=3,
        sender="c",
    )
    assert member.host.outcomes == {}
    assert len(member.host.commands) == 1


def test_what_was_forwarded_and_never_heard_of_again_is_unknown_in_the_end() -> None:
    """The message may be lost while its leader goes on leading."""
    member = following()
    propose(member, 1)
    for number in range(100):
        member.driver.tick()
        member.receive(
            Heartbeat(sender="a", receiver="b", term=1, leader_commit=1, round=number + 1)
        )
        if member.host.outcomes:
            break
    assert isinstance(member.host.outcomes[1], OutcomeUnknown)


def test_a_leader_that_is_full_drops_for_certain() -> None:
    member = leader()
    member.driver.core.uncommitted_bytes = member.driver.core.config.uncommitted_bytes_max
    propose(member, 1)
    assert isinstance(member.host.outcomes[1], QueueFull)


def test_a_read_waits_until_its_index_is_applied() -> None:
    """Thesis, section 6.4, step 4."""
    member = leader()
    propose(member, 1)
    acknowledge(member)
    done: list[int | None] = []
    member.sent.clear()
    member.driver.read_index(done.append)
    member.driver.pump()
    rounds = [message.round for message in member.sent if isinstance(message, Heartbeat)]
    assert done == []
    member.receive(HeartbeatResponse(sender="a", receiver="b", term=1, round=rounds[-1]))
    assert done == [1], "counted in commands, as the node counts"


def test_a_followers_read_waits_for_what_it_has_not_applied_yet() -> None:
    member = following()
    done: list[int | None] = []
    member.sent.clear()
    member.driver.read_index(done.append)
    member.driver.pump()
    (asked,) = [message for message in member.sent if isinstance(message, ReadIndex)]
    member.receive(
        ReadIndexResponse(sender="a", receiver="b", term=1, request=asked.request, index=3)
    )
    assert done == []
    member.append((1, 1), command(2, 1), command(3, 1), term=1, commit=2)
    assert done == []
    member.receive(
        AppendEntries(
            sender="a",
            receiver="b",
            term=1,
            prev_log_index=3,
            prev_log_term=1,
            entries=(),
            leader_commit=3,
        )
    )
    assert done == [2]


def test_a_deposed_leaders_reads_fail() -> None:
    member = leader()
    done: list[int | None] = []
    member.driver.read_index(done.append)
    member.driver.pump()
    member.receive(Heartbeat(sender="c", receiver="b", term=2, leader_commit=0, round=1))
    assert done == [None]


@pytest.mark.parametrize("catch_up", [0, 5])
def test_a_shortened_log_keeps_what_slow_members_may_need(catch_up: int) -> None:
    member = Member("b", bootstrap=Configuration.of("b"), catch_up_entries=catch_up)
    member.driver.core.campaign()
    member.driver.pump()
    for sequence in range(1, 31):
        propose(member, sequence)
    for _ in member.driver.take_snapshot():
        pass
    assert member.driver.core.log.last_index - member.driver.core.log.snapshot.index == catch_up
    again = member.again()
    assert again.host.commands[: 30 - catch_up] == [f"c{n}" for n in range(1, 31 - catch_up)]
    assert len(again.snapshot_files.names()) == 1
