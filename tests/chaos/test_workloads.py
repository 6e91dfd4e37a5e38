"""Every workload on real processes without faults is ok, but for the one that must fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest

from chaos.checkers.assumptions import LoadFloor
from chaos.checkers.pipeline import Report, check_history
from chaos.cluster.cluster import Cluster, ClusterOptions
from chaos.cluster.targets.base import Api
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.cluster.targets.machine import MachineTarget
from chaos.history.format import Outcome
from chaos.history.reader import read_history
from chaos.history.recorder import Recorder
from chaos.verdict import Kind, Verdict
from chaos.workloads.base import Setting, Workload, WorkloadFailed
from chaos.workloads.locking import LockWorkload, UnfencedLockWorkload
from chaos.workloads.registry import WORKLOADS
from chaos.workloads.transactions import BankWorkload
from kvstore.client import AsyncClient
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("chaos-clusters")

SECONDS = 1.5
ENOUGH = 12
"""Operations that must be answered, however long that takes on a busy machine."""

ANY_LOAD = LoadFloor(ok_per_s=0.0, writes=1, reads=0)
ON_KVSTORE = [
    kind for kind in WORKLOADS.values() if kind.api is Api.KV and not issubclass(kind, LockWorkload)
]
ON_MACHINES = [kind for kind in WORKLOADS.values() if kind.api is Api.MACHINE]


async def run_workload(
    cluster: Cluster,
    kind: type[Workload[Any]],
    path: Path,
    until: Callable[[Workload[Any]], bool],
) -> Report:
    """Run a workload on a cluster that may hold other workloads' keys, and check its history."""
    header: dict[str, Any] = {"workload": kind.name}
    if kind.api is Api.KV:
        async with AsyncClient([*cluster.direct_addresses.values()], timeout_s=20.0) as client:
            header["base_revision"] = (await client.range("none")).header.revision
    if kind is BankWorkload:
        header["bank"] = BankWorkload.terms()
    load = attrs.evolve(kind.defaults, timeout_s=5.0)
    with Recorder(path, header) as recorder:
        addresses = cluster.client_addresses, cluster.direct_addresses
        workload = kind(Setting(*addresses, recorder, Random(7), load, header))
        try:
            await workload.setup()
            running = asyncio.create_task(workload.run())
            await asyncio.wait({running}, timeout=SECONDS)
            await wait_until(lambda: running.done() or until(workload), 40.0, kind.name)
            workload.stop()
            await running
            await workload.final_reads()
            await workload.collect()
        finally:
            await workload.close()
        recorder.close({})
    return check_history(read_history(path), ANY_LOAD)


def has_enough(workload: Workload[Any]) -> bool:
    """Whether enough operations have been answered."""
    return workload.setting.recorder.outcomes[Outcome.OK] >= ENOUGH


@pytest.mark.timeout(300)
async def test_every_workload_on_one_kvstore(tmp_path: Path) -> None:
    async with Cluster(KvstoreTarget("native"), tmp_path, ClusterOptions()) as cluster:
        for kind in ON_KVSTORE:
            path = tmp_path / f"{kind.name}.jsonl"
            report = await run_workload(cluster, kind, path, has_enough)
            assert report.verdict is Verdict.OK, (kind.name, report.findings)
            history = read_history(path)
            assert set(history.member_logs) == {"n1", "n2", "n3"}, kind.name
            assert {state.member for state in history.states} == {"n1", "n2", "n3"}, kind.name
        with pytest.raises(WorkloadFailed, match="n1 already holds keys, such as b'"):
            await ON_KVSTORE[0].prepare(cluster.direct_addresses)


@pytest.mark.timeout(240)
async def test_a_paused_holder_is_stopped_by_its_token_and_by_nothing_else(tmp_path: Path) -> None:
    """Both runs go on until the holder that was paused has tried to write."""

    def has_tried(workload: Workload[Any]) -> bool:
        assert isinstance(workload, LockWorkload)
        return workload.late_writes > 0 and has_enough(workload)

    async with Cluster(KvstoreTarget("native"), tmp_path, ClusterOptions()) as cluster:
        path = tmp_path / "fenced.jsonl"
        report = await run_workload(cluster, LockWorkload, path, has_tried)
        assert report.verdict is Verdict.OK, report.findings
        refused = [
            operation
            for operation in read_history(path).operations
            if operation.f == "write" and operation.output == {"applied": False}
        ]
        assert refused
        path = tmp_path / "unfenced.jsonl"
        report = await run_workload(cluster, UnfencedLockWorkload, path, has_tried)
        assert report.verdict is Verdict.VIOLATED
        assert Kind.NOT_THE_HOLDER in report.counts
        assert UnfencedLockWorkload.unsafe


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ON_MACHINES, ids=lambda kind: kind.name)
async def test_every_workload_on_its_machine(tmp_path: Path, kind: type[Workload[Any]]) -> None:
    async with Cluster(
        MachineTarget(kind.machine, "native"), tmp_path, ClusterOptions()
    ) as cluster:
        await kind.prepare(cluster.direct_addresses)
        report = await run_workload(cluster, kind, tmp_path / "history.jsonl", has_enough)
        assert report.verdict is Verdict.OK, report.findings
