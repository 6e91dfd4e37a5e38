"""Administration as a fault: the calls are made, again and again, and stop at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.cluster.cluster import Cluster, ClusterOptions
from chaos.cluster.targets.base import TargetUnavailable
from chaos.cluster.targets.etcd import EtcdTarget
from tests.chaos.pinging import inject, seen
from tests.interop import require_program, unavailable
from tests.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("chaos-clusters")]


async def test_each_kind_of_administration(tmp_path: Path) -> None:
    require_program("etcd")
    target = EtcdTarget()
    try:
        target.check()
    except TargetUnavailable as error:
        unavailable(str(error))
    async with Cluster(target, tmp_path, ClusterOptions()) as cluster:
        leader = await cluster.leader()
        for number in range(30):
            await cluster.control(leader).put("key", str(number))  # type: ignore[attr-defined]
        for kind, says, options in (
            ("admin.compact", f"{leader} compacted what is before revision", {"keep": 5}),
            ("admin.defragment", f"{leader} was defragmented", {}),
            ("admin.snapshot", f"bytes came from {leader}", {}),
            ("admin.transfer", f"{leader} handed leadership to", {"every_s": 1.0}),
        ):
            fault = inject(cluster, [leader], kind, **{"every_s": 0.05, **options})
            await fault.strike()
            assert says in await seen(fault)
            await fault.mend()
        await wait_until(lambda: _all_serve(cluster), 30.0, "every member serves")


async def _all_serve(cluster: Cluster) -> bool:
    return all([await cluster.serves(member) for member in cluster.members])
