"""Shrinking: what a seed did is played again exactly, and a known bug needs little of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.shrink.delta import drop_needless
from chaos.shrink.minimize import DoesNotFail, failure_of_script, kind_of, shrink_seed
from chaos.shrink.script import Act, Script, ScriptedWorld
from chaos.sim.disk import SimFile
from chaos.sim.faults import Faults
from chaos.sim.invariants import Violation
from chaos.sim.runner import KILL_ALL
from chaos.sim.world import EVENTS_MAX, World

pytestmark = pytest.mark.timeout(600)  # simulations are work, not waiting: slow where CPU is
FAULTS_MAX = 15
OPERATIONS_MAX = 30
SEED_OF_THE_BUG = 1
SEED_OF_THE_LOOP = 15
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
    error = failure_of_script(found.script)
    assert kind_of(error) == kind_of(found.error)
    monkeypatch.undo()
    assert not failure_of_script(found.script), "without the bug the list breaks nothing"
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
    path.write_text(json.dumps(attrs.evolve(script, probes=True).as_json()))
    result = CliRunner().invoke(main, ["shrink", "--replay", str(path)])
    assert result.exit_code == 0, "with probes it does"
    assert "every promise was kept" in result.output
    path.write_text(json.dumps(script.as_json() | {"profile": "nice"}))
    result = CliRunner().invoke(main, ["shrink", "--replay", str(path)])
    assert result.exit_code == 2
    assert "profile 'nice' is none of swarm, kill-all" in result.output


def test_a_list_says_how_it_differs_from_its_seed() -> None:
    script = Script(7, 12.0, (), {}, KILL_ALL, salt=3, faulty_s=2.5, probes=True)
    assert Script.from_json(json.loads(json.dumps(script.as_json()))) == script
    own, other = ScriptedWorld(7, attrs.evolve(script, salt=0)), ScriptedWorld(7, script)
    assert own.options == other.options, "the salt is of what happens, not of what is turned on"
    assert own.stream("network").random() != other.stream("network").random()


def test_a_run_is_given_up_when_it_is_told() -> None:
    script = Script(3, 10.0, probes=True)
    late = ScriptedWorld(3, script)
    assert not late.play(until_us=2_000_000)
    assert late.now == 2_000_000
    enough = ScriptedWorld(3, script)
    assert not enough.play(enough=lambda: enough.now >= 1_000_000)
    assert enough.now == 1_000_000


def plant_loop(patch: pytest.MonkeyPatch) -> list[int]:
    """Whoever crashes a member makes time stand still; return when that was."""
    when: list[int] = []

    def _crash(self: Faults) -> None:
        world = self._world
        when.append(world.now)

        def again(_: None) -> None:
            world.at(world.now, again, None)

        again(None)

    patch.setattr(Faults, "_crash", _crash)
    return when


def test_a_run_in_a_loop_is_given_up_when_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    when = plant_loop(monkeypatch)
    script = Script(3, 10.0, (Act(1_000_000, "faults", "_crash"),), probes=True)
    world = ScriptedWorld(3, script)
    asked: list[int] = []

    def enough() -> bool:
        asked.extend(when)
        return len(asked) > 3

    assert not world.play(enough=enough)
    assert asked == [1_000_000] * 4, "no time passes, and yet it was asked"
    bounded = ScriptedWorld(3, script)
    with pytest.raises(Violation, match="more than 4000 events in one phase: a loop without end"):
        bounded.play(loop_pulses=4)


def test_a_loop_shrinks_by_tries_that_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_loop(monkeypatch)
    found = shrink_seed(SEED_OF_THE_LOOP, SECONDS, time_limit_s=240.0)
    assert found.operations_before and found.faults_before > 1, "there was something to shrink"
    assert [act.name for act in found.script.faults] == ["_crash"]
    assert not found.script.operations
    number = re.search(r"more than (\d+) events", found.error)
    assert number is not None
    assert int(number[1]) < EVENTS_MAX, "it was known to be one long before the general bound"
    assert kind_of(failure_of_script(found.script)) == kind_of(found.error)


def test_a_list_may_have_snapshots_sooner() -> None:
    script = Script(3, 10.0, probes=True)
    sooner = attrs.evolve(script, snapshot_entries=20)
    assert Script.from_json(json.loads(json.dumps(sooner.as_json()))) == sooner
    drawn, said = ScriptedWorld(3, script), ScriptedWorld(3, sooner)
    assert said.options.snapshot_entries == 20
    assert attrs.evolve(said.options, snapshot_entries=drawn.options.snapshot_entries) == (
        drawn.options
    )
    with pytest.raises(ValueError, match="snapshot_entries 0 is less than one"):
        Script.from_json(script.as_json() | {"snapshot_entries": 0})


def test_when_time_is_up_what_is_left_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = shrink_seed(SEED_OF_THE_BUG, SECONDS, time_limit_s=0.0)
    assert found.runs == 2, "the seed, and its list: nothing was tried after that"
    assert len(found.script.operations) == found.operations_before


@pytest.mark.parametrize("needed", [set(), {0}, {3, 4}, {1, 8, 9}, set(range(10))])
def test_what_is_needed_stays(needed: set[int]) -> None:
    here = set(range(10))

    def do_without(some: Sequence[int]) -> bool:
        if needed <= here - set(some):
            here.difference_update(some)
            return True
        return False

    assert set(drop_needless(range(10), do_without)) == here == needed


def test_kinds_of_failure_have_no_names_or_numbers() -> None:
    assert kind_of("n1 applied b'c4' at 17") == kind_of("n2 applied b'c9' at 3")
    assert kind_of("c153 was applied at 130 and again at 131") == kind_of(
        "c2 was applied at 2 and again at 22"
    )
    assert kind_of("liveness: nothing new") != kind_of("liveness: n6 has applied 279 of 890")
