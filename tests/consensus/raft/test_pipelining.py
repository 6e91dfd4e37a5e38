"""Many messages in flight, and what goes together in one: the thesis's 10.2.1."""

from __future__ import annotations

import random

import pytest

from consensus.raft.configuration import Configuration
from consensus.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Propose,
    ProposeRejected,
)
from tests.consensus.raft.group import Group, between, follower, of_kind

ABC = Configuration.of("abc")


# -- what goes together ---------------------------------------------------------------------------


def test_what_comes_up_before_a_ready_goes_in_one_message() -> None:
    """Entries of several callers, and the news of a commit."""
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x")
    group.deliver(between("a", "b"))
    (answer,) = [m for m in group.wire if m.sender == "b"]
    group.wire.clear()
    core = group["a"]
    core.propose([b"y"])
    core.step(answer)
    core.propose([b"z"])
    group.run("a")
    to_b = [m for m in group.wire if isinstance(m, AppendEntries) and m.receiver == "b"]
    assert [[entry.data for entry in m.entries] for m in to_b] == [[b"y", b"z"]]
    assert to_b[0].leader_commit == 2


def test_a_commit_that_is_all_the_news_is_told_at_once_and_not_answered() -> None:
    """Followers answer their own callers once they hear of it; the leader learns nothing new."""
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x")
    group.deliver(between("a"))
    group.deliver()
    told = [m for m in group.wire if isinstance(m, AppendEntries)]
    assert [(m.receiver, m.leader_commit, m.quiet) for m in told] == [
        ("b", 2, True),
        ("c", 2, True),
    ]
    group.deliver(of_kind(AppendEntries))
    assert not group.wire
    assert group["b"].commit_index == group["c"].commit_index == 2


@pytest.mark.parametrize("commit", [0, 1, 2])
def test_news_of_a_commit_that_does_not_fit_the_log_is_refused(commit: int) -> None:
    """The leader must learn that entries were lost on the way, also from this message."""
    group = follower(3, 3)
    group.step(
        AppendEntries(
            sender="a",
            receiver="b",
            term=3,
            prev_log_index=4,
            prev_log_term=3,
            entries=(),
            leader_commit=commit,
            quiet=True,
        )
    )
    (answer,) = group.wire
    assert isinstance(answer, AppendEntriesResponse)
    assert not answer.success
    assert group["b"].commit_index == 0


def test_a_member_whose_news_of_a_commit_was_lost_hears_it_with_a_heartbeat() -> None:
    """The message is sent once: nothing waits for its answer."""
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x")
    group.deliver(between("a"))
    group.deliver()
    group.drop(of_kind(AppendEntries))
    assert group["b"].commit_index < 2
    group.beat("a")
    group.stabilize()
    assert group["b"].commit_index == group["c"].commit_index == 2


# -- pipelining -----------------------------------------------------------------------------------


def test_messages_in_flight_are_bounded_and_resume_with_acknowledgements() -> None:
    """Thesis, section 10.2.1, pipelining; the bounds of ``CoreConfig``."""
    settings = {"message_bytes_max": 1, "inflight_messages_max": 4}
    group = Group("abc", settings=settings)
    group.elect("a")
    for number in range(10):
        group.propose("a", str(number))
    to_b = [m for m in group.wire if isinstance(m, AppendEntries) and m.receiver == "b"]
    assert len(to_b) == 4
    group.stabilize()
    assert group.members["b"].commands == [str(number) for number in range(10)]


@pytest.mark.parametrize("bound", ["messages", "bytes"])
def test_a_whole_window_that_is_lost_is_sent_again(bound: str) -> None:
    """Whichever bound pauses a member, a heartbeat's answer must get things going again."""
    settings = {"message_bytes_max": 10, "inflight_messages_max": 2, "inflight_bytes_max": 1 << 20}
    if bound == "bytes":
        settings = {"message_bytes_max": 10, "inflight_bytes_max": 20}
    group = Group("abc", settings=settings)
    group.elect("a")
    for _ in range(4):
        group.propose("a", "x" * 10)
    group.drop()
    for _ in range(6):
        group.beat("a")
    assert all(len(group.members[name].commands) == 4 for name in "abc")


def test_every_kind_of_loss_and_order_leads_to_one_log_in_the_end() -> None:
    """Links may lose, repeat and reorder; after they stop, all members hold the same."""
    for seed in range(15):
        prng = random.Random(seed)
        group = Group("abc", seed=seed, settings={"message_bytes_max": 20})
        group.elect("a")
        for number in range(120):
            if group["a"].is_leader:
                group.propose("a", f"{seed}-{number}")
            group.tick("a")
            messages = list(group.wire)
            prng.shuffle(messages)
            group.wire.clear()
            for message in messages:
                for _ in range(prng.choice((0, 1, 1, 1, 2))):
                    group.step(message)
        for _ in range(5):
            group.beat("a")
        assert group["a"].is_leader
        applied = group.members["a"].commands
        assert len(applied) == 120
        assert all(group.members[name].commands == applied for name in "bc")


# -- forwarding -----------------------------------------------------------------------------------


def test_a_repeated_propose_is_appended_once() -> None:
    """A copy on the wire must not apply a command twice."""
    group = Group("abc")
    group.elect("a")
    assert group["b"].forward(1, [b"x"])
    group.run("b")
    (message,) = [m for m in group.wire if isinstance(m, Propose)]
    for _ in range(3):
        group.step(message)
    group.stabilize()
    assert group.members["c"].commands == ["x"]


def test_a_propose_of_an_older_term_is_not_appended() -> None:
    """Its sender was told that nobody can tell, when it saw the newer term."""
    group = Group("abc")
    group.elect("a")
    group["b"].forward(1, [b"x"])
    group.run("b")
    (message,) = [m for m in group.wire if isinstance(m, Propose)]
    group.wire.clear()
    group.elect("c")
    group.elect("a")
    group.step(message)
    group.stabilize()
    assert group.members["a"].commands == []


def test_a_refused_propose_is_refused_once_and_never_appended_later() -> None:
    group = Group("abc", settings={"uncommitted_bytes_max": 4})
    group.elect("a")
    group.propose("a", "full")
    group["b"].forward(7, [b"x"])
    group.run("b")
    (message,) = [m for m in group.wire if isinstance(m, Propose)]
    group.step(message)
    group.stabilize()
    assert group.members["b"].rejected == [7]
    assert not [m for m in group.wire if isinstance(m, ProposeRejected)]
    group.step(message)  # a copy that was slow: there is room now
    group.stabilize()
    assert group.members["c"].commands == ["full"]


def test_nothing_is_forwarded_where_no_leader_is_known() -> None:
    group = Group("abc")
    assert not group["b"].forward(1, [b"x"])
    group.run()
    assert not group.wire
