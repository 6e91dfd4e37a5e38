"""Every known bug is found: by the test that is named beside it, and some by the simulator too."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.sim.mutants import Effort, judge
from chaos.sim.runner import profile_of, run_seed
from tests.consensus.raft.mutants import MUTANTS, Mutant, found_by_test

SIMULATED = (
    "acknowledges entries before they are synced",
    "a heartbeat commits beyond what is known to match",
    "a repeated forward is appended twice",
    "votes twice in a term",
    "a vote alone is not synced",
    "the log is not synced",
    "the driver says what it must sync first",
    "damage is cut as if it were torn",
)
"""Mutants that the simulator must find as well; by hand it is let loose on all of them."""

SEEDS_MAX = 30
SECONDS = 20.0


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_test_named_beside_it_finds_it(mutant: Mutant, tmp_path: Path) -> None:
    assert found_by_test(mutant, tmp_path), f"{mutant.killer} passes although: {mutant.name}"


@pytest.mark.parametrize("name", SIMULATED)
def test_the_simulator_finds_it_too(name: str) -> None:
    row = judge(name, Effort(SEEDS_MAX, SECONDS, states=0, tests=False))
    assert row.simulated, f"not within {SEEDS_MAX} seeds"
    print(f"found after {row.seeds} seeds: {row.simulated}")
    seed = row.seeds - 1  # and there is nothing to be found there without the bug
    assert run_seed(seed, SECONDS, profile=profile_of(seed)).error == ""


def test_the_command_says_what_finds_a_bug(tmp_path: Path) -> None:
    arguments = ["mutants", "votes twice in a term", "--seeds", "0", "--states", "3000"]
    out = tmp_path / "table.md"
    result = CliRunner().invoke(main, [*arguments, "--jobs", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "votes twice in a term: test raft.test_election:test_at_most_one_vote" in result.output
    assert "1 by the search of small worlds" in result.output
    assert "| votes twice in a term | `handle_request_vote` |" in out.read_text()


def test_the_command_says_that_a_bug_survives_what_it_was_allowed_to_do() -> None:
    arguments = ["mutants", "votes twice", "--seeds", "0", "--states", "0", "--no-tests"]
    result = CliRunner().invoke(main, [*arguments, "--jobs", "1"])
    assert result.exit_code == 1 and "votes twice in a term: SURVIVED" in result.output
    result = CliRunner().invoke(main, ["mutants", "no such bug"])
    assert result.exit_code == 2 and "no mutant has a name with no such bug" in result.output


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30


def test_the_command_shrinks_what_the_simulator_finds(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    arguments = ["mutants", "--shrink", "--seeds", "8", "--seconds", "10", "--jobs", "1"]
    result = CliRunner().invoke(main, [*arguments, "votes twice in a term", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "1 of 1 shrank to little; 0 were not found" in result.output
    assert "| votes twice in a term |" in out.read_text()
    arguments[3] = "0"
    result = CliRunner().invoke(main, [*arguments, "votes twice in a term"])
    assert result.exit_code == 1, "nothing was shown"
    result = CliRunner().invoke(main, [*arguments, "--states", "1"])
    assert result.exit_code == 2 and "--states does not go with --shrink" in result.output
    result = CliRunner().invoke(main, ["mutants", "--replayed", "--shrink"])
    assert result.exit_code == 2 and "--shrink does not go with --replayed" in result.output
