"""Plans: their file, what is refused and how it is said, and drawing them from a seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.cell import CellOptions
from chaos.cli import main
from chaos.cluster.targets.base import Target, TargetUnavailable
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.cluster.targets.machine import MachineTarget
from chaos.nemesis.injectors import INJECTORS
from chaos.nemesis.packages import PACKAGES, draw_plan
from chaos.nemesis.plan import Plan, PlanError, parse_plan, plan_of, read_plan
from chaos.nemesis.vocabulary import FAULT_CLASSES, Want
from chaos.workloads.registry import find_workload
from consensus.engine import Fault

NOTHING_LACKS: frozenset[Want] = frozenset()
HAND_WRITTEN = """
version = 1
seed = 7841

[[fault]]
kind = "proc.kill"
at = 4
for = 0.8
when = "serving"

[[fault]]
kind = "net.partition"
at = 3.2
for = 2.0
target = "n2"
shape = "partial"
"""


def test_a_plan_written_by_hand() -> None:
    plan = parse_plan(HAND_WRITTEN)
    assert plan.seed == 7841
    partition, kill = plan.faults
    assert (partition.kind, partition.at_s, partition.for_s) == ("net.partition", 3.2, 2.0)
    assert (partition.target, partition.when_serving) == ("n2", False)
    assert partition.options == {"shape": "partial", "direction": "both", "mode": "close"}
    assert (kill.target, kill.when_serving, kill.options) == ("leader", True, {})
    assert partition.label == "net.partition of n2, partial"
    assert plan.seconds == 5.2
    assert plan.needs == Fault.PARTITION | Fault.PROCESS_CRASH_MINORITY
    assert kill.overlaps(partition)


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_every_package_draws_plans_that_are_read_back(name: str, tmp_path: Path) -> None:
    plan = draw_plan([name], 30.0, 5, NOTHING_LACKS)
    assert plan.faults
    path = tmp_path / "plan.toml"
    path.write_text(plan.as_toml())
    assert read_plan(path) == plan
    assert plan_of(plan.as_json()) == plan
    package = PACKAGES[name]
    assert plan.needs in package.needs | Fault.PROCESS_CRASH_ALL
    assert plan.wants <= package.wants | {Want.TOXID}


def test_every_class_of_fault_is_in_a_package_and_has_an_injector() -> None:
    drawn = {variant.kind for package in PACKAGES.values() for variant in package.variants}
    assert drawn == set(FAULT_CLASSES) == set(INJECTORS)


@pytest.mark.parametrize("seed", range(20))
def test_a_package_of_members_has_members_or_cannot_be_had(seed: int) -> None:
    storm = draw_plan(["churn"], 30.0, seed, NOTHING_LACKS)
    assert storm.faults[0].kind.startswith("member.")
    assert storm.newcomers == sum(fault.kind.startswith("member.") for fault in storm.faults)
    for name in ("churn", "membership"):
        assert not draw_plan([name], 30.0, seed, frozenset({Want.MEMBERSHIP})).faults


@pytest.mark.parametrize(
    ("target", "faults", "workload"),
    [
        (KvstoreTarget("pysyncobj"), ("churn",), "register"),
        (KvstoreTarget("pysyncobj"), (), "membership"),
        (KvstoreTarget("pysyncobj"), ("kill",), "membership"),
        (MachineTarget(find_workload("counter").machine, "native"), ("churn",), "counter"),
    ],
)
def test_a_cell_that_wants_members_to_come_and_go_says_where_there_are_none(
    target: Target, faults: tuple[str, ...], workload: str
) -> None:
    options = CellOptions(target, faults, 5.0, 1, workload=workload)
    with pytest.raises(TargetUnavailable, match="wants members that come and go"):
        options.plan()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version = ", "not TOML"),
        ("", "version = None: this program reads version 1"),
        ("version = 2", "version = 2: this program reads version 1"),
        ("version = 1\nspeed = 3", "speed: not known here"),
        ('version = 1\nseed = "x"', "seed = 'x': should be a whole number"),
        ("version = 1\nfault = 3", "list of tables"),
        ('version = 1\n[[fault]]\nkind = "net.gremlin"', "fault 1: kind = 'net.gremlin': not a"),
        ("version = 1\n[[fault]]\nkind = 3", "fault 1: kind = 3: not a fault; there are net"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, says: str) -> None:
    with pytest.raises(PlanError) as refused:
        parse_plan(text)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ('at = "soon"', "at = 'soon': should be a number of seconds"),
        ("at = true", "at = True: should be a number"),
        ("at = -1", "at = -1: should be from 0"),
        ("at = 1\nfor = 1e9", "for = 1e+09: should be from 0 to 86400 seconds"),
        ("at = 1\nfor = 1\ndelay = 3", "delay: net.latency does not take it; it takes kind, at"),
        ('at = 1\nfor = 1\ntarget = "everybody"', "'everybody': net.latency strikes all, leader"),
        ("at = 1\nfor = 1\ntarget = 3", "target = 3"),
        ("at = 1\nfor = 1\ndelay_ms = 1.5", "delay_ms = 1.5: should be a whole number (added"),
        ("at = 1\nfor = 1\ndelay_ms = -1", "delay_ms = -1: should be from 0"),
        ("at = 1\nfor = 1\ndelay_ms = true", "delay_ms = True: should be like 60"),
        ('at = 1\nfor = 1\nlinks = "some"', "links = 'some': should be one of peers, clients, all"),
        ('at = 1\nfor = 1\nwhen = "later"', "when = 'later': can only be \"serving\""),
    ],
)
def test_wrong_fields_are_named(changes: str, says: str) -> None:
    text = f'version = 1\n[[fault]]\nkind = "net.latency"\n{changes}'
    with pytest.raises(PlanError) as refused:
        parse_plan(text)
    assert str(refused.value).startswith("fault 1: ")
    assert says in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot read .*absent\.toml"):
        read_plan(tmp_path / "absent.toml")


def test_a_plan_without_some_of_its_faults() -> None:
    plan = draw_plan(["kill", "pause"], 30.0, 1, NOTHING_LACKS)
    kept = plan.without([0, 2])
    assert kept.faults == (plan.faults[1], *plan.faults[3:])
    assert kept.seed == plan.seed


def test_the_same_seed_draws_the_same_plan() -> None:
    names = ["kill", "partition", "storm"]
    first = draw_plan(names, 60.0, 5, NOTHING_LACKS)
    assert first == draw_plan(names, 60.0, 5, NOTHING_LACKS)
    assert first != draw_plan(names, 60.0, 6, NOTHING_LACKS)


def test_packages_take_turns_and_do_not_overlap() -> None:
    plan = draw_plan(["kill", "pause"], 120.0, 1, NOTHING_LACKS)
    kinds = [fault.kind for fault in plan.faults]
    assert kinds[:4] == ["proc.kill", "proc.pause", "proc.kill", "proc.pause"]
    assert not any(
        one.overlaps(other) for one, other in zip(plan.faults, plan.faults[1:], strict=False)
    )
    assert plan.seconds <= 120.0
    assert {fault.target for fault in plan.faults} == {"leader", "follower"}
    assert all(fault.when_serving for fault in plan.faults)


def test_the_first_fault_strikes_the_leader_however_short_the_run() -> None:
    for seed in range(20):
        plan = draw_plan(["kill"], 2.0, seed, NOTHING_LACKS)
        assert [fault.target for fault in plan.faults] == ["leader"]


def test_no_package_is_an_empty_plan() -> None:
    assert draw_plan([], 60.0, 1, NOTHING_LACKS) == Plan(seed=1)


def test_faults_of_a_storm_overlap() -> None:
    for seed in range(10):
        faults = draw_plan(["storm"], 20.0, seed, NOTHING_LACKS).faults
        assert any(one.overlaps(other) for one in faults for other in faults if one is not other)


def test_without_toxid_nothing_is_drawn_that_wants_it() -> None:
    lacking = frozenset({Want.TOXID, Want.FRAMES})
    modes = Counter(
        fault.options["mode"] for fault in draw_plan(["partition"], 200.0, 2, lacking).faults
    )
    assert set(modes) == {"close"}
    assert draw_plan(["one-way"], 20.0, 1, lacking).faults == ()
    storm = draw_plan(["storm"], 60.0, 1, lacking)
    assert storm.faults
    assert not storm.wants


def test_crashes_that_overlap_take_more_than_a_minority() -> None:
    kill = '[[fault]]\nkind = "proc.kill"\nat = {}\nfor = 2\n'
    apart = parse_plan("version = 1\n" + kill.format(1) + kill.format(4))
    together = parse_plan("version = 1\n" + kill.format(1) + kill.format(2))
    assert Fault.PROCESS_CRASH_ALL not in apart.needs
    assert Fault.PROCESS_CRASH_ALL in together.needs


def test_chaos_plan_prints_a_plan_that_chaos_run_takes(tmp_path: Path) -> None:
    printed = CliRunner().invoke(main, ["plan", "--seed", "7", "--faults", "kill+storm"])
    assert printed.exit_code == 0
    assert parse_plan(printed.output) == draw_plan(["kill", "storm"], 20.0, 7, NOTHING_LACKS)
    listed = CliRunner().invoke(main, ["plan", "--list"]).output
    assert all(name in listed for name in PACKAGES)
    refused = CliRunner().invoke(main, ["plan", "--faults", "kill+quake"])
    assert refused.exit_code == 2
    assert "quake is no package of faults; there are kill" in refused.output


@pytest.mark.parametrize(
    ("text", "says"),
    [("version = 3", "version = 3"), ("version = 1", "has no [[fault]]")],
)
def test_chaos_run_refuses_a_bad_plan(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    result = CliRunner().invoke(main, ["run", "--plan", str(path)])
    assert result.exit_code == 2
    assert says in result.output.replace("\n", " ")
    assert "Traceback" not in result.output


def test_what_a_plan_wants_and_cannot_have_is_said(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('version = 1\n[[fault]]\nkind = "net.drop"\nat = 1\nfor = 1\n')
    words = ["run", "--target", "kvstore", "--engine", "pysyncobj", "--plan", str(path)]
    words += ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "plan on kvstore wants peers whose frames toxid can tell apart" in result.output
    assert not (tmp_path / "out").exists()
