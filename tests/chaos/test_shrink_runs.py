"""Shrinking runs on real processes: which faults go, how long it takes, what is refused.

The runs here are made up: what fails is decided by the plan alone. docs/REPORTS.md has one that was
made on real processes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

import chaos.shrink.cli
import chaos.shrink.processes
from chaos.cell import CellOptions
from chaos.cli import main
from chaos.cluster.cluster import ClusterFailed, ClusterOptions
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.history.format import HistoryError
from chaos.nemesis.plan import Plan, PlannedFault, fault_of, parse_plan
from chaos.shrink.minimize import DoesNotFail
from chaos.shrink.processes import FailedRun, Progress, attempt, failed_run, shrink_run
from chaos.verdict import Kind
from chaos.workloads.base import WorkloadOptions
from tests.chaos.test_cli import write_history

LOST = frozenset({Kind.LOST_WRITE})
KINDS = ("net.latency", "net.partition", "proc.pause", "proc.kill", "net.reset", "net.stall")


def fault(kind: str, at_s: float) -> PlannedFault:
    return fault_of({"kind": kind, "at": at_s, "for": 1.0})


PLAN = Plan(tuple(fault(kind, 2.0 * place) for place, kind in enumerate(KINDS, start=1)), seed=5)
OPTIONS = CellOptions(KvstoreTarget(), (), 20.0, 5, given_plan=PLAN)


class Runs:
    """Made-up runs: ``breaks`` says which promises each breaks."""

    def __init__(self, breaks: Callable[[list[str], CellOptions], frozenset[Kind]]) -> None:
        self.plans: list[list[str]] = []
        self._breaks = breaks

    def __call__(
        self, options: CellOptions, directory: Path, left_s: float, say: Progress
    ) -> frozenset[Kind]:
        assert options.given_plan is not None and left_s > 0
        directory.mkdir(parents=True)
        say("running")
        self.plans.append([fault.kind for fault in options.given_plan.faults])
        return self._breaks(self.plans[-1], options)


def killed(plan: list[str], _: CellOptions) -> frozenset[Kind]:
    return LOST if "proc.kill" in plan else frozenset()


def test_only_the_faults_that_it_takes_stay(tmp_path: Path) -> None:
    told: list[str] = []
    runs = Runs(killed)
    found = shrink_run(FailedRun(OPTIONS, PLAN, LOST), tmp_path, progress=told.append, attempt=runs)
    assert [one.kind for one in found.plan.faults] == ["proc.kill"]
    assert found.plan.faults[0].at_s == 0.5, "moved to the front"
    assert found.plan.seed == 5
    assert found.options.seconds == 2.5, "and the load ends soon after"
    assert found.is_whole and found.tries == len(runs.plans) and found.kinds == LOST
    assert [path.name for path in tmp_path.iterdir()] == [found.history.parent.name]
    assert told[0] == "try 1, 6 faults (best so far 6): running"


def test_two_faults_that_it_takes_together_stay(tmp_path: Path) -> None:
    wanted = {"net.partition", "net.reset"}
    runs = Runs(lambda plan, _: LOST if wanted <= set(plan) else frozenset())
    found = shrink_run(FailedRun(OPTIONS, PLAN, LOST), tmp_path, attempt=runs)
    assert {one.kind for one in found.plan.faults} == wanted


def test_what_fails_without_any_fault_needs_none(tmp_path: Path) -> None:
    runs = Runs(lambda _plan, _options: LOST)
    found = shrink_run(FailedRun(OPTIONS, PLAN, LOST), tmp_path, attempt=runs)
    assert found.plan.faults == ()


def test_one_failure_in_the_repeats_is_enough(tmp_path: Path) -> None:
    def every_third(plan: list[str], options: CellOptions) -> frozenset[Kind]:
        return killed(plan, options) if len(runs.plans) % 3 == 0 else frozenset()

    runs = Runs(every_third)
    found = shrink_run(FailedRun(OPTIONS, PLAN, LOST), tmp_path, repeats=3, attempt=runs)
    assert [one.kind for one in found.plan.faults] == ["proc.kill"]
    with pytest.raises(DoesNotFail, match="kept in 2 more runs of the whole plan"):
        runs = Runs(every_third)
        shrink_run(FailedRun(OPTIONS, PLAN, LOST), tmp_path, repeats=1, attempt=runs)


def test_another_promise_does_not_count(tmp_path: Path) -> None:
    def breaks(plan: list[str], _: CellOptions) -> frozenset[Kind]:
        return LOST if "net.stall" in plan else frozenset({Kind.STALE_READ})

    found = shrink_run(FailedRun(OPTIONS, PLAN, LOST), tmp_path, attempt=Runs(breaks))
    assert [one.kind for one in found.plan.faults] == ["net.stall"]


def test_where_the_load_must_go_on_it_does(tmp_path: Path) -> None:
    def late(_: list[str], options: CellOptions) -> frozenset[Kind]:
        return LOST if options.seconds == 20.0 else frozenset()

    found = shrink_run(FailedRun(OPTIONS, PLAN, LOST), tmp_path, repeats=1, attempt=Runs(late))
    assert found.options.seconds == 20.0 and len(found.plan.faults) == 6


def test_when_time_is_up_what_is_left_is_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(chaos.shrink.processes.time, "monotonic", lambda: now)

    def slow(plan: list[str], options: CellOptions) -> frozenset[Kind]:
        nonlocal now
        now += 10.0
        return killed(plan, options)

    runs = Runs(slow)
    failed = FailedRun(OPTIONS, PLAN, LOST)
    found = shrink_run(failed, tmp_path, time_limit_s=45.0, repeats=1, attempt=runs)
    assert len(runs.plans) == found.tries == 5
    assert not found.is_whole and 1 < len(found.plan.faults) < 6


def test_a_run_that_cannot_be_made_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise ClusterFailed("n1 does not start")

    monkeypatch.setattr(chaos.shrink.processes, "run_cell", fails)
    told: list[str] = []
    assert attempt(OPTIONS, tmp_path, 5.0, told.append) == frozenset()
    assert told == ["n1 does not start"]


def recorded(directory: Path, **changes: object) -> Path:
    """The directory of a run with a stale read."""
    directory.mkdir()
    path = write_history(directory / "history.jsonl", seen="0-0")
    first, *rest = path.read_text().splitlines()
    header = json.loads(first) | {
        "target": "kvstore",
        "engine": "native",
        "machine": "",
        "seed": 5,
        "seconds": 20.0,
        "plan": PLAN.as_json(),
        "cluster": attrs.asdict(ClusterOptions(nodes=5)),
        "workload": "register",
        "load": attrs.asdict(WorkloadOptions(clients=9)),
        "model": "",
        **changes,
    }
    path.write_text("\n".join([json.dumps(header), *rest]) + "\n")
    return directory


def test_a_history_says_how_to_make_its_run_again(tmp_path: Path) -> None:
    run = failed_run(recorded(tmp_path / "run"))
    assert run.plan == PLAN and run.options.given_plan == PLAN
    assert run.options.cluster.nodes == 5 and run.options.load == WorkloadOptions(clients=9)
    assert run.kinds
    with pytest.raises(HistoryError, match="does not say how to make the run again"):
        failed_run(recorded(tmp_path / "other", cluster={"knots": 3}))


def test_the_command_writes_a_plan_and_the_command_that_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded(tmp_path / "run")
    (broken,) = failed_run(run).kinds

    def breaks(plan: list[str], _: CellOptions) -> frozenset[Kind]:
        return frozenset({broken}) if "proc.pause" in plan else frozenset()

    made_up = functools.partial(shrink_run, attempt=Runs(breaks))
    monkeypatch.setattr(chaos.shrink.cli, "shrink_run", made_up)
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["shrink", str(run), "--repeats", "1", "--out", str(out)])
    assert result.exit_code == 1, result.output
    plan = parse_plan((out / "plan.toml").read_text())
    assert [one.kind for one in plan.faults] == ["proc.pause"]
    assert "1 of 6 faults are enough" in result.output
    again = f"chaos run --target kvstore --engine native --workload register --plan {out}/plan.toml"
    assert again in result.output and "--nodes 5 --clients 9" in result.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "cannot read nowhere"),
        (["RUN", "--seconds", "20"], "--seconds does not go with a RUN"),
        (["17", "--repeats", "2"], "--repeats does not go with a SEED"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], told: str, tmp_path: Path) -> None:
    run = str(recorded(tmp_path / "run"))
    result = CliRunner().invoke(
        main, ["shrink", *(run if word == "RUN" else word for word in words)]
    )
    assert result.exit_code == 2
    assert told in result.output and "Traceback" not in result.output


def test_a_run_that_kept_its_promises_is_not_shrunk(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run")
    write_history(tmp_path / "good.jsonl")
    header = (run / "history.jsonl").read_text().splitlines()[0]
    rest = (tmp_path / "good.jsonl").read_text().splitlines()[1:]
    (run / "history.jsonl").write_text("\n".join([header, *rest]) + "\n")
    result = CliRunner().invoke(main, ["shrink", str(run)])
    assert result.exit_code == 0 and "nothing to shrink" in result.output
