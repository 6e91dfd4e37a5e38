"""Repair of logs far apart, and power lost by everybody at once, again and again."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.sim.options import Options
from chaos.sim.runner import KILL_ALL, Summary, run_seed
from chaos.sim.trace import Trace
from chaos.sim.world import World
from chaos.verdict import Verdict
from consensus.engines.native import batches
from consensus.raft.messages import AnyMessage, AppendEntriesResponse

pytestmark = pytest.mark.timeout(600)
DIVERGENT = 10_000
ROUND_TRIPS_MAX = 3
KILL_ALL_SEEDS = 3


def test_ten_thousand_divergent_entries_are_repaired_in_three_round_trips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(7, Options(uncommitted_bytes_max=10_000_000, snapshot_entries=100_000))
    world.clients.schedule()
    world.advance(3_000_000)
    old = world.leader()
    assert old is not None and old.driver is not None
    others = [name for name in world.members if name != old.name]
    links = [(old.name, name) for name in others] + [(name, old.name) for name in others]
    world.network.cut(links)
    before = old.driver.core.log.last_index
    monkeypatch.setattr(batches, "BATCH_COMMANDS_MAX", 1)
    old.propose([b"d%d" % number for number in range(DIVERGENT)])
    assert old.driver.core.log.last_index == before + DIVERGENT
    world.advance(10_000_000)  # others lead and commit; the old leader has stepped down
    new = world.leader()
    assert new is not None and new is not old and new.driver is not None
    assert old.driver.core.log.last_index >= before + DIVERGENT

    answers: list[bool] = []
    noted = Trace.message

    def note(self: Trace, now: int, message: AnyMessage) -> None:
        if isinstance(message, AppendEntriesResponse) and message.sender == old.name:
            answers.append(message.success)
        noted(self, now, message)

    monkeypatch.setattr(Trace, "message", note)
    world.network.mend(links)
    world.advance(5_000_000)
    assert world.leader() is new
    assert True in answers
    refused = answers.index(True)
    assert refused + 1 <= ROUND_TRIPS_MAX, f"{refused} refusals before the logs agreed"
    assert False not in answers[refused:]
    assert old.driver.core.commit_index >= before
    assert old.driver.core.log.last_term == new.driver.core.term
    assert old.host.commands == new.host.commands[: len(old.host.commands)]
    assert not any(command.startswith(b"d") for command in new.host.commands)


def test_power_lost_by_all_at_once_loses_nothing_that_was_acknowledged() -> None:
    summary = Summary()
    for seed in range(KILL_ALL_SEEDS):
        outcome = run_seed(seed, profile=KILL_ALL)
        assert outcome.verdict is Verdict.OK, f"seed {seed}: {outcome.error}"
        summary.add(outcome)
    assert summary.counts["crash of all"] >= 5 * KILL_ALL_SEEDS
    assert summary.counts["unsynced writes lost"] and summary.counts["torn write"]
    assert summary.acknowledged > 100 * KILL_ALL_SEEDS


@pytest.mark.parametrize("seed", [4182, 17774, 50340, 220186190650423])
def test_seeds_that_once_lost_a_newest_segment_or_a_vote_to_damage(seed: int) -> None:
    assert run_seed(seed).verdict is Verdict.OK


def test_a_seed_in_which_a_snapshot_was_sent_for_ever_to_who_had_it() -> None:
    """Two voters, one of them behind the log: nothing is committed until the leader hears of it."""
    outcome = run_seed(1125)
    assert outcome.verdict is Verdict.OK and outcome.counts["snapshots sent"] < 100


def test_the_command_names_the_profile_and_refuses_it_for_a_library() -> None:
    arguments = ["sim", "--profile", "kill-all", "--seconds", "10", "--seeds", "1", "--jobs", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and "crash of all" in result.output
    result = CliRunner().invoke(main, [*arguments, "--engine", "pysyncobj"])
    assert result.exit_code == 2 and "--profile goes with --engine native" in result.output
