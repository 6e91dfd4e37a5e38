"""Whole runs against kvstore on its default engine, every link through a proxy server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from chaos.cluster.cluster import Cluster, ClusterOptions
from chaos.cluster.links import peer_link
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.history.reader import read_history

pytestmark = pytest.mark.xdist_group("chaos-clusters")


def bytes_by_proxy(address: str) -> dict[str, int]:
    """Bytes that each proxy has sent, both directions together."""
    total: dict[str, int] = {}
    for line in requests.get(f"http://{address}/metrics", timeout=5).text.splitlines():
        if line.startswith("toxiproxy_proxy_sent_bytes_total"):
            name = line.partition('proxy="')[2].partition('"')[0]
            total[name] = total.get(name, 0) + int(line.rpartition(" ")[2])
    return total


async def test_peers_talk_through_their_links_alone(tmp_path: Path) -> None:
    """Traffic is seen on one link of each pair; with both cut the isolated leader is deposed."""
    async with Cluster(KvstoreTarget(), tmp_path, ClusterOptions()) as cluster:
        carried = bytes_by_proxy(cluster.proxies.address)
        for one, other in (("n1", "n2"), ("n1", "n3"), ("n2", "n3")):
            both = carried[peer_link(one, other)], carried[peer_link(other, one)]
            assert max(both) > 0, f"{one} and {other} do not talk through their links"
        leader = await cluster.leader()
        rest = [member for member in cluster.members if member != leader]
        await cluster.partition([[leader], rest])
        assert await cluster.leader(among=rest) != leader
        assert not await cluster.serves(leader, 0.5)
        await cluster.mend()
        await cluster.wait_serving(20.0)


def test_chaos_run_with_a_killed_leader(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "chaos.cli", "run", "--target", "kvstore"),
            *("--faults", "kill", "--seconds", "3", "--seed", "5"),
            *("--out", str(tmp_path), "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=110,
    )
    document = json.loads(done.stdout)
    assert document["engine"] == "native", "what nobody chose"
    unexpected = {cell["cell"]: cell["unexpected"] for cell in document["cells"]}
    assert unexpected == {"control": {}, "kill": {}}, document
    assert done.returncode == 0
    history = read_history(tmp_path / "kill" / "history.jsonl")
    effect = next(fault for fault in history.faults if fault.phase == "effect")
    assert "exit code -9" in effect.evidence
    assert effect.evidence.startswith("leader")
    roles = {status.role for status in history.statuses if status.member == effect.target[0]}
    assert {"leader", "silent"} <= roles, "who led, and that it was gone, is in the history"
    assert set(history.member_logs) == {"n1", "n2", "n3"}
