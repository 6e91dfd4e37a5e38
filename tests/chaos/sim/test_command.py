"""``chaos sim``: exit codes, the command that replays, and clear refusals."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

import chaos.sim.runner
from chaos.cli import main
from chaos.sim.invariants import Violation
from chaos.sim.world import World


def sim(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["sim", "--jobs", "1", *arguments])


@pytest.fixture
def violating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make seed 1 break a promise, after it ran."""

    class Broken(World):
        def run(self, seconds: float = 30.0, faulty_s: float | None = None) -> None:
            super().run(seconds, faulty_s)
            if self.seed == 1:
                raise Violation("election safety: [n1] and n2 both led term 3")

    monkeypatch.setattr(chaos.sim.runner, "World", Broken)


def test_seeds_without_a_violation_are_ok() -> None:
    result = sim("--seeds", "3", "--seconds", "10", "--replay", "2")
    assert result.exit_code == 0, result.output
    assert "3 seeds, 0.01 simulated hours" in result.output
    assert "times real time per core" in result.output
    assert "2 seeds replayed in another process: the same" in result.output
    assert "verdict ok" in result.output


def test_a_document_for_programs() -> None:
    document = json.loads(sim("--seeds", "2", "--seconds", "10", "--json").output)
    assert document["verdict"] == "ok" and document["seeds"] == 2
    assert document["times_real_time"] > 0 and document["acknowledged"] > 0


@pytest.mark.usefixtures("violating")
def test_a_violation_names_its_seed_and_the_command_that_replays_it() -> None:
    result = sim("--seeds", "3", "--seconds", "10")
    assert result.exit_code == 1
    assert "election safety: [n1] and n2 both led term 3" in result.output
    assert "replay: chaos sim --seed 1 --seconds 10 --trace" in result.output
    assert "options {" in result.output


@pytest.mark.usefixtures("violating")
def test_a_violation_for_programs() -> None:
    result = sim("--seeds", "3", "--seconds", "10", "--json")
    assert result.exit_code == 1
    (violation,) = json.loads(result.output)["violations"]
    assert violation["seed"] == 1 and "election safety" in violation["error"]


def test_an_unexpected_error_is_a_violation_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: World, seconds: float = 30.0) -> None:
        raise KeyError("n9")

    monkeypatch.setattr(World, "run", broken)
    result = sim("--seed", "1")
    assert result.exit_code == 1
    assert "KeyError: 'n9' (test_command.py:" in result.output
    assert "Traceback" not in result.output


def test_a_trace_tells_what_happened() -> None:
    result = sim("--seed", "2", "--seconds", "10", "--trace")
    assert result.exit_code == 0
    for word in ("AppendEntries", "RequestVote", "applied", "role", "trace hash"):
        assert word in result.output


def test_two_processes_share_the_seeds() -> None:
    result = CliRunner().invoke(
        main, ["sim", "--seeds", "9", "--jobs", "2", "--seconds", "10", "--json"]
    )
    assert json.loads(result.output)["seeds"] == 9


def test_seeds_of_a_commit_go_on_until_the_time_limit() -> None:
    result = sim(
        *("--seeds", "1", "--from-commit", "abc", "--time-limit", "2", "--seconds", "10", "--json")
    )
    assert result.exit_code == 0
    assert json.loads(result.output)["seeds"] > 1


def test_too_little_load_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos.sim.runner, "ACKNOWLEDGED_PER_S_MIN", 1e9)
    result = sim("--seeds", "1", "--seconds", "10")
    assert result.exit_code == 2 and "verdict invalid" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--trace",), "--trace goes with --seed"),
        (("--from-commit", "abc"), "give --time-limit too"),
        (("--seeds", "0"), "runs nothing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: tuple[str, ...], said: str) -> None:
    result = sim(*arguments)
    assert result.exit_code == 2 and said in result.output
