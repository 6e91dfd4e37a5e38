"""One calibration: what it does, what must be found, and what was.

A scene has a cluster and a history. Its operations, watches and faults are recorded as in any run;
what is found in them is what the checkers that a scenario names say, and nothing else counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from chaos.checkers.pipeline import Report
from chaos.cluster.cluster import Cluster, ClusterOptions
from chaos.cluster.targets.base import Target
from chaos.history.format import History, Operation, Outcome
from chaos.history.reader import read_history
from chaos.history.recorder import Recorder
from chaos.observer import observe_members
from chaos.report.page import write_report
from chaos.verdict import CheckResult, Kind, Verdict, worst

WAIT_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.02
PROCESSES_NAMED: Final = 1000
"""Below this a scenario gives its processes numbers itself."""

Body = Callable[["Scene"], Awaitable[None]]
Progress = Callable[[str], None]


@attrs.frozen(slots=True, kw_only=True)
class Scenario:
    """A known defect, and how it is brought about.

    Args:
        name: as ``chaos calibrate --only`` takes it.
        system: what has the defect: ``etcd`` or ``pysyncobj``.
        defect: what is wrong with it, in one sentence, with where it is reported.
        body: brings it about.
        checks: the checkers that judge the history.
        finds: the kinds of finding of which at least one must be there.
        target: makes what is started.
        nodes: members.
        rounds: how often to try, with a fresh cluster each time, until it is found.
        workload: whose checks ``chaos check`` makes of the history afterwards.
        control: makes a system that does not have the defect and can play the same body.
    """

    name: str
    system: str
    defect: str
    body: Body
    checks: tuple[Callable[[History], CheckResult], ...]
    finds: frozenset[Kind]
    target: Callable[[], Target]
    nodes: int = 3
    rounds: int = 1
    workload: str
    control: Callable[[], Target] | None = None


@attrs.frozen(slots=True)
class Control:
    """What came of a scenario on a system without its defect.

    Args:
        target: the system.
        verdict: of the scenario's checkers; ``unknown`` if it was not played to its end.
        seconds: how long it took.
        evidence: the first finding, or why there is no verdict; empty if all is well.
        history: where it is kept.
    """

    target: str
    verdict: Verdict
    seconds: float
    evidence: str
    history: Path

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "target": self.target,
            "found": self.verdict is Verdict.VIOLATED,
            "verdict": self.verdict.value,
            "seconds": round(self.seconds, 1),
            "evidence": self.evidence,
            "history": str(self.history),
        }


@attrs.frozen(slots=True)
class Calibration:
    """What came of a scenario.

    Args:
        scenario: which.
        found: whether the checkers found what they must.
        seconds: how long it took, over all rounds.
        rounds: how many there were.
        evidence: the first finding of a kind that counts, or why there is none.
        history: where the last round's history is kept.
        control: what came of it on a system without the defect; None if that was not asked for, or
            none can play it.
    """

    scenario: Scenario
    found: bool
    seconds: float
    rounds: int
    evidence: str
    history: Path
    control: Control | None = None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.scenario.name,
            "system": self.scenario.system,
            "defect": self.scenario.defect,
            "found": self.found,
            "seconds": round(self.seconds, 1),
            "rounds": self.rounds,
            "evidence": self.evidence,
            "history": str(self.history),
            "control": self.control and self.control.as_json(),
        }


class Scene:
    """What a scenario's body works on.

    Args:
        cluster: running.
        recorder: of the history.
        say: is told what goes on.
        round: which attempt this is, from 1; a seed for what a body draws.
    """

    def __init__(self, cluster: Cluster, recorder: Recorder, say: Progress, round: int) -> None:
        self.cluster = cluster
        self.recorder = recorder
        self.say = say
        self.round = round
        self._processes = PROCESSES_NAMED
        self._closing: list[Callable[[], Awaitable[None]]] = []

    def new_process(self) -> int:
        """The number of a process that did not exist before: for who had an unknown outcome."""
        self._processes += 1
        return self._processes

    async def attempt(
        self,
        process: int,
        f: str,
        key: str,
        send: Callable[[Operation], Awaitable[None]],
        *,
        value: str | None = None,
        input: Any = None,
        unknown: tuple[type[Exception], ...] = (Exception,),
    ) -> Operation:
        """Make one operation and record it; whatever it raises is an unknown outcome.

        Args:
            process, f, key, value, input: see ``Operation``.
            send: makes the request and puts what came back into the operation.
            unknown: what it may raise.
        """
        operation = self.recorder.invoke(process, f, key, value, None, input)
        try:
            await send(operation)
        except unknown as error:
            operation.error = f"{type(error).__name__}: {error}"
            self.recorder.complete(operation, Outcome.UNKNOWN)
        else:
            self.recorder.complete(operation, Outcome.OK)
        return operation

    async def until(
        self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_TIMEOUT_S
    ) -> bool:
        """Wait for a condition; return whether it came true in time, and say so if not."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                self.say(f"not in {timeout_s:g} s: {what}")
                return False
            await asyncio.sleep(POLL_S)
        return True

    def at_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call this when the scene is over."""
        self._closing.append(close)

    async def close(self) -> None:
        """Close what was opened in the scene."""
        while self._closing:
            await self._closing.pop()()


async def calibrate(
    scenario: Scenario, directory: Path, say: Progress, time_limit_s: float
) -> Calibration:
    """Run a scenario until its defect is found, its rounds are over, or its time is.

    Raises:
        ClusterFailed, ProcessFailed, ProxyServerError: its cluster could not be started.
    """
    began = time.monotonic()
    evidence, path, number, found = "", directory / "history.jsonl", 0, False
    while number < scenario.rounds and not found:
        number += 1
        path = directory / f"round-{number}" / "history.jsonl"
        left = time_limit_s - (time.monotonic() - began)
        try:
            async with asyncio.timeout(max(1.0, left)):
                await _play(scenario, path, say, number, scenario.target())
        except TimeoutError:
            evidence = f"not found in {time_limit_s:g} s"
            break
        report = await asyncio.to_thread(judge, scenario, path)
        findings = [finding for finding in report.findings if finding.kind in scenario.finds]
        found = bool(findings)
        evidence = findings[0].text if found else _why_not(report)
        say(f"round {number}: {'found' if found else 'not found'}")
    return Calibration(scenario, found, time.monotonic() - began, number, evidence, path)


async def play_control(
    scenario: Scenario, directory: Path, say: Progress, time_limit_s: float
) -> Control:
    """Play a scenario once on the system that does not have its defect.

    Raises:
        ClusterFailed, ProcessFailed, ProxyServerError: its cluster could not be started.
    """
    assert scenario.control is not None
    target, began = scenario.control(), time.monotonic()
    path = directory / "control" / "history.jsonl"

    def told(verdict: Verdict, evidence: str) -> Control:
        name = f"{target.name} on {target.engine}"
        return Control(name, verdict, time.monotonic() - began, evidence, path)

    try:
        async with asyncio.timeout(time_limit_s):
            await _play(scenario, path, say, 1, target)
    except TimeoutError:
        return told(Verdict.UNKNOWN, f"not played to its end in {time_limit_s:g} s")
    report = await asyncio.to_thread(judge, scenario, path)
    findings = report.findings
    return told(report.verdict, findings[0].text if findings else "")


def judge(scenario: Scenario, path: Path) -> Report:
    """Let a scenario's checkers judge its history, and write its page."""
    history = read_history(path)
    results = tuple(check(history) for check in scenario.checks)
    report = Report(worst(result.verdict for result in results), results)
    write_report(path, report)
    return report


