"""One cell of a run: a fresh cluster, a workload, one kind of trouble, a history, a report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs

from chaos.checkers.assumptions import HEAL, LoadFloor
from chaos.checkers.pipeline import Report, check_history
from chaos.cluster.cluster import Cluster, ClusterFailed, ClusterOptions
from chaos.cluster.process import ProcessFailed
from chaos.cluster.targets.base import Target, TargetUnavailable
from chaos.departed import look_at_members
from chaos.expectations import split_expected
from chaos.history.format import Outcome
from chaos.history.reader import read_history
from chaos.history.recorder import Recorder
from chaos.lossyfs.disk import why_not
from chaos.nemesis.packages import PACKAGES, draw_plan
from chaos.nemesis.plan import Plan
from chaos.nemesis.runner import Nemesis
from chaos.nemesis.vocabulary import Want
from chaos.observer import observe_members
from chaos.report.page import write_report
from chaos.verdict import Kind, Verdict
from chaos.workloads.base import Setting, Workload, WorkloadFailed, WorkloadOptions
from chaos.workloads.register import RegisterWorkload
from chaos.workloads.registry import find_workload

RECOVERY_TIMEOUT_S: Final = 30.0
AFTERGLOW_S: Final = 0.5
"""Load goes on this long after everything was mended."""

LIVENESS_TIMEOUT_S: Final = 15.0
"""How long the clients have to get an operation through after that."""


@attrs.frozen(slots=True)
class CellOptions:
    """What one cell does.

    Args:
        target: what is tested.
        faults: names of packages (``chaos.nemesis.packages``), in turns; none is the control.
        seconds: length of the load, at least.
        seed: of every choice.
        cluster: how the cluster is made.
        workload: what the clients do, as ``find_workload`` takes it.
        load: how hard they do it; None for the workload's own measure.
        model: "module:Model", for a workload that is checked with a model of the user's.
        floor: load below which the cell is invalid; None for the workload's own.
        replay: the command that runs this cell again, for its report.
        given_plan: carried out whole, in place of one drawn from ``faults`` and the seed.
    """

    target: Target
    faults: tuple[str, ...]
    seconds: float
    seed: int
    cluster: ClusterOptions = attrs.field(factory=ClusterOptions)
    workload: str = RegisterWorkload.name
    load: WorkloadOptions | None = None
    model: str = ""
    floor: LoadFloor | None = None
    replay: str = ""
    given_plan: Plan | None = None

    @property
    def name(self) -> str:
        """The cell's name in tables and paths."""
        if self.given_plan is not None:
            return "plan"
        return "+".join(self.faults) or "control"

    @property
    def is_control(self) -> bool:
        """True for the cell without faults."""
        return not self.faults and self.given_plan is None

    def plan(self) -> Plan:
        """What will be done to the cluster.

        Raises:
            TargetUnavailable: something that it wants cannot be had here; the text says what.
        """
        lacking = frozenset(Want) - self.target.provides
        if self.cluster.proxy_program is None:
            lacking -= {Want.TOXID}
        asked = frozenset[Want]().union(*(PACKAGES[name].wants for name in self.faults))
        if self.given_plan is not None:
            asked = self.given_plan.wants
        needed = find_workload(self.workload).wants
        no_disks = why_not() if Want.LOSSY_DISK in asked else ""
        if not no_disks:
            lacking -= {Want.LOSSY_DISK}
        plan = self.given_plan or draw_plan(self.faults, self.seconds, self.seed, lacking)
        missing = (plan.wants | needed) & lacking
        if not plan.faults:
            missing = lacking & (asked | needed)
        if missing:
            wanted = ", and ".join(sorted(want.value for want in missing))
            reason = f" ({no_disks})" if Want.LOSSY_DISK in missing else ""
            raise TargetUnavailable(f"{self.name} on {self.target.name} wants {wanted}{reason}")
        return plan


def run_command(options: CellOptions, faults: str) -> str:
    """Return the command that runs a cell again.

    Args:
        options: of the cell.
        faults: the options that say which faults: ``--faults NAMES`` or ``--plan FILE``.
    """
    load = options.load or find_workload(options.workload).defaults
    model = f"--model {options.model} " if options.model else ""
    proxy = "toxid" if options.cluster.proxy_program is None else "toxiproxy"
    return (
        f"chaos run {options.target.words} --workload {options.workload} {model}{faults} "
        f"--seconds {options.seconds:g} --seed {options.seed} --nodes {options.cluster.nodes} "
        f"--clients {load.clients} --rate {load.rate:g} --proxy {proxy}"
    )


@attrs.frozen(slots=True)
class CellResult:
    """What came of one cell."""

    name: str
    report: Report
    history_path: Path
    seconds: float
    operations: dict[str, int]
    expected: dict[Kind, int]
    unexpected: dict[Kind, int]

    @property
    def verdict(self) -> Verdict:
        """The verdict of all checks."""
        return self.report.verdict

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "cell": self.name,
            **self.report.as_json(),
            "operations": self.operations,
            "seconds": round(self.seconds, 3),
            "expected": {kind.value: count for kind, count in self.expected.items()},
            "unexpected": {kind.value: count for kind, count in self.unexpected.items()},
            "history": str(self.history_path),
        }


Progress = Callable[[str], None]
"""Is told, now and then, what goes on."""


