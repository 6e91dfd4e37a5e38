"""Elections: the paper's section 5.2 and 5.4.1, the thesis's 4.2.3 and 9.6."""

from __future__ import annotations

import random

import pytest

from consensus.raft import reads
from consensus.raft.configuration import Configuration
from consensus.raft.messages import (
    AnyMessage,
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from consensus.raft.ready import HardState
from consensus.types import Role
from tests.consensus.raft.group import Group, between, entries_of, of_kind

TIMEOUT = 10
"""``CoreConfig.election_timeout_ticks`` as it is by default."""


def impatient(group: Group, *names: str) -> None:
    """Let members have heard from no leader for a whole election timeout."""
    for name in names or tuple(group.members):
        core = group[name]
        core.now_ticks = max(core.now_ticks, TIMEOUT)
        core.election_elapsed = TIMEOUT


def test_a_member_starts_as_a_follower() -> None:
    """Paper, section 5.2."""
    group = Group("abc")
    assert all(group[name].role is Role.FOLLOWER for name in "abc")


def test_a_follower_campaigns_between_one_and_two_timeouts_after_it_heard_a_leader() -> None:
    """Paper, section 5.2: timeouts are random, so that votes are rarely split."""
    waited = set()
    for seed in range(200):
        group = Group("abc", seed=seed)
        while group["a"].role is Role.FOLLOWER:
            group.tick("a")
        waited.add(group["a"].now_ticks)
    assert waited == set(range(TIMEOUT, 2 * TIMEOUT))


def test_a_heartbeat_keeps_a_follower_from_campaigning() -> None:
    """Paper, section 5.2."""
    group = Group("abc")
    group.elect("a")
    for _ in range(5 * TIMEOUT):
        group.tick("b")
        group.tick("c")
        group.beat("a")
    assert [group[name].role for name in "abc"] == [Role.LEADER, Role.FOLLOWER, Role.FOLLOWER]
    assert {group[name].term for name in "abc"} == {1}


def test_a_candidate_raises_its_term_votes_for_itself_and_asks_all_others() -> None:
    """Paper, section 5.2."""
    group = Group("abc", settings={"pre_vote": False})
    group["a"].campaign()
    group.run()
    assert (group["a"].role, group["a"].term, group["a"].voted_for) == (Role.CANDIDATE, 1, "a")
    assert [(type(m), m.receiver, m.term) for m in group.wire] == [
        (RequestVote, "b", 1),
        (RequestVote, "c", 1),
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_a_candidate_leads_with_the_votes_of_a_majority_and_not_before(size: int) -> None:
    """Paper, section 5.2."""
    names = "abcde"[:size]
    group = Group(names, settings={"pre_vote": False})
    group["a"].campaign()
    group.run()
    for votes, peer in enumerate(names[1:], start=1):
        assert group["a"].is_leader == (votes > size // 2)
        group.deliver(between("a", peer))
        group.deliver(between(peer, "a"))
    assert group["a"].is_leader


def test_a_refusal_by_a_majority_ends_a_candidacy() -> None:
    """Paper, section 5.2."""
    group = Group("abc", settings={"pre_vote": False})
    for name in "bc":
        group.members.pop(name)
        group.add(name, Configuration.of("abc"), entries_of(1), HardState(1))
        impatient(group, name)
    group["a"].campaign()  # term 1: the others are there already, but their logs are longer
    group.run()
    group.stabilize()
    assert group["a"].role is Role.FOLLOWER


def test_at_most_one_vote_in_a_term_first_come_first_served() -> None:
    """Paper, section 5.2. A repeated request of the same candidate is granted again."""
    group = Group("abc", settings={"pre_vote": False})
    for name in "ab":
        group[name].campaign()
        group.run(name)
    to_c = {m.sender: m for m in group.wire if m.receiver == "c"}
    for asking, granted in (("b", True), ("a", False), ("b", True)):
        group.wire.clear()
        group.step(to_c[asking])
        (answer,) = group.wire
        assert isinstance(answer, RequestVoteResponse)
        assert (answer.receiver, answer.granted) == (asking, granted)
    assert group["c"].voted_for == "b"


def test_a_vote_survives_a_restart() -> None:
    """Paper, figure 2: currentTerm and votedFor are on disk before an answer leaves."""
    group = Group("abc", settings={"pre_vote": False})
    for name in "ab":
        group[name].campaign()
        group.run(name)
    group.deliver(between("b", "c"))
    group.restart("c")
    impatient(group, "c")
    group.wire = type(group.wire)(m for m in group.wire if m.receiver == "c" and m.sender == "a")
    group.deliver()
    (answer,) = group.wire
    assert isinstance(answer, RequestVoteResponse)
    assert not answer.granted


def test_no_vote_is_cast_before_it_is_on_disk() -> None:
    """Paper, figure 2. Neither another's vote nor a candidate's own."""
    group = Group("abc", settings={"pre_vote": False})
    group.held = {"a", "b"}
    group["a"].campaign()
    group.run()
    assert not group.wire, "a candidate asks for votes once its own is on disk"
    group.persist("a")
    group.deliver(between("a", "b"))
    assert not [m for m in group.wire if m.sender == "b"]
    group.persist("b")
    assert [type(m) for m in group.wire if m.sender == "b"] == [RequestVoteResponse]


@pytest.mark.parametrize("lost", [PreVote, PreVoteResponse, RequestVote, RequestVoteResponse])
def test_votes_are_asked_for_again_where_no_answer_came(lost: type[AnyMessage]) -> None:
    """Paper, section 5.1: or one lost message would cost an election timeout and a term."""
    group = Group("abc")
    group["a"].campaign()
    group.run()
    while not group.drop(of_kind(lost)):
        group.deliver()
    assert not group["a"].is_leader
    group.tick("a", group["a"].config.heartbeat_ticks)
    group.stabilize()
    assert (group["a"].is_leader, group["a"].term) == (True, 1)


def test_who_has_answered_is_not_asked_again() -> None:
    group = Group("abcde", settings={"pre_vote": False})
    group["a"].campaign()
    group.run()
    group.deliver(between("a", "b"))
    group.deliver(between("b", "a"))
    group.wire.clear()
    group.tick("a", group["a"].config.heartbeat_ticks)
    assert [m.receiver for m in group.wire] == ["c", "d", "e"]


def test_nobody_is_asked_again_while_the_candidates_own_vote_is_not_on_disk() -> None:
    """Paper, figure 2; and a disk that stalls gathers no heap of requests."""
    group = Group("abc", settings={"pre_vote": False})
    group.held = {"a"}
    group["a"].campaign()
    group.run()
    group.tick("a", TIMEOUT - 1)
    assert not group.wire
    group.persist("a")
    assert [(type(m), m.receiver) for m in group.wire] == [(RequestVote, "b"), (RequestVote, "c")]


@pytest.mark.parametrize(
    ("candidate", "voter", "granted"),
    [
        ((1, 1), (1, 1), True),
        ((1, 1, 1), (1, 1), True),
        ((1, 1), (1, 1, 1), False),
        ((1, 2), (1, 1, 1), True),
        ((1, 1, 1), (1, 2), False),
        ((), (), True),
        ((), (1,), False),
    ],
)
def test_votes_go_only_to_logs_at_least_as_up_to_date(
    candidate: tuple[int, ...], voter: tuple[int, ...], granted: bool
) -> None:
    """Paper, section 5.4.1; the same holds for pre-votes (thesis, section 9.6)."""
    for pre_vote in (False, True):
        group = Group("c", settings={"pre_vote": pre_vote})
        members = Configuration.of("abc")
        group.add("a", members, entries_of(*candidate), HardState(2))
        group.add("b", members, entries_of(*voter), HardState(2))
        impatient(group, "a", "b")
        group["a"].campaign()
        group.run("a")
        group.deliver(between("a", "b"))
        answer = group.wire[-1]
        assert isinstance(answer, (RequestVoteResponse, PreVoteResponse))
        assert answer.granted == granted


def test_a_candidate_follows_a_leader_of_its_own_term() -> None:
    """Paper, section 5.2."""
    group = Group("abc", settings={"pre_vote": False})
    for name in "ab":
        group[name].campaign()
        group.run(name)
    group.deliver(lambda m: {m.sender, m.receiver} == {"b", "c"})
    group.deliver(lambda m: {m.sender, m.receiver} == {"b", "c"})
    assert group["b"].is_leader
    assert group["a"].role is Role.CANDIDATE
    group.deliver(of_kind(AppendEntries))
    assert (group["a"].role, group["a"].leader) == (Role.FOLLOWER, "b")


def test_whoever_sees_a_newer_term_follows_it() -> None:
    """Paper, section 5.1."""
    group = Group("abc")
    group.elect("a")
    answer = AppendEntriesResponse(sender="b", receiver="a", term=9, success=False)
    group.step(answer)
    assert (group["a"].role, group["a"].term, group["a"].voted_for) == (Role.FOLLOWER, 9, None)


def test_an_old_leader_learns_of_the_newer_term_from_the_answer() -> None:
    """Paper, section 5.1."""
    group = Group("abc")
    group.elect("a")
    group.cut = {"a"}
    group.elect("b")
    group.cut = set()
    assert group["a"].is_leader
    group.beat("a")
    assert group["a"].role is Role.FOLLOWER
    assert group["a"].term == group["b"].term


def test_a_message_of_an_older_term_changes_nothing() -> None:
    """Paper, section 5.1."""
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x")
    old: list[AnyMessage] = [
        AppendEntries(
            sender="b",
            receiver="c",
            term=0,
            prev_log_index=0,
            prev_log_term=0,
            entries=tuple(entries_of(1)),
            leader_commit=1,
        ),
        Heartbeat(sender="b", receiver="c", term=0, leader_commit=5, round=3),
        RequestVoteResponse(sender="b", receiver="c", term=0, granted=True),
    ]
    core = group["c"]
    before = (core.term, core.voted_for, core.leader, core.commit_index, core.log.last_index)
    for message in old:
        group.step(message)
    after = (core.term, core.voted_for, core.leader, core.commit_index, core.log.last_index)
    assert after == before


# -- votes are people, not numbers ----------------------------------------------------------------


def test_a_repeated_vote_counts_once() -> None:
    """A majority is of members: the same answer twice is one vote."""
    group = Group("abcde", settings={"pre_vote": False})
    group["a"].campaign()
    group.run()
    group.deliver(between("a", "b"))
    answers = [m for m in group.wire if isinstance(m, RequestVoteResponse)]
    for _ in range(3):
        group.step(answers[0])
    assert group["a"].role is Role.CANDIDATE


def test_votes_of_strangers_and_learners_do_not_count() -> None:
    """Thesis, section 4.2.1: who is not in the configuration in force has no say."""
    group = Group("abc", "l", outsiders=["stranger"], settings={"pre_vote": False})
    group["a"].campaign()
    group.run()
    for sender in ("l", "stranger"):
        group.step(RequestVoteResponse(sender=sender, receiver="a", term=1, granted=True))
    assert group["a"].role is Role.CANDIDATE


def test_a_vote_of_an_earlier_candidacy_does_not_count() -> None:
    """Paper, section 5.1."""
    group = Group("abc", settings={"pre_vote": False})
    group["a"].campaign()
    group.run()
    group.deliver(between("a", "b"))
    (late,) = [m for m in group.wire if m.sender == "b"]
    group["a"].campaign()
    group.run("a")
    assert group["a"].term == 2
    group.step(late)
    assert group["a"].role is Role.CANDIDATE


# -- pre-vote, and members that are cut off -------------------------------------------------------


def test_pre_votes_raise_no_term_and_cast_no_vote() -> None:
    """Thesis, section 9.6."""
    group = Group("abc")
    impatient(group)
    for name in "ab":
        group[name].campaign()
        group.run(name)
    before = {name: group.members[name].disk.hard_state for name in "abc"}
    assert group.deliver(of_kind(PreVote)) == 4
    assert all(group[name].term == 0 and group[name].voted_for is None for name in "abc")
    assert before == {name: group.members[name].disk.hard_state for name in "abc"}


def test_a_member_that_is_alone_never_raises_its_term() -> None:
    """Thesis, section 9.6."""
    group = Group("abc")
    group.elect("a")
    group.cut = {"c"}
    for _ in range(20 * TIMEOUT):
        group.tick("c")
        group.stabilize()
    assert group["c"].term == 1


@pytest.mark.parametrize("pre_vote", [True, False])
def test_a_cut_off_member_cannot_depose_a_live_leader(pre_vote: bool) -> None:
    """Thesis, section 4.2.3: who hears a leader neither votes nor takes the newer term."""
    group = Group("abc", settings={"pre_vote": pre_vote})
    group.elect("a")
    group.cut = {"c"}
    for _ in range(5 * TIMEOUT):
        group.tick("c")
        group.tick("b")
        group.beat("a")
    group["c"].campaign()
    group.cut = set()
    group.run()
    assert group.deliver(of_kind(PreVote, RequestVote)) >= 2
    group.stabilize("a", "b")
    assert group["a"].is_leader
    assert {group[name].term for name in "ab"} == {1}


def test_a_member_that_hears_only_one_way_gets_no_pre_vote() -> None:
    """Partial cut: c no longer hears the leader, b does. No election may come of it."""
    group = Group("abc")
    group.elect("a")
    for _ in range(6 * TIMEOUT):
        group.tick("b")
        group.tick("c")
        group.tick("a")
        group.drop(lambda m: {m.sender, m.receiver} == {"a", "c"})
        for _ in range(4):
            group.deliver(lambda m: {m.sender, m.receiver} != {"a", "c"})
    assert group["a"].is_leader
    assert {group[name].term for name in "abc"} == {1}


def test_a_leader_that_a_majority_does_not_answer_steps_down() -> None:
    """Thesis, section 6.2, within two election timeouts; with a majority it stays."""
    group = Group("abc")
    group.elect("a")
    group.cut = {"c"}
    for _ in range(4 * TIMEOUT):
        group.beat("a")
    assert group["a"].is_leader
    group.cut = {"b", "c"}
    group.tick("a", 2 * TIMEOUT)
    assert (group["a"].role, group["a"].leader) == (Role.FOLLOWER, None)
    assert group["a"].term == 1, "to step down is not to campaign"


def test_a_leader_whose_disk_stalls_steps_down() -> None:
    """Otherwise it would lead for ever and commit nothing of its own."""
    group = Group("abc")
    group.elect("a")
    group.held = {"a"}
    group.propose("a", "x")
    for _ in range(TIMEOUT + 1):
        group.beat("a")
    assert group["a"].role is Role.FOLLOWER


def test_a_member_that_has_just_restarted_helps_nobody_to_depose_a_leader() -> None:
    """It cannot know whether it had promised a leader its patience (thesis, section 6.4.1)."""
    group = Group("abc", settings={"pre_vote": False})
    group.elect("a")
    group.restart("b")
    group["c"].campaign()
    group.run("c")
    group.deliver(between("c", "b"))
    assert group["b"].term == 1
    group.tick("b", TIMEOUT)
    group["c"].campaign()
    group.run("c")
    group.deliver(between("c", "b"))
    assert group["b"].voted_for == "c"


def test_a_learner_never_campaigns() -> None:
    """Thesis, section 4.2.1."""
    group = Group("abc", "l")
    group.tick("l", 10 * TIMEOUT)
    group["l"].campaign()
    group.run("l")
    assert group["l"].role is Role.FOLLOWER
    assert not group.wire


def test_no_two_leaders_ever_share_a_term() -> None:
    """Paper, figure 3, election safety: 60 seeds of lost, repeated and reordered messages."""
    for seed in range(60):
        prng = random.Random(seed)
        group = Group("abcde", seed=seed, settings={"pre_vote": seed % 2 == 0})
        leaders: dict[int, str] = {}
        for _ in range(250):
            name = prng.choice("abcde")
            group.tick(name, prng.choice((1, 5, 20)))
            if prng.random() < 0.05:
                group.restart(name)
            messages = list(group.wire)
            prng.shuffle(messages)
            group.wire.clear()
            for message in messages:
                if prng.random() < 0.8:
                    group.step(message)
                if prng.random() < 0.1:
                    group.wire.append(message)
            for other in "abcde":
                core = group[other]
                if core.is_leader:
                    assert leaders.setdefault(core.term, other) == other
        assert leaders, "nobody was ever elected: this seed showed nothing"


EARLY = {"early_elections": True}


def test_members_whose_leaders_connection_ended_elect_at_once() -> None:
    """A process that died closes its connections: nobody need wait for a timeout."""
    group = Group("abc", settings=EARLY)
    group.elect("a")
    group.cut = {"a"}
    assert group["b"].leader_gone("a") and group["c"].leader_gone("a")
    group["b"].campaign()
    group.stabilize("b", "c")
    assert group["b"].is_leader and group["b"].term == 2


def test_a_leader_that_a_majority_still_hears_stays() -> None:
    """One connection broke: the pre-vote is refused, and nobody's term grows."""
    group = Group("abc", settings=EARLY)
    group.elect("a")
    assert group["b"].leader_gone("a")
    group["b"].campaign()
    group.stabilize()
    assert group["a"].is_leader and not group["b"].is_leader
    assert {group[name].term for name in "abc"} == {1}
    group.beat("a")
    assert group["b"].leader == "a"


def test_another_members_connection_is_no_news_of_the_leader() -> None:
    group = Group("abc", settings=EARLY)
    group.elect("a")
    assert not group["b"].leader_gone("c")
    assert not group["a"].leader_gone("a")
    assert group["b"].leader == "a"


def test_with_early_elections_there_are_no_leases() -> None:
    """Followers no longer promise to elect nobody for a timeout."""
    group = Group("abc", settings=EARLY)
    group.elect("a")
    group.beat("a")
    assert not reads.lease_valid(group["a"])


def test_without_early_elections_a_broken_connection_changes_nothing() -> None:
    group = Group("abc")
    group.elect("a")
    assert not group["b"].leader_gone("a")
    assert group["b"].leader == "a"
