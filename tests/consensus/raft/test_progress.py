"""What a leader believes of a member, under any order of answers; and proposals seen before."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consensus.raft import proposals
from consensus.raft.progress import Progress, ProgressState
from consensus.raft.proposals import SeenProposals

MESSAGES_MAX = 3
BYTES_MAX = 100


class ProgressRules(RuleBasedStateMachine):
    """Send, acknowledge, refuse and snapshot at random, repeats and stale answers included."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress(10, MESSAGES_MAX, BYTES_MAX)
        self.highest_match = 0
        self.flying: list[tuple[int, int]] = []

    @precondition(lambda self: not self.progress.paused)
    @rule(count=st.integers(1, 5), size=st.integers(1, 60))
    def send(self, count: int, size: int) -> None:
        streaming = self.progress.state is ProgressState.REPLICATE
        last = self.progress.next_index + count - 1
        self.progress.sent(last, size)
        if streaming:
            self.flying.append((last, size))
            assert self.progress.next_index == last + 1
        else:
            assert self.progress.paused, "one message at a time while the logs are compared"

    @rule(index=st.integers(0, 40))
    def acknowledge(self, index: int) -> None:
        news = self.progress.matched(index)
        assert news == (index > self.highest_match)
        self.highest_match = max(self.highest_match, index)
        while self.flying and self.flying[0][0] <= index:
            self.flying.pop(0)
        if self.progress.state is ProgressState.PROBE and news:
            self.progress.become_replicate()
            self.flying.clear()

    @rule(rejected=st.integers(0, 40), back_to=st.integers(0, 40))
    def refuse(self, rejected: int, back_to: int) -> None:
        before = (self.progress.state, self.progress.next_index)
        if self.progress.rejected(rejected, back_to):
            assert self.progress.state is ProgressState.PROBE
            assert self.progress.next_index <= before[1]
            assert not self.progress.paused
            if before[0] is ProgressState.REPLICATE:
                self.flying.clear()
        else:
            assert (self.progress.state, self.progress.next_index) == before

    @precondition(lambda self: self.progress.state is not ProgressState.SNAPSHOT)
    @rule(ahead=st.integers(0, 10))
    def snapshot(self, ahead: int) -> None:
        self.progress.become_snapshot(self.progress.next_index + ahead)
        self.flying.clear()
        assert self.progress.paused

    @precondition(lambda self: self.progress.state is ProgressState.SNAPSHOT)
    @rule(arrived=st.booleans())
    def snapshot_ends(self, arrived: bool) -> None:
        if not arrived:
            self.progress.snapshot_index = 0
        expected = max(self.progress.match_index, self.progress.snapshot_index) + 1
        self.progress.become_probe()
        assert self.progress.next_index == expected

    @rule()
    def heartbeat_answered(self) -> None:
        full = self.progress.state is ProgressState.REPLICATE and self.progress.paused
        self.progress.heard()
        if full:
            self.flying.pop(0)

    @invariant()
    def bounded(self) -> None:
        progress = self.progress
        assert progress.match_index == self.highest_match, "match never goes back"
        assert progress.match_index < progress.next_index
        if progress.state is ProgressState.REPLICATE:
            full = len(self.flying) >= MESSAGES_MAX or sum(s for _, s in self.flying) >= BYTES_MAX
            assert progress.paused == full


TestProgressRules = ProgressRules.TestCase
TestProgressRules.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_full_window_of_lost_bytes_opens_again_at_the_next_heartbeat() -> None:
    """The byte bound pauses like the message bound; nothing lost may pause a member for ever."""
    progress = Progress(1, inflight_messages_max=64, inflight_bytes_max=100)
    progress.become_replicate()
    progress.sent(1, 100)
    assert progress.paused
    progress.heard()
    assert not progress.paused


def test_a_stale_refusal_does_not_move_next_index_back() -> None:
    progress = Progress(1, MESSAGES_MAX, BYTES_MAX)
    progress.become_replicate()
    progress.sent(9, 1)
    progress.matched(9)
    assert not progress.rejected(4, 2)
    assert progress.next_index == 10


def test_a_probe_listens_only_to_the_refusal_of_what_it_sent() -> None:
    progress = Progress(8, MESSAGES_MAX, BYTES_MAX)
    assert not progress.rejected(5, 2), "it asked about index 7"
    assert progress.rejected(7, 2)
    assert progress.next_index == 3


# -- forwarded proposals --------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=80), st.integers(1, 8)
)
def test_a_forwarded_proposal_is_new_at_most_once(
    arrivals: list[tuple[str, int]], remembered: int
) -> None:
    seen = SeenProposals()
    accepted: set[tuple[str, int]] = set()
    newest: dict[str, list[int]] = {"a": [], "b": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposals, "REMEMBERED_MAX", remembered)
        for sender, request in arrivals:
            new = seen.add(sender, request)
            assert not (new and (sender, request) in accepted), "appended twice"
            if not new and (sender, request) not in accepted:
                # A refusal of what is new must be because it is older than what is remembered.
                assert len(newest[sender]) > remembered
                assert request <= max(newest[sender][:-remembered])
            if new:
                accepted.add((sender, request))
                newest[sender].append(request)


def test_memory_of_forwarded_proposals_is_bounded() -> None:
    seen = SeenProposals()
    for request in range(3 * proposals.REMEMBERED_MAX):
        assert seen.add("a", request)
    assert len(seen._numbers["a"]) == proposals.REMEMBERED_MAX
    assert not seen.add("a", 5), "long forgotten, and so never new again"
