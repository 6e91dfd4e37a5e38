"""Carrying out plans: faults overlap, wait, are seen or not, and the history tells all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chaos.cluster.cluster import Cluster, ClusterOptions
from chaos.history.format import FaultEvent
from chaos.history.recorder import Recorder
from chaos.nemesis.injectors.base import Injector
from chaos.nemesis.plan import PlanError, parse_plan
from chaos.nemesis.runner import Nemesis
from tests.chaos.pinging import PingTarget, settled
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("chaos-faults")

OVERLAPPING = """
version = 1
seed = 4

[[fault]]
kind = "proc.kill"
at = 0.1
for = 0.1
target = "n1"

[[fault]]
kind = "net.partition"
at = 0.1
for = 1.0
target = "n2"

[[fault]]
kind = "proc.pause"
at = 0.2
for = 0.2
target = "follower"
when = "serving"
"""


@pytest.fixture(scope="module")
def pingers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(PingTarget(), tmp_path_factory.mktemp("pingers"), ClusterOptions(seed=5))
    asyncio.run(cluster.start())
    yield cluster
    asyncio.run(cluster.stop())


@pytest.fixture
async def cluster(pingers: Cluster) -> AsyncIterator[Cluster]:
    await settled(pingers)
    yield pingers
    await pingers.mend()


async def carry_out(
    cluster: Cluster, text: str, path: Path, seconds: float | None = None
) -> list[FaultEvent]:
    with Recorder(path, {}) as recorder:
        await Nemesis(cluster, parse_plan(text), recorder, seconds).run()
        return recorder.fault_events


async def test_faults_overlap_or_wait_as_the_plan_says(cluster: Cluster, tmp_path: Path) -> None:
    events = await carry_out(cluster, OVERLAPPING, tmp_path / "history")
    by_fault = {
        number: [event for event in events if event.number == number] for number in (1, 2, 3)
    }
    for own in by_fault.values():
        assert [event.phase for event in own] == ["start", "effect", "end"]
        assert all(event.effective for event in own)
        assert len({event.target for event in own}) == 1
    kill, cut, pause = by_fault.values()
    assert kill[0].t < cut[2].t
    assert cut[0].t < kill[2].t, "both were there together"
    assert pause[0].t > max(kill[2].t, cut[2].t), "it waited for the end of both"
    assert (kill[0].target, cut[0].target) == (("n1",), ("n2",))
    assert pause[0].target[0] != "n1", "n1 leads the pingers, and a follower was asked for"
    assert kill[1].evidence.startswith("n1: n1 did not serve a linearizable read, exit code")
    assert kill[0].evidence == "proc.kill of n1"
    await settled(cluster)


async def test_a_fault_that_nobody_sees_is_told(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Injector, "evidence_timeout_s", 0.2)
    plan = 'version = 1\n[[fault]]\nkind = "net.drop"\nat = 0\nfor = 0.1\nrate = 0.0\n'
    events = await carry_out(cluster, plan, tmp_path / "history")
    assert [(event.phase, event.effective) for event in events] == [
        ("start", True),
        ("effect", False),
        ("end", True),
    ]
    assert "as if nothing had happened" in events[1].evidence


async def test_a_late_fault_that_does_not_fit_is_left_out(cluster: Cluster, tmp_path: Path) -> None:
    events = await carry_out(cluster, OVERLAPPING, tmp_path / "history", seconds=0.5)
    assert {event.number for event in events} == {1, 2}


async def test_a_member_that_is_not_there_is_named(cluster: Cluster, tmp_path: Path) -> None:
    plan = 'version = 1\n[[fault]]\nkind = "proc.kill"\nat = 0\nfor = 0.1\ntarget = "n7"\n'
    with pytest.raises(PlanError, match=r"proc\.kill strikes n7; the members are n1, n2, n3"):
        await carry_out(cluster, plan, tmp_path / "history")


async def test_an_interrupted_plan_leaves_nothing_running_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    plan = 'version = 1\n[[fault]]\nkind = "proc.restart_loop"\nat = 0\nfor = 60\nevery_s = 0.1\n'
    with Recorder(tmp_path / "history", {}) as recorder:
        running = asyncio.create_task(Nemesis(cluster, parse_plan(plan), recorder, None).run())
        await wait_until(lambda: len(recorder.fault_events) == 2, 30.0, "its effect was seen")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    starts = [process.starts for process in cluster.processes.values()]
    await cluster.mend()
    await settled(cluster)
    assert [process.starts for process in cluster.processes.values()] == starts
