"""Configurations are values, and every way from one to another keeps majorities overlapping."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consensus.raft.configuration import Configuration, InvalidChange

NODES = "abcdef"
some_nodes = st.sets(st.sampled_from(NODES))
some_voters = st.sets(st.sampled_from(NODES), min_size=1)


@st.composite
def plain_configurations(draw: st.DrawFn) -> Configuration:
    voters = draw(some_voters)
    return Configuration.of(voters, draw(some_nodes) - voters)


def least_quorums(configuration: Configuration) -> list[set[str]]:
    def least(nodes: tuple[str, ...]) -> list[set[str]]:
        return [set(c) for c in combinations(nodes, len(nodes) // 2 + 1)] if nodes else [set()]

    return [
        one | other
        for one in least(configuration.voters)
        for other in least(configuration.voters_outgoing)
    ]


@example(Configuration.of("abc"), set("abd"), set())
@given(plain_configurations(), some_voters, some_nodes)
def test_each_step_of_a_change_overlaps_the_one_before(
    old: Configuration, voters: set[str], learners: set[str]
) -> None:
    """Section 4.1 for one server, 4.3 for many: no two disjoint quorums at any step."""
    steps = [old, old.change(voters, learners - voters)]
    if steps[-1].joint:
        steps.append(steps[-1].leave_joint())
    for before, after in pairwise(steps):
        assert all(one & other for one in least_quorums(before) for other in least_quorums(after))
    assert set(steps[-1].voters) == voters
    assert set(steps[-1].learners) == learners - voters
    assert set(steps[-1].removed) == set(old.members) - voters - learners


@given(plain_configurations(), some_voters, some_nodes)
def test_only_a_change_of_one_voter_goes_without_a_joint_step(
    old: Configuration, voters: set[str], learners: set[str]
) -> None:
    change = old.change(voters, learners - voters)
    assert change.joint == (len(set(old.voters) ^ voters) > 1)
    if change.joint:
        assert change.voters_outgoing == old.voters
        # Who will be a learner and votes yet is no learner yet: nobody is both at once.
        assert not set(change.learners) & set(change.all_voters)
        with pytest.raises(InvalidChange, match="already under way"):
            change.change(voters)


@given(plain_configurations(), some_voters, some_nodes)
def test_everybody_concerned_receives_the_log_during_a_change(
    old: Configuration, voters: set[str], learners: set[str]
) -> None:
    change = old.change(voters, learners - voters)
    assert voters | learners <= set(change.members)
    if change.joint:
        assert set(old.voters) <= set(change.members)


@given(plain_configurations(), some_voters, some_nodes)
def test_the_encoding_is_one_for_one(
    old: Configuration, voters: set[str], learners: set[str]
) -> None:
    change = old.change(voters, learners - voters)
    for configuration in (old, change):
        assert Configuration.decode(configuration.encode()) == configuration
        assert Configuration.decode(configuration.encode()).encode() == configuration.encode()


def test_a_change_that_makes_no_sense_is_refused_with_the_reason() -> None:
    old = Configuration.of("abc", "d")
    with pytest.raises(InvalidChange, match="at least one voter"):
        old.change([])
    with pytest.raises(InvalidChange, match="both voter and learner: a, d"):
        old.change("abd", "ad")


def test_the_order_of_names_does_not_matter() -> None:
    assert Configuration.of("cba", "ed") == Configuration.of("abc", "de")
