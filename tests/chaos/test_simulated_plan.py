"""A plan in the simulator: the same file, on virtual time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.nemesis.packages import draw_plan
from chaos.nemesis.plan import Plan, PlanError, parse_plan
from chaos.nemesis.simulated import TWINS, SimulatedPlan, check_simulable
from chaos.nemesis.vocabulary import FAULT_CLASSES
from chaos.sim.options import SECOND_US, Options
from chaos.sim.runner import run_seed
from chaos.sim.world import World
from chaos.verdict import Verdict


def one_of_each() -> Plan:
    text = "version = 1\nseed = 5\n"
    for number, kind in enumerate(sorted(TWINS)):
        text += f'[[fault]]\nkind = "{kind}"\nat = {1 + 1.5 * number}\nfor = 0.8\n'
    for place, shape in enumerate(("majorities-ring", "bridge", "partial")):
        at = 3 + 4 * place
        text += f'[[fault]]\nkind = "net.partition"\nat = {at}\nfor = 1\nshape = "{shape}"\n'
    return parse_plan(text + '[[fault]]\nkind = "proc.kill"\nat = 24\nfor = 1\nwhen = "serving"\n')


def test_every_twin_strikes_and_heals_and_no_promise_is_broken() -> None:
    assert set(FAULT_CLASSES) >= TWINS
    plan = one_of_each()
    check_simulable(plan)
    outcome = run_seed(1, 42.0, plan=plan)
    assert outcome.verdict is Verdict.OK, outcome.error
    for kind in TWINS:
        expected = sum(fault.kind == kind for fault in plan.faults)
        assert outcome.counts[kind] == expected, kind
    for effect in ("messages cut off", "crash keep_all", "crash keep_prefix", "sync failed"):
        assert outcome.counts[effect], effect


def test_the_seed_replays_it() -> None:
    plan = draw_plan(["kill", "partition", "power-loss", "clocks"], 9.0, 3, frozenset())
    check_simulable(plan)
    first = run_seed(3, 15.0, plan=plan)
    assert first.digest == run_seed(3, 15.0, plan=plan).digest
    assert first.digest != run_seed(3, 15.0, plan=plan.without([0])).digest


def test_faults_come_when_planned_or_once_all_serve() -> None:
    text = (
        'version = 1\n[[fault]]\nkind = "proc.kill"\nat = 2\nfor = 3\ntarget = "n2"\n'
        '[[fault]]\nkind = "net.stall"\nat = 3\nfor = 1\ntarget = "n1"\nwhen = "serving"\n'
    )
    notes: list[str] = []
    world = World(1, Options(), notes.append)
    SimulatedPlan(parse_plan(text), world, 20 * SECOND_US).schedule()
    world.run(30.0)

    def at(*words: str) -> float:
        return next(float(time) for time, *rest in map(str.split, notes) if rest == [*words])

    assert 2.0 <= at("proc.kill", "n2") < 2.01
    assert 5.0 <= at("end", "proc.kill") < 5.01
    assert at("net.stall", "n1") >= at("end", "proc.kill")


@pytest.mark.parametrize(
    "fault", ['kind = "net.reset"', 'kind = "net.partition"\nshape = "clients"']
)
def test_what_has_no_twin_is_named(fault: str, tmp_path: Path) -> None:
    text = f"version = 1\n[[fault]]\n{fault}\nat = 1\nfor = 1\n"
    with pytest.raises(PlanError, match=r"fault 1: net\.\w+ of .* cannot be simulated; there are"):
        check_simulable(parse_plan(text))
    path = tmp_path / "plan.toml"
    path.write_text(text)
    result = CliRunner().invoke(main, ["sim", "--plan", str(path), "--seed", "1"])
    assert result.exit_code == 2
    assert "cannot be simulated" in result.output


def test_chaos_sim_takes_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('version = 1\n[[fault]]\nkind = "proc.kill"\nat = 2\nfor = 1\n')
    words = ["sim", "--plan", str(path), "--seeds", "2", "--seconds", "10", "--json"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert (document["verdict"], document["seeds"]) == ("ok", 2)
    assert document["counts"]["proc.kill"] == 2
    refused = CliRunner().invoke(main, [*words, "--replay", "1"])
    assert refused.exit_code == 2
    assert "--plan goes with" in refused.output
