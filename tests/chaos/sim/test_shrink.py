"""Shrinking: what a seed did is played again exactly, and a known bug needs little of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.shrink.minimize import DoesNotFail, failure_of, kind_of, shrink_seed
from chaos.shrink.script import Act, Script, ScriptedWorld
from chaos.sim.disk import SimFile
from chaos.sim.world import World

pytestmark = pytest.mark.timeout(600)  # simulations are work, not waiting: slow where CPU is
FAULTS_MAX = 15
OPERATIONS_MAX = 30
SEED_OF_THE_BUG = 1
SECONDS = 15.0


def plant(patch: pytest.MonkeyPatch) -> None:
    """Nothing is ever synced."""
    patch.setattr(SimFile, "sync", lambda self: self._disk.begin_sync())


def test_recording_changes_nothing() -> None:
    for seed in (3, 15):
        plain = World(seed)
        plain.run(SECONDS)
        recorded = ScriptedWorld(seed)
        recorded.run(SECONDS)
        assert recorded.trace.digest == plain.trace.digest
        assert recorded.acts


def test_a_list_of_acts_is_played_as_it_was_recorded() -> None:
    world = ScriptedWorld(15)
    world.run(SECONDS)
    script = Script.from_json(json.loads(json.dumps(world.recorded(SECONDS).as_json())))
    assert script == world.recorded(SECONDS)
    again = ScriptedWorld(15, script)
    again.run(SECONDS)
    assert again.counts == world.counts
    assert again.trace.digest == world.trace.digest


def test_acts_that_are_left_out_do_not_happen() -> None:
    world = ScriptedWorld(15)
    world.run(SECONDS)
    script = world.recorded(SECONDS)
    calm = ScriptedWorld(15, script.only(script.operations))
    calm.run(SECONDS)
    assert calm.counts["crash lose_all"] == calm.counts["pauses"] == 0
    assert calm.clients.commands > 0


def test_a_known_bug_shrinks_to_little(
    monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    plant(monkeypatch)
    found = shrink_seed(SEED_OF_THE_BUG, SECONDS, time_limit_s=240.0)
    assert found.operations_before > OPERATIONS_MAX, "there was something to shrink"
    assert len(found.script.faults) <= FAULTS_MAX
    assert len(found.script.operations) <= OPERATIONS_MAX
    error, _ = failure_of(SEED_OF_THE_BUG, SECONDS, found.script)
    assert kind_of(error) == kind_of(found.error)
    record_property(
        "counted",
        f"{found.faults_before} faults and {found.operations_before} operations shrank to "
        f"{len(found.script.faults)} and {len(found.script.operations)} in {found.runs} runs",
    )


def test_a_seed_that_does_not_fail_is_not_shrunk(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFail, match="seed 3 keeps every promise"):
        shrink_seed(3, SECONDS)
    result = CliRunner().invoke(main, ["shrink", "3", "--seconds", "15"])
    assert result.exit_code == 0
    assert "nothing to shrink" in result.output
    for words in ([], ["3", "--replay", "x"], ["--replay", str(tmp_path / "nowhere")]):
        refused = CliRunner().invoke(main, ["shrink", *words])
        assert refused.exit_code == 2
        assert "Traceback" not in refused.output


def test_a_list_can_be_played_from_a_file(tmp_path: Path) -> None:
    script = Script(3, 10.0, (Act(1_000_000, "clients", "_read", (0.0,)),))
    path = tmp_path / "list.json"
    path.write_text(json.dumps(script.as_json()))
    result = CliRunner().invoke(main, ["shrink", "--replay", str(path)])
    assert result.exit_code == 1, "a run without commands commits nothing new"
    assert "violated: liveness" in result.output


def test_kinds_of_failure_have_no_names_or_numbers() -> None:
    assert kind_of("n1 applied b'c4' at 17") == kind_of("n2 applied b'c9' at 3")
    assert kind_of("liveness: nothing new") != kind_of("n1 applied b'c9' at 3")