def _why_not(report: Report) -> str:
    if report.verdict is Verdict.VIOLATED:
        kinds = ", ".join(kind.value for kind in report.counts)
        return f"something else was found: {kinds}"
    texts = [finding.text for finding in report.findings]
    return f"{report.verdict.value}{': ' + texts[0] if texts else ''}"


async def _play(scenario: Scenario, path: Path, say: Progress, round: int, target: Target) -> None:
    options = ClusterOptions(nodes=scenario.nodes, seed=round, snapshot_count=200)
    cluster = Cluster(target, path.parent, options)
    say(f"round {round}: starting {scenario.nodes} members")
    header = {
        "target": target.name,
        "target_version": target.version(),
        "engine": target.engine,
        "proxies": "toxid",
        "seed": round,
        "faults": [scenario.name],
        "cluster": attrs.asdict(options),
        "workload": scenario.workload,
        "floor": {"ok_per_s": 0.0, "writes": 0, "reads": 0},
        "base_revision": 1,
        "replay": f"chaos calibrate {scenario.system} --only {scenario.name}",
    }
    async with cluster:
        with Recorder(path, header) as recorder:
            scene = Scene(cluster, recorder, say, round)
            watching = asyncio.create_task(observe_members(cluster, recorder))
            try:
                await scenario.body(scene)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await scene.close()
            recorder.close({"outcomes": {o.value: n for o, n in recorder.outcomes.items()}})
    cluster.remove_data()


def pick(scenarios: Sequence[Scenario], only: Sequence[str]) -> list[Scenario]:
    """The scenarios with these names; all if there are none.

    Raises:
        KeyError: one is not known; its argument is the text to show.
    """
    by_name = {scenario.name: scenario for scenario in scenarios}
    for name in only:
        if name not in by_name:
            raise KeyError(f"{name!r} is no scenario; there are {', '.join(by_name)}")
    return [by_name[name] for name in only] if only else list(scenarios)
