"""Majorities, against twins that try every subset of the voters."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.raft.configuration import Configuration
from consensus.raft.quorum import VoteResult, committed_index, vote_result

NODES = "abcdefg"
voters = st.sets(st.sampled_from(NODES), min_size=1)
configurations = st.builds(
    lambda incoming, outgoing, learners: Configuration(
        voters=tuple(sorted(incoming)),
        voters_outgoing=tuple(sorted(outgoing)),
        learners=tuple(sorted(learners - incoming - outgoing)),
    ),
    voters,
    st.sets(st.sampled_from(NODES)),
    st.sets(st.sampled_from(NODES)),
)


def majorities(nodes: tuple[str, ...]) -> list[set[str]]:
    """Every set of more than half of the nodes. Of no nodes: the empty set is enough."""
    return [
        set(chosen)
        for size in range(len(nodes) + 1)
        for chosen in combinations(nodes, size)
        if 2 * size > len(nodes) or not nodes
    ]


def has_quorum(configuration: Configuration, nodes: set[str]) -> bool:
    """Whether the nodes hold a majority of both halves, found by trying all majorities."""
    return all(
        any(majority <= nodes for majority in majorities(half))
        for half in (configuration.voters, configuration.voters_outgoing)
    )


@given(configurations, st.dictionaries(st.sampled_from(NODES), st.integers(0, 12)))
def test_the_committed_index_is_the_greatest_that_a_quorum_has(
    configuration: Configuration, match_index: dict[str, int]
) -> None:
    slow = max(
        index
        for index in range(13)
        if has_quorum(configuration, {n for n in NODES if match_index.get(n, 0) >= index})
    )
    assert committed_index(configuration, match_index) == slow


@given(configurations, st.dictionaries(st.sampled_from(NODES), st.booleans()))
def test_a_vote_is_won_by_a_quorum_and_lost_once_none_can_form(
    configuration: Configuration, votes: dict[str, bool]
) -> None:
    granted = {node for node, vote in votes.items() if vote}
    not_refused = {node for node in NODES if votes.get(node) is not False}
    if has_quorum(configuration, granted):
        slow = VoteResult.WON
    elif has_quorum(configuration, not_refused):
        slow = VoteResult.PENDING
    else:
        slow = VoteResult.LOST
    assert vote_result(configuration, votes) is slow


@settings(max_examples=30)
@given(configurations)
def test_two_quorums_of_one_configuration_share_a_voter(configuration: Configuration) -> None:
    quorums = [
        one | other
        for one in majorities(configuration.voters)
        for other in majorities(configuration.voters_outgoing)
    ]
    # The smallest ones decide: every other quorum contains one of them.
    least = [quorum for quorum in quorums if not any(other < quorum for other in quorums)]
    assert all(one & other for one in least for other in least)


@given(voters, st.dictionaries(st.sampled_from(NODES), st.integers(0, 12)))
def test_nobody_outside_the_voters_counts(members: set[str], match_index: dict[str, int]) -> None:
    configuration = Configuration.of(members)
    only_voters = {node: index for node, index in match_index.items() if node in members}
    assert committed_index(configuration, match_index) == committed_index(
        configuration, only_voters
    )
