"""Whole runs against a real etcd: quiet where all is well, and loud where it is not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.cell import CellOptions, run_cell
from chaos.cluster.cluster import Cluster, ClusterFailed, ClusterOptions
from chaos.cluster.targets.base import Launch, Layout, TargetUnavailable
from chaos.cluster.targets.etcd import EtcdTarget
from chaos.history.reader import read_history
from chaos.verdict import Kind, Verdict
from tests.interop import require_program, unavailable
from tests.waiting import wait_until_sync

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("chaos-clusters")]


@pytest.fixture
def target() -> EtcdTarget:
    require_program("etcd")
    found = EtcdTarget()
    try:
        found.check()
    except TargetUnavailable as error:
        unavailable(str(error))
    return found


@pytest.mark.parametrize("proxy", ["toxid", "toxiproxy"])
async def test_a_cluster_behind_either_proxy_server(
    target: EtcdTarget, tmp_path: Path, proxy: str
) -> None:
    """The isolated leader stops serving, the others elect another, and healing brings it back."""
    program = require_program("toxiproxy-server") if proxy == "toxiproxy" else None
    cluster = Cluster(target, tmp_path, ClusterOptions(proxy_program=program))
    async with cluster:
        leader = await cluster.leader()
        rest = [member for member in cluster.members if member != leader]
        await cluster.partition([[leader], rest])
        other = await cluster.leader(among=rest)
        assert other != leader
        assert not await cluster.serves(leader, 0.5)
        assert await cluster.serves(other)
        await cluster.mend()
        await cluster.wait_serving(15.0)
        await cluster.pause([other])
        assert not await cluster.serves(other, 0.3)
        await cluster.mend()
        await cluster.wait_serving(15.0)


async def test_a_member_that_cannot_start_is_told_with_its_log(
    target: EtcdTarget, tmp_path: Path
) -> None:
    class Misled(EtcdTarget):
        def launch(self, member: str, layout: Layout) -> Launch:
            return Launch((*super().launch(member, layout).command, "--no-such-flag"))

    cluster = Cluster(Misled(), tmp_path, ClusterOptions())
    with pytest.raises(ClusterFailed, match="no-such-flag"):
        await cluster.start()
    await cluster.stop()
    assert not any(process.running for process in cluster.processes.values())


async def test_a_partitioned_etcd_keeps_its_promises(target: EtcdTarget, tmp_path: Path) -> None:
    options = CellOptions(target=target, faults=("partition",), seconds=3.0, seed=11)
    result = await run_cell(options, tmp_path, lambda said: None)
    assert result.verdict is Verdict.OK, result.report.findings
    assert not (tmp_path / "data").exists()
    history = read_history(result.history_path)
    effect = next(fault for fault in history.faults if fault.phase == "effect")
    assert effect.kind == "net.partition"
    assert effect.evidence.startswith("leader")
    assert len(history.member_logs) == 3
    assert history.header["plan"]["fault"][0]["target"] == "leader"


class ForgetfulEtcd(EtcdTarget):
    """Members that start with an empty disk each time: acknowledged writes must get lost."""

    def launch(self, member: str, layout: Layout) -> Launch:
        forget = ("sh", "-c", 'rm -rf "$0" && exec "$@"', str(layout.data_directory(member)))
        return Launch((*forget, *super().launch(member, layout).command))


async def test_lost_disks_are_seen_and_losses_counted(target: EtcdTarget, tmp_path: Path) -> None:
    options = CellOptions(target=ForgetfulEtcd(), faults=("kill-all",), seconds=3.0, seed=1)
    said: list[str] = []
    result = await run_cell(options, tmp_path, said.append)
    assert result.verdict is Verdict.VIOLATED
    assert result.report.lost_writes > 5
    assert result.unexpected[Kind.LOST_WRITE] == result.report.lost_writes
    assert Kind.DUPLICATE_REVISION in result.report.counts
    assert (tmp_path / "data").exists()
    assert any("proc.kill of all" in text for text in said)


def processes_about(path: Path) -> list[str]:
    """Command lines of live processes that name ``path``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if str(path) in words and entry.name != str(os.getpid()):
                    found.append(words)
    return found


def test_an_interrupted_run_leaves_no_process(target: EtcdTarget, tmp_path: Path) -> None:
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "chaos.cli", "run", "--target", "etcd", "--faults", "kill"),
            *("--seconds", "60", "--seed", "1", "--out", str(tmp_path / "run")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        history = tmp_path / "run" / "control" / "history.jsonl"
        wait_until_sync(lambda: history.exists() and history.stat().st_size > 5000, 30.0)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=30)
    assert run.returncode == 2
    assert "interrupted" in output
    assert "Traceback" not in output
    assert processes_about(tmp_path) == []