async def run_cell(options: CellOptions, directory: Path, progress: Progress) -> CellResult:
    """Run one cell and check its history.

    Args:
        options: what to do.
        directory: for the history, logs and data; data is deleted unless a promise was broken.
        progress: is told what goes on.

    Raises:
        ClusterFailed, ProcessFailed, ProxyServerError, TargetUnavailable: the cluster could not be
            started, or fell apart so far that no history could be had; or what the plan wants is
            not to be had here.
        WorkloadFailed: there is no such workload, or it does not fit the target.
    """
    began = time.monotonic()
    path = directory / "history.jsonl"
    if path.exists() or (directory / "data").exists():
        raise ClusterFailed(f"{directory} already holds a run; choose another directory")
    kind = find_workload(options.workload)
    if kind.api is not options.target.api:
        raise WorkloadFailed(
            f"the workload {options.workload} speaks to a {kind.api.value} server, and "
            f"{options.target.name} is a {options.target.api.value} server"
        )
    plan = options.plan()
    cluster = Cluster(options.target, directory, options.cluster, plan.wants, plan.newcomers)
    progress(f"starting {options.cluster.nodes} members")
    async with cluster:
        prepared = await kind.prepare(cluster.direct_addresses)
        header = {
            "target": options.target.name,
            "target_version": options.target.version(),
            "engine": options.target.engine,
            "machine": options.target.machine,
            "proxies": "toxid" if cluster.is_toxid else "toxiproxy",
            "seed": options.seed,
            "seconds": options.seconds,
            "faults": list(options.faults),
            "faults_expected": not options.is_control,
            "plan": plan.as_json(),
            "cluster": attrs.asdict(options.cluster),
            "workload": options.workload,
            "load": attrs.asdict(options.load or kind.defaults),
            "model": options.model,
            "floor": attrs.asdict(options.floor or kind.floor),
            "replay": options.replay,
            "peers": cluster.peer_urls,
            **prepared,
        }
        with Recorder(path, header) as recorder:
            setting = Setting(
                cluster.client_addresses,
                cluster.direct_addresses,
                recorder,
                Random(f"{options.seed}/workload"),
                options.load or kind.defaults,
                header,
            )
            workload = kind(setting)
            try:
                await workload.setup()
                await _load_under_faults(cluster, workload, options, plan, progress)
                progress("reading every member's history")
                await workload.collect()
            finally:
                await workload.close()
            outcomes = {outcome.value: n for outcome, n in recorder.outcomes.items()}
            recorder.close({"outcomes": outcomes})
    progress("checking")
    report = await asyncio.to_thread(lambda: check_history(read_history(path)))
    await asyncio.to_thread(write_report, path, report)
    if report.verdict is not Verdict.VIOLATED:
        cluster.remove_data()
    expected, unexpected = split_expected(options.target.engine, plan.needs, report.counts)
    return CellResult(
        options.name,
        report,
        path,
        time.monotonic() - began,
        outcomes,
        expected,
        unexpected,
    )


async def _load_under_faults(
    cluster: Cluster,
    workload: Workload[Any],
    options: CellOptions,
    plan: Plan,
    progress: Progress,
) -> None:
    recorder = workload.setting.recorder
    whole = options.given_plan is not None
    nemesis = Nemesis(cluster, plan, recorder, None if whole else options.seconds)
    running = asyncio.create_task(workload.run())
    breaking = asyncio.create_task(nemesis.run())
    watching = asyncio.create_task(observe_members(cluster, recorder))
    ends = time.monotonic() + max(options.seconds, plan.seconds if whole else 0.0)
    try:
        while time.monotonic() < ends or not breaking.done():
            await asyncio.wait({running, breaking}, timeout=0.25)
            if running.done():
                await running
            counts = " ".join(f"{o.value} {n}" for o, n in recorder.outcomes.items())
            trouble = " and ".join(fault.label for fault in nemesis.current) or "no fault"
            progress(f"{max(0.0, ends - time.monotonic()):4.1f} s left, {trouble}: {counts}")
            if breaking.done() and time.monotonic() < ends:
                await asyncio.sleep(min(0.25, ends - time.monotonic()))
        await breaking
        progress("waiting until every member serves")
        await _recover(cluster, recorder)
        await _until_alive(workload, running)
        await look_at_members(cluster, recorder)
        await asyncio.sleep(AFTERGLOW_S)
        workload.stop()
        await running
        await workload.final_reads()
    finally:
        tasks = (running, breaking, watching)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_alive(workload: Workload[Any], running: asyncio.Task[None]) -> None:
    """Wait until clients got operations through that began after healing, or time is up."""
    outcomes = workload.setting.recorder.outcomes
    enough = outcomes[Outcome.OK] + workload.options.clients + 1
    deadline = time.monotonic() + LIVENESS_TIMEOUT_S
    while outcomes[Outcome.OK] < enough and time.monotonic() < deadline and not running.done():
        await asyncio.wait({running}, timeout=0.05)


async def _recover(cluster: Cluster, recorder: Recorder) -> None:
    await cluster.mend()
    began = time.monotonic()
    try:
        await cluster.wait_serving(RECOVERY_TIMEOUT_S)
    except (ClusterFailed, ProcessFailed) as error:
        recorder.fault(HEAL, "end", cluster.members, str(error), effective=False)
    else:
        took_s = time.monotonic() - began
        recorder.fault(HEAL, "end", cluster.members, f"all serve after {took_s:.2f} s")
