"""Replication and commitment: the paper's sections 5.3 and 5.4.2."""

from __future__ import annotations

import random

import pytest

from consensus.errors import NotLeader, QueueFull
from consensus.raft.configuration import Configuration
from consensus.raft.invariants import InvariantViolated
from consensus.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    EntryKind,
    Heartbeat,
    LogEntry,
)
from consensus.raft.progress import ProgressState
from consensus.raft.ready import HardState
from consensus.types import Role
from tests.consensus.raft.group import Group, between, entries_of, follower, terms_of

ABC = Configuration.of("abc")


def append(
    group: Group, prev: tuple[int, int], *entries: LogEntry, commit: int = 0, term: int = 3
) -> AppendEntriesResponse:
    """Let leader "a" send this to "b", and return the answer."""
    group.wire.clear()
    group.step(
        AppendEntries(
            sender="a",
            receiver="b",
            term=term,
            prev_log_index=prev[0],
            prev_log_term=prev[1],
            entries=entries,
            leader_commit=commit,
        )
    )
    (answer,) = group.wire
    assert isinstance(answer, AppendEntriesResponse)
    return answer


# -- the leader -----------------------------------------------------------------------------------


def test_a_new_leader_begins_its_term_with_an_entry_of_its_own() -> None:
    """Thesis, section 6.4: otherwise it could not know what is committed."""
    group = Group("abc")
    group.elect("a")
    assert [(e.index, e.term, e.kind) for e in group.members["b"].disk.entries] == [
        (1, 1, EntryKind.NOOP)
    ]


def test_a_proposal_reaches_every_machine_in_one_order() -> None:
    """Paper, section 5.3."""
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x", "y")
    group.propose("a", "z")
    group.stabilize()
    assert all(group.members[name].commands == ["x", "y", "z"] for name in "abc")


def test_an_entry_is_committed_once_a_majority_has_it_and_not_before() -> None:
    """Paper, section 5.3."""
    group = Group("abcde")
    group.elect("a")
    group.propose("a", "x")
    for peer in "bc":
        assert group.members["a"].commands == []
        group.deliver(between("a", peer))
        group.deliver(between(peer, "a"))
    assert group.members["a"].commands == ["x"]


def test_the_leader_never_replaces_its_own_entries() -> None:
    """Paper, figure 3, leader append-only."""
    group = Group("abc")
    group.elect("a")
    group.cut = {"a"}
    group.propose("a", *"wxyz")
    before = group["a"].log.slice(1, group["a"].log.last_index + 1)
    with pytest.raises(InvariantViolated, match="two leaders in term 1"):
        group.step(
            AppendEntries(
                sender="b",
                receiver="a",
                term=1,
                prev_log_index=1,
                prev_log_term=1,
                entries=tuple(entries_of(1, first=2)),
                leader_commit=0,
            )
        )
    assert group["a"].log.slice(1, group["a"].log.last_index + 1) == before


def test_only_a_leader_takes_proposals() -> None:
    group = Group("abc")
    group.elect("a")
    with pytest.raises(NotLeader) as refused:
        group["b"].propose([b"x"])
    assert refused.value.leader == "a"


def test_a_leader_refuses_more_than_it_may_hold_uncommitted() -> None:
    group = Group("abc", settings={"uncommitted_bytes_max": 10})
    group.elect("a")
    group.propose("a", "1234567890")
    with pytest.raises(QueueFull, match="10 bytes are not committed"):
        group["a"].propose([b"x"])
    group.stabilize()
    group.propose("a", "a single large one may exceed the bound, or it could never go")
    group.stabilize()
    assert len(group.members["c"].commands) == 2


def figure_8() -> Group:
    """Paper, figure 8 (c): "a" leads term 4, and its entry of term 2 is on "a", "b" and "c"."""
    logs = {"a": (1, 2), "b": (1, 2), "c": (1,), "d": (1,), "e": (1, 3)}
    group = Group((), settings={"message_bytes_max": 1, "pre_vote": False})
    for name, terms in logs.items():
        group.add(name, Configuration.of(logs), entries_of(*terms), HardState(3))
    group.cut = {"e"}
    group.win("a")
    group.cut = {"d", "e"}
    for _ in range(2):
        group.deliver(between("a"))
        group.deliver(between(None, "a"))
    assert terms_of(group["b"]) == [1, 2, 4]
    assert terms_of(group["c"]) == [1, 2]
    return group


