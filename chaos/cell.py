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
from chaos.cluster.rpc import CallFailed
from chaos.cluster.targets.base import Target
from chaos.expectations import split_expected
from chaos.history.format import WatchEvent
from chaos.history.reader import read_history
from chaos.history.recorder import Recorder
from chaos.nemesis.plan import FaultKind, PlannedFault, draw_plan
from chaos.nemesis.runner import Nemesis
from chaos.observer import observe_members
from chaos.verdict import Kind, Verdict
from chaos.workloads.register import RegisterOptions, RegisterWorkload

RECOVERY_TIMEOUT_S: Final = 30.0
AFTERGLOW_S: Final = 0.5
"""Load goes on this long after everything was mended."""

CATCH_UP_TIMEOUT_S: Final = 15.0


@attrs.frozen(slots=True)
class CellOptions:
    """What one cell does.

    Args:
        target: what is tested.
        faults: the kinds of fault, in turns; NONE alone is the control.
        seconds: length of the load.
        seed: of every choice.
        cluster: how the cluster is made.
        workload: how hard the clients work.
        floor: load below which the cell is invalid.
        replay: the command that runs this cell again, for its report.
    """

    target: Target
    faults: tuple[FaultKind, ...]
    seconds: float
    seed: int
    cluster: ClusterOptions = attrs.field(factory=ClusterOptions)
    workload: RegisterOptions = attrs.field(factory=RegisterOptions)
    floor: LoadFloor = attrs.field(factory=LoadFloor)
    replay: str = ""

    @property
    def name(self) -> str:
        """The cell's name in tables and paths."""
        only = self.faults == (FaultKind.NONE,)
        return "control" if only else "+".join(kind.value for kind in self.faults)

    @property
    def is_control(self) -> bool:
        """True for the cell without faults."""
        return self.faults == (FaultKind.NONE,)


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
            started, or fell apart so far that no history could be had.
    """
    began = time.monotonic()
    path = directory / "history.jsonl"
    if path.exists() or (directory / "data").exists():
        raise ClusterFailed(f"{directory} already holds a run; choose another directory")
    cluster = Cluster(options.target, directory, options.cluster)
    progress(f"starting {options.cluster.nodes} members")
    async with cluster:
        base_revision = await _empty_start(cluster)
        plan = draw_plan(
            options.faults, options.seconds, Random(f"{options.seed}/plan"), cluster.is_toxid
        )
        header = {
            "target": options.target.name,
            "target_version": options.target.version(),
            "proxies": "toxid" if cluster.is_toxid else "toxiproxy",
            "seed": options.seed,
            "seconds": options.seconds,
            "faults": [kind.value for kind in options.faults],
            "faults_expected": not options.is_control,
            "plan": [fault.as_json() for fault in plan],
            "cluster": attrs.asdict(options.cluster),
            "workload": attrs.asdict(options.workload),
            "floor": attrs.asdict(options.floor),
            "base_revision": base_revision,
            "replay": options.replay,
        }
        with Recorder(path, header) as recorder:
            await _load_under_faults(cluster, options, plan, recorder, progress)
            progress("reading every member's history")
            await _collect_watches(cluster, recorder, base_revision)
            outcomes = {outcome.value: n for outcome, n in recorder.outcomes.items()}
            recorder.close({"outcomes": outcomes})
    progress("checking")
    report = await asyncio.to_thread(lambda: check_history(read_history(path)))
    if report.verdict is not Verdict.VIOLATED:
        cluster.remove_data()
    expected, unexpected = split_expected(options.target.engine, options.faults, report.counts)
    return CellResult(
        options.name,
        report,
        path,
        time.monotonic() - began,
        outcomes,
        expected,
        unexpected,
    )


async def _empty_start(cluster: Cluster) -> int:
    """The revision of the empty store; a store that is not empty is refused."""
    for member in cluster.members:
        answer = await cluster.control(member).get("register/0")
        if answer.kvs:
            raise ClusterFailed(f"{member} already holds keys; a run needs an empty cluster")
    return int(answer.header.revision)


async def _load_under_faults(
    cluster: Cluster,
    options: CellOptions,
    plan: list[PlannedFault],
    recorder: Recorder,
    progress: Progress,
) -> None:
    rng = Random(f"{options.seed}/workload")
    workload = RegisterWorkload(cluster.client_addresses, recorder, rng, options.workload)
    rng = Random(f"{options.seed}/nemesis")
    nemesis = Nemesis(cluster, plan, recorder, rng, options.seconds)
    running = asyncio.create_task(workload.run())
    breaking = asyncio.create_task(nemesis.run())
    watching = asyncio.create_task(observe_members(cluster, recorder))
    ends = time.monotonic() + options.seconds
    try:
        while time.monotonic() < ends or not breaking.done():
            await asyncio.wait({running, breaking}, timeout=0.25)
            if running.done():
                await running
            counts = " ".join(f"{o.value} {n}" for o, n in recorder.outcomes.items())
            fault = nemesis.current
            trouble = f"{fault.kind.value} of {fault.role.value}" if fault else "no fault"
            progress(f"{max(0.0, ends - time.monotonic()):4.1f} s left, {trouble}: {counts}")
            if breaking.done() and time.monotonic() < ends:
                await asyncio.sleep(min(0.25, ends - time.monotonic()))
        await breaking
        progress("waiting until every member serves")
        await _recover(cluster, recorder)
        await asyncio.sleep(AFTERGLOW_S)
        workload.stop()
        await running
        await workload.final_reads()
    finally:
        tasks = (running, breaking, watching)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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


async def _collect_watches(cluster: Cluster, recorder: Recorder, base_revision: int) -> None:
    """Write down what each member tells about every revision, up to the newest of any member."""
    newest = 0
    for member in cluster.members:
        try:
            answer = await cluster.control(member).get("register/0")
        except CallFailed:
            continue
        newest = max(newest, int(answer.header.revision))
    for member in cluster.members:
        events: list[WatchEvent] = []
        try:
            async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
                async for event in cluster.control(member).events(base_revision + 1, newest):
                    events.append(event)  # noqa: PERF401 - what came before a failure counts
        except (CallFailed, TimeoutError) as error:
            recorder.fault(
                HEAL, "end", [member], f"its history ends early: {error}", effective=False
            )
            if not events:
                continue
        recorder.watch(member, events)
        recorder.watched(member)
