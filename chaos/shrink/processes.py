"""From a run on real processes that broke a promise to the few faults without which it does not.

Nothing is replayed exactly here: a try is a new run, of a fresh cluster, and a promise that is
broken in one of several repeats counts as broken. What may go are the faults of the plan. Tries are
short: the load ends soon after the last fault that is left, and once nothing more can go the faults
that stay move to the front. The time is bounded, a try that is under way included, and what is left
by then is the answer.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from chaos.cell import CellOptions, run_cell
from chaos.checkers.assumptions import LoadFloor
from chaos.checkers.pipeline import check_history
from chaos.cluster.cluster import ClusterFailed, ClusterOptions
from chaos.cluster.process import ProcessFailed
from chaos.cluster.proxies import ProxyServerError
from chaos.cluster.targets import target_of
from chaos.history.format import HistoryError
from chaos.history.reader import read_history
from chaos.nemesis.plan import Plan, plan_of
from chaos.shrink.delta import drop_needless
from chaos.shrink.minimize import DoesNotFail
from chaos.verdict import Kind, Verdict
from chaos.workloads.base import WorkloadOptions

RUN_TIME_LIMIT_S: Final = 600.0
REPEATS: Final = 2
SECONDS_MIN: Final = 2.0
AFTER_S: Final = 1.0
"""The load goes on so long after the last fault."""
FIRST_AT_S: Final = 0.5
"""When the first fault comes, once the faults have moved to the front."""

Progress = Callable[[str], None]
Attempt = Callable[[CellOptions, Path, float, Progress], frozenset[Kind]]
"""Runs a cell in a directory, for so many seconds at most; says which promises were broken."""


@attrs.frozen(slots=True)
class FailedRun:
    """A run in which a promise was broken.

    Args:
        options: what it did; its plan is given.
        plan: the faults.
        kinds: the promises that were broken.
    """

    options: CellOptions
    plan: Plan
    kinds: frozenset[Kind]


@attrs.frozen(slots=True)
class ShrunkRun:
    """What is left of a failed run.

    Args:
        options: the least run that failed; its plan is given.
        plan: the faults that are left.
        kinds: the promises that it broke.
        history: of that run.
        tries: how many runs there were.
        seconds: how long it took.
        is_whole: whether nothing more could go, before time was up.
    """

    options: CellOptions
    plan: Plan
    kinds: frozenset[Kind]
    history: Path
    tries: int
    seconds: float
    is_whole: bool


def failed_run(path: Path) -> FailedRun:
    """Read what a run did, and which promises it broke.

    Args:
        path: of its directory, which has a ``history.jsonl``, or of its history.

    Raises:
        HistoryError: there is no history, or it is not of a run that can be made again.
        TargetUnavailable, WorkloadFailed: its target, or its workload, is not known here.
        DoesNotFail: it broke no promise.
    """
    path = path / "history.jsonl" if path.is_dir() else path
    history = read_history(path)
    header = history.header
    try:
        target = target_of(header["target"], header["engine"], header["machine"])
        plan = plan_of(header["plan"])
        options = CellOptions(
            target=target,
            faults=(),
            seconds=float(header["seconds"]),
            seed=int(header["seed"]),
            cluster=ClusterOptions(**header["cluster"]),
            workload=header["workload"],
            load=WorkloadOptions(**header["load"]),
            model=header["model"],
            floor=LoadFloor(**header["floor"]),
            given_plan=plan,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise HistoryError(
            f"{path} does not say how to make the run again ({type(error).__name__}: {error}); "
            "take the directory of a cell of chaos run or chaos matrix"
        ) from error
    report = check_history(history)
    if report.verdict is not Verdict.VIOLATED:
        raise DoesNotFail(f"{path}: the verdict is {report.verdict.value}: nothing to shrink")
    return FailedRun(options, plan, frozenset(report.counts))


def attempt(options: CellOptions, directory: Path, left_s: float, say: Progress) -> frozenset[Kind]:
    """Run a cell; what could not be run to its end broke no promise."""

    async def within() -> frozenset[Kind]:
        async with asyncio.timeout(left_s):
            report = (await run_cell(options, directory, say)).report
            return frozenset(report.counts if report.verdict is Verdict.VIOLATED else ())

    try:
        return asyncio.run(within())
    except (TimeoutError, ClusterFailed, ProcessFailed, ProxyServerError) as error:
        say(str(error) or "no time left")
        return frozenset()


def shrink_run(
    run: FailedRun,
    directory: Path,
    *,
    time_limit_s: float = RUN_TIME_LIMIT_S,
    repeats: int = REPEATS,
    progress: Progress = lambda _text: None,
    attempt: Attempt = attempt,
) -> ShrunkRun:
    """Drop the faults without which a run still breaks one of the promises that it broke.

    Args:
        run: from ``failed_run``.
        directory: for the tries; only the last one that failed is kept.
        time_limit_s: real seconds after which what is left is the answer.
        repeats: runs of each try; one that fails is enough.
        progress: is told what goes on.
        attempt: makes a run.

    Raises:
        DoesNotFail: the whole plan broke nothing when it was run again.
        TargetUnavailable, WorkloadFailed, PlanError: it cannot be run here.
    """
    began = time.monotonic()
    tries = _Tries(run, directory, began + time_limit_s, repeats, progress, attempt)
    if not tries.fails(run.plan) and not tries.fails(run.plan, run.options.seconds):
        raise DoesNotFail(
            f"the promise was kept in {tries.number} more runs of the whole plan; give more "
            "--repeats, or --time-limit"
        )
    drop_needless(range(len(run.plan.faults)), tries.do_without)
    tries.fails(_early(tries.best.plan))
    return attrs.evolve(
        tries.best,
        tries=tries.number,
        seconds=time.monotonic() - began,
        is_whole=not tries.is_over,
    )


class _Tries:
    """Runs of ever smaller plans."""

    def __init__(
        self,
        run: FailedRun,
        directory: Path,
        deadline: float,
        repeats: int,
        progress: Progress,
        attempt: Attempt,
    ) -> None:
        self.best = ShrunkRun(run.options, run.plan, run.kinds, directory, 0, 0.0, False)
        self.number = 0
        self._run = run
        self._gone: set[int] = set()
        self._directory = directory
        self._deadline = deadline
        self._repeats = repeats
        self._progress = progress
        self._attempt = attempt

    @property
    def is_over(self) -> bool:
        """Whether time is up."""
        return time.monotonic() >= self._deadline

    def do_without(self, places: Sequence[int]) -> bool:
        """Drop the faults at these places of the whole plan, if it still fails."""
        if not self.fails(self._run.plan.without(self._gone | set(places))):
            return False
        self._gone.update(places)
        return True

    def fails(self, plan: Plan, seconds: float | None = None) -> bool:
        """Whether a plan fails in one of its repeats; if it does it is the best."""
        if seconds is None:
            seconds = min(self._run.options.seconds, max(SECONDS_MIN, plan.seconds + AFTER_S))
        options = attrs.evolve(self._run.options, given_plan=plan, seconds=seconds)
        for _ in range(self._repeats):
            if self.is_over:
                return False
            self.number += 1
            kinds = self._once(options, self._directory / f"try-{self.number:03}") & self._run.kinds
            if kinds:
                return True
        return False

    def _once(self, options: CellOptions, directory: Path) -> frozenset[Kind]:
        assert options.given_plan is not None
        what = f"try {self.number}, {len(options.given_plan.faults)} faults"

        def say(text: str) -> None:
            self._progress(f"{what} (best so far {len(self.best.plan.faults)}): {text}")

        kinds = self._attempt(options, directory, self._deadline - time.monotonic(), say)
        stale = directory
        if kinds & self._run.kinds:
            stale = self.best.history.parent
            self.best = attrs.evolve(
                self.best,
                options=options,
                plan=options.given_plan,
                kinds=kinds,
                history=directory / "history.jsonl",
            )
        if stale.parent == self._directory:  # one of the tries
            shutil.rmtree(stale, ignore_errors=True)
        return kinds


def _early(plan: Plan) -> Plan:
    """The same faults, with the time before the first, and between two, cut short."""
    faults, moved_s, ends_s = [], 0.0, 0.0
    for number, fault in enumerate(plan.faults):
        gap_s = fault.at_s - ends_s
        moved_s += max(0.0, gap_s - (FIRST_AT_S if number == 0 else AFTER_S))
        ends_s = max(ends_s, fault.at_s + fault.for_s)
        faults.append(attrs.evolve(fault, at_s=round(fault.at_s - moved_s, 3)))
    return attrs.evolve(plan, faults=tuple(faults))