def test_a_leader_never_commits_an_older_term_by_counting() -> None:
    """Paper, section 5.4.2, figure 8 (d): the entry of term 2 is on a majority, and is lost."""
    group = figure_8()
    assert group["a"].commit_index == 0
    group.wire.clear()
    group.cut = {"a", "b"}
    group["e"].become_follower(4, None)
    group.elect("e")
    group.stabilize()
    group.cut = set()
    group.beat("e")
    group.beat("e")
    assert all(group.members[name].commands == ["1@1", "2@3"] for name in "abcde")


def test_an_older_term_is_committed_with_the_first_entry_of_the_leaders_own() -> None:
    """Paper, section 5.4.2, figure 8 (e): nobody else can be elected any more."""
    group = figure_8()
    group.stabilize("a", "b", "c")
    assert group["a"].commit_index == 3
    assert group.members["c"].commands == ["1@1", "2@2"]


def test_the_leaders_own_sync_may_come_last() -> None:
    """Thesis, section 10.2.1: the leader counts itself only for what is on its own disk."""
    group = Group("abc")
    group.elect("a")
    group.held = {"a"}
    index = group.propose("a", "x")
    group.deliver(between("a", "b"))
    group.deliver(between("b", "a"))
    assert group["a"].commit_index == index - 1, "only one disk has it"
    group.deliver(between("a", "c"))
    group.deliver(between("c", "a"))
    assert group["a"].commit_index == index, "two others have it"
    assert group.members["a"].commands == [], "no machine leads its own log"
    group.persist("a")
    assert group.members["a"].commands == ["x"]


def test_a_single_member_commits_when_its_disk_has_it() -> None:
    group = Group("a")
    group.elect("a")
    group.held = {"a"}
    index = group.propose("a", "x")
    assert group["a"].commit_index == index - 1
    group.persist("a")
    assert group["a"].commit_index == index


# -- the follower ---------------------------------------------------------------------------------


def test_no_acknowledgement_before_the_entries_are_on_disk() -> None:
    """Paper, section 5.3 and figure 2."""
    group = Group("abc")
    group.elect("a")
    group.held = {"b"}
    group.propose("a", "x")
    group.deliver(between("a", "b"))
    assert not [m for m in group.wire if m.sender == "b"]
    group.restart("b")
    assert terms_of(group["b"]) == [1], "it was never promised"
    group.held = set()
    group.beat("a")
    group.beat("a")
    assert group.members["b"].commands == ["x"]


def test_a_follower_applies_only_what_it_has_synced() -> None:
    group = Group("abc")
    group.elect("a")
    group.held = {"b"}
    group.propose("a", "x")
    group.stabilize()
    group.stabilize()
    assert group["a"].commit_index == group["b"].commit_index == 2
    assert group.members["b"].commands == []
    group.persist("b")
    assert group.members["b"].commands == ["x"]


def test_a_sync_that_ends_late_speaks_only_of_what_was_not_replaced_meanwhile() -> None:
    """The write of entries 2 to 5 is under way when a newer leader replaces them by one."""
    group = Group("c")
    group.add("a", ABC)
    group.add("b", ABC, entries_of(1), HardState(2))
    group.held = {"b"}
    core = group["b"]
    for prev, entries, term in (
        ((1, 1), entries_of(2, 2, 2, 2, first=2), 2),
        ((1, 1), entries_of(3, 3, first=2), 3),
    ):
        group.step(
            AppendEntries(
                sender="a",
                receiver="b",
                term=term,
                prev_log_index=prev[0],
                prev_log_term=prev[1],
                entries=tuple(entries),
                leader_commit=1,
            )
        )
    group.persist("b", 1)
    assert core.log.persisted_index == 1
    assert group.members["b"].commands == ["1@1"]
    group.persist("b")
    assert core.log.persisted_index == 3


def test_entries_are_refused_where_the_one_before_them_is_missing() -> None:
    """Paper, figure 2, AppendEntries rule 2."""
    answer = append(follower(1, 1), (3, 1), *entries_of(1, first=4))
    assert (answer.success, answer.rejected_index) == (False, 3)
    answer = append(follower(1, 1), (2, 2), *entries_of(2, first=3))
    assert (answer.success, answer.rejected_index) == (False, 2)


