"""The search of small worlds: it counts states right, finds known bugs, and nothing else."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.sim.exhaustive.node import started
from chaos.sim.exhaustive.search import SCOPES, Scope, Search
from chaos.sim.exhaustive.values import canonical, clone
from consensus.raft.core import Core
from consensus.raft.messages import SnapshotMeta
from consensus.raft.ready import HardState
from tests.chaos.sim.cores import THREE, log_entries
from tests.consensus.raft.mutants import MUTANTS

STATES = 1_500
STATES_WITH_BUG = 40_000


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.name)
def test_the_core_keeps_every_promise_in_a_sample_of_each_world(scope: Scope) -> None:
    found = Search(scope).run(STATES)
    assert found.violation == "" and found.states >= STATES
    assert found.depth >= 10


def test_a_world_in_which_next_to_nothing_may_happen_is_searched_whole() -> None:
    found = Search(Scope(name="one", ticks=1)).run(STATES)
    assert (found.states, found.complete) == (2, True)
    # An election without faults, each vote arriving or not, and every order of it.
    found = Search(Scope(name="election", pre_vote=False, terms=1, ticks=2)).run(STATES)
    assert found.complete and found.violation == ""
    again = Search(Scope(name="election", pre_vote=False, terms=1, ticks=2)).run(STATES)
    assert (again.states, again.transitions) == (found.states, found.transitions)


@pytest.mark.parametrize(
    ("mutant", "scope", "text"),
    [
        ("acknowledges entries before they are synced", "replication", "not on its disk"),
        ("tells a vote before it is on disk", "votes", "its disk says"),
        ("truncates on a matching append", "replication", "is committed and on"),
        ("votes twice in a term", "votes", "votes for|voted in term|election safety"),
        ("a vote alone is not synced", "votes", "its disk says"),
    ],
)
def test_a_known_bug_is_found_with_the_way_to_it(mutant: str, scope: str, text: str) -> None:
    (chosen,) = [each for each in MUTANTS if each.name == mutant]
    (world,) = [each for each in SCOPES if each.name == scope]
    with pytest.MonkeyPatch.context() as patch:
        chosen.apply(patch)
        found = Search(world).run(STATES_WITH_BUG)
    assert found.violation and found.path
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(found.violation)


def test_a_copy_of_a_core_is_equal_and_apart() -> None:
    disk = (HardState(2, "n2", 1), tuple(log_entries((1, 1, 2))))
    core = started("n1", SnapshotMeta(0, 0, THREE), disk, pre_vote=True).core
    copy = clone(core)
    assert isinstance(copy, Core) and canonical(copy) == canonical(core)
    copy.truncate(2)
    assert core.log.last_index == 3
    assert canonical(copy) != canonical(core)


def test_what_cannot_be_told_apart_has_one_form() -> None:
    assert canonical({"b": 1, "a": [2]}) == canonical({"a": [2], "b": 1})
    assert canonical({3, 1, 2}) == canonical({2, 1, 3})
    assert canonical([1, 2]) != canonical([2, 1])


def test_the_command_says_what_it_looked_at() -> None:
    result = CliRunner().invoke(
        main, ["explore", "--states", "400", "--jobs", "1", "--scope", "votes"]
    )
    assert result.exit_code == 0, result.output
    assert "votes: " in result.output and "verdict ok" in result.output


def test_the_command_tells_the_way_to_a_violation() -> None:
    (chosen,) = [each for each in MUTANTS if each.name == "tells a vote before it is on disk"]
    arguments = ["explore", "--states", "4000", "--jobs", "1", "--scope", "votes"]
    with pytest.MonkeyPatch.context() as patch:
        chosen.apply(patch)
        result = CliRunner().invoke(main, arguments)
        document = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert result.exit_code == 1 and "verdict violated" in result.output
    assert "violated: " in result.output and "  1 n" in result.output
    assert document["verdict"] == "violated" and document["scopes"][0]["path"]