def test_followers_truncate_only_on_conflict() -> None:
    """Paper, figure 2, rule 3: an old, shorter append that agrees must not shorten the log."""
    group = follower(1, 2, 2, 3)
    answer = append(group, (1, 1), *entries_of(2, first=2))
    assert terms_of(group["b"]) == [1, 2, 2, 3]
    assert answer.match_index == 2, "it vouches only for what the message told"
    append(group, (1, 1))
    assert terms_of(group["b"]) == [1, 2, 2, 3]


def test_a_conflict_drops_that_entry_and_all_after_it() -> None:
    """Paper, figure 2, rules 3 and 4; figure 7 (f)."""
    group = follower(1, 1, 1, 2, 2, 2)
    answer = append(group, (3, 1), *entries_of(3, 3, first=4))
    assert terms_of(group["b"]) == [1, 1, 1, 3, 3]
    assert answer.match_index == 5
    assert [entry.term for entry in group.members["b"].disk.entries] == [1, 1, 1, 3, 3]


def test_a_repeated_append_changes_nothing() -> None:
    """Paper, section 5.3: AppendEntries is idempotent."""
    group = follower(1)
    for _ in range(3):
        answer = append(group, (1, 1), *entries_of(3, 3, first=2), commit=1)
        assert (answer.success, answer.match_index) == (True, 3)
        assert terms_of(group["b"]) == [1, 3, 3]
        assert group["b"].commit_index == 1


def test_an_empty_append_does_not_commit_an_unmatched_tail() -> None:
    """Paper, figure 2, rule 5: min(leaderCommit, index of last *new* entry)."""
    group = follower(1, 2, 2)
    append(group, (1, 1), commit=3)
    assert group["b"].commit_index == 1
    assert group.members["b"].commands == ["1@1"]


def test_a_heartbeat_commits_only_what_the_leader_knows_to_match() -> None:
    """The same for heartbeats, whose sender bounds the commit index for each receiver."""
    group = Group("d")
    for name, terms in (("a", (1, 3)), ("b", (1, 2)), ("c", (1, 3))):
        group.add(name, ABC, entries_of(*terms), HardState(3))
    group.cut = {"b"}
    group.elect("a")
    assert group["a"].commit_index == 3
    group.cut = set()
    group.tick("a")
    group.deliver(lambda m: isinstance(m, Heartbeat) and m.receiver == "b")
    assert terms_of(group["b"])[:2] == [1, 2]
    assert group["b"].commit_index == 0


def test_a_committed_entry_is_never_truncated() -> None:
    """Paper, figure 3, leader completeness. A message that would is answered with the fact."""
    group = follower(1, 2)
    append(group, (2, 2), commit=2)
    answer = append(group, (0, 0), *entries_of(3, 3))
    assert (answer.success, answer.match_index) == (True, 2)
    assert terms_of(group["b"]) == [1, 2]
    with pytest.raises(InvariantViolated, match="would drop entries committed up to 2"):
        group["b"].truncate(1)


def test_the_commit_index_never_goes_back() -> None:
    """Paper, figure 2."""
    group = follower(1, 2)
    append(group, (2, 2), commit=2)
    append(group, (2, 2), commit=1)
    assert group["b"].commit_index == 2
    group.step(Heartbeat(sender="a", receiver="b", term=3, leader_commit=0, round=1))
    assert group["b"].commit_index == 2


# -- repair ---------------------------------------------------------------------------------------


FIGURE_7 = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


@pytest.mark.parametrize("name", sorted(FIGURE_7))
def test_every_follower_of_figure_7_ends_with_the_leaders_log(name: str) -> None:
    """Paper, section 5.3 and figure 7."""
    leader = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
    members = Configuration.of(("leader", "other", name))
    group = Group(())
    group.add("leader", members, entries_of(*leader), HardState(7))
    group.add("other", members, entries_of(*leader), HardState(7))
    group.add(name, members, entries_of(*FIGURE_7[name]), HardState(7))
    group.cut = {name}
    group.elect("leader")
    group.cut = set()
    group.beat("leader")
    group.beat("leader")
    assert terms_of(group[name]) == [*leader, 8]
    assert group.members[name].commands == group.members["leader"].commands


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        pytest.param((2,) * 10_000, (3,) * 10_000, id="one other term"),
        pytest.param(
            tuple(term for term in range(2, 12) for _ in range(1_000)),
            (50,) * 10_000,
            id="ten other terms",
        ),
        pytest.param((), (3,) * 10_000, id="nothing"),
        pytest.param((2,) * 10_000, (), id="too much"),
    ],
)
def test_ten_thousand_divergent_entries_are_repaired_in_three_round_trips(
    theirs: tuple[int, ...], ours: tuple[int, ...]
) -> None:
    """Paper, section 5.3: whole terms are skipped at once, on both sides."""
    common = (1,) * 100
    group = Group(())
    for name, terms in (("a", common + ours), ("b", common + theirs), ("c", common + ours)):
        group.add(name, ABC, entries_of(*terms), HardState(60))
    group.cut = {"b"}
    group.elect("a")
    group.cut = set()
    group["b"].become_follower(group["a"].term, "a")
    group.tick("a")
    for _ in range(3):
        group.deliver(between("a", "b"))
        group.deliver(between("b", "a"))
        if terms_of(group["b"]) == terms_of(group["a"]):
            break
    else:
        pytest.fail("not repaired in three round trips")
    assert group["a"].progress["b"].match_index == group["a"].log.last_index


@pytest.mark.parametrize("seed", range(40))
def test_any_two_logs_become_one(seed: int) -> None:
    """Paper, figure 3, log matching: random logs with a common beginning, bounded messages."""
    prng = random.Random(seed)

    def tail(terms: range) -> tuple[int, ...]:
        return tuple(sorted(prng.choices(terms, k=prng.randrange(30))))

    common = tuple(sorted(prng.choices(range(1, 4), k=prng.randrange(10))))
    group = Group((), settings={"message_bytes_max": prng.choice((1, 20, 10_000))})
    ours = common + tail(range(4, 16, 2))  # a term has one leader: no tail shares one with another
    for name, terms in (("a", ours), ("b", common + tail(range(5, 16, 2))), ("c", ours)):
        group.add(name, ABC, entries_of(*terms), HardState(15))
    group.cut = {"b"}
    group.elect("a")
    group.cut = set()
    group.beat("a")
    group.beat("a")
    assert terms_of(group["b"]) == terms_of(group["a"])
    assert group.members["b"].commands == group.members["a"].commands


def test_stale_rejections_are_ignored() -> None:
    """Reordered and repeated refusals must neither move the leader back nor unsettle it."""
    group = Group("c")
    group.add("a", ABC, entries_of(1, 1, 2), HardState(2))
    group.add("b", ABC, entries_of(1), HardState(2))
    group.elect("a")
    progress = group["a"].progress["b"]
    assert (progress.state, progress.match_index) == (ProgressState.REPLICATE, 4)
    group.propose("a", "x")
    before = progress.next_index
    for rejected in (0, 1, 3, 4):
        group.step(
            AppendEntriesResponse(
                sender="b", receiver="a", term=3, success=False, rejected_index=rejected
            )
        )
        assert (progress.state, progress.next_index) == (ProgressState.REPLICATE, before)


def test_a_late_acknowledgement_does_not_take_back_what_is_known() -> None:
    """R9: a member's match index only grows within a term."""
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x")
    group.propose("a", "y")
    group.stabilize()
    group.step(AppendEntriesResponse(sender="b", receiver="a", term=1, success=True, match_index=1))
    assert group["a"].progress["b"].match_index == 3


def test_a_member_that_acknowledges_more_than_the_leader_has_stops_the_leader() -> None:
    """It cannot be, so somebody's disk or wire lies; going on could commit what is not there."""
    group = Group("abc")
    group.elect("a")
    with pytest.raises(InvariantViolated, match="beyond this leader's log"):
        group.step(
            AppendEntriesResponse(sender="b", receiver="a", term=1, success=True, match_index=99)
        )


# -- restarts -------------------------------------------------------------------------------------


def test_all_members_at_once_lose_nothing_that_was_acknowledged() -> None:
    """Paper, section 5.2 and figure 2: what is promised is on disk."""
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x", "y")
    group.stabilize()
    for name in "abc":
        group.restart(name)
    assert all(group[name].role is Role.FOLLOWER for name in "abc")
    group.elect("b")
    group.beat("b")
    assert all(group.members[name].commands == ["x", "y"] for name in "abc")
