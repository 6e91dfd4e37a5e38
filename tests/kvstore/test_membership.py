"""Members come and go while the cluster serves, through etcd's own etcdctl."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from kvstore.client import AsyncClient, EtcdError, OutcomeUnknown
from kvstore.errors import Code
from tests.clusters import Cluster, Member, Program
from tests.interop import free_ports, require_program
from tests.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("membership")]

SETTLE_S = 60.0


class Changing(Cluster):
    """A cluster whose members change: who joined later is told of all others when it starts."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Program.kvstore(), directory)
        self.joined: set[str] = set()
        self.learners: set[str] = set()

    @property
    def serving(self) -> list[str]:
        """The addresses of those that serve everything: they run, and vote."""
        return [
            each.client for each in self.members if each.running and each.name not in self.learners
        ]

    def command(self, member: Member) -> list[str]:
        """A founder names the founders, a later member everybody."""
        everybody = self.members
        if member.name not in self.joined:
            self.members = [each for each in everybody if each.name not in self.joined]
        words = super().command(member)
        self.members = everybody
        if member.name in self.joined:
            words[words.index("new")] = "existing"
        return words

    def make_room(self) -> Member:
        """Return a member that is not started, with ports of its own."""
        client, peer = free_ports(2)
        number = len(self.members) + len(self.joined)
        first = self.members[0]
        name = f"late{number}"
        self.joined.add(name)
        self.learners.add(name)
        self.members.append(
            Member(
                name=name,
                client=f"127.0.0.1:{client}",
                peer=f"127.0.0.1:{peer}",
                data=first.data.with_name(f"{name}.etcd"),
                log=first.log.with_name(f"{name}.log"),
            )
        )
        return self.members[-1]


def ctl(cluster: Changing, *words: str) -> tuple[int, str, str]:
    """Run etcdctl on the members that run; return status, output and the last line of errors."""
    endpoints = ",".join(cluster.serving)
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ETCD")}
    done = subprocess.run(
        [require_program("etcdctl"), "--endpoints", endpoints, "--command-timeout=30s", *words],
        env={**environment, "ETCDCTL_API": "3"},
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    errors = [line for line in done.stderr.splitlines() if line and not line.startswith("{")]
    return done.returncode, done.stdout, errors[-1] if errors else ""


async def wanted(cluster: Changing, *words: str) -> str:
    """Run etcdctl until it succeeds; what it says before must be a refusal that passes."""
    passing = ("in sync with leader", "unhealthy cluster", "leader changed", "timed out")
    found = ""

    async def done() -> bool:
        nonlocal found
        status, found, error = await asyncio.to_thread(ctl, cluster, *words)
        assert status == 0 or any(each in error for each in passing), (words, error)
        return status == 0

    await wait_until(done, SETTLE_S, f"etcdctl {' '.join(words)}")
    return found


@attrs.define
class Load:
    """Puts, one after another; a failed one is put again until it succeeds."""

    acknowledged: dict[str, str] = attrs.field(factory=dict)
    failed: list[str] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)
    slowest_retry_s: float = 0.0


@asynccontextmanager
async def load(cluster: Changing, writers: int = 2) -> AsyncIterator[Load]:
    """Write while the block runs; at its end every writer has made progress."""
    found = Load()

    async def write(name: int) -> None:
        number = 0
        while True:
            number += 1
            key = f"/load/{name}/{number}"
            failed_at = 0.0
            while True:
                try:
                    async with AsyncClient(cluster.serving[name % 2 :], timeout_s=2.0) as client:
                        for _ in range(50):
                            await client.put(key, str(number))
                            if failed_at:
                                took = time.monotonic() - failed_at
                                found.slowest_retry_s = max(found.slowest_retry_s, took)
                                failed_at = 0.0
                            found.acknowledged[key] = str(number)
                            number += 1
                            key = f"/load/{name}/{number}"
                    break
                except EtcdError as error:
                    failed_at = failed_at or time.monotonic()
                    found.failed.append(str(error))
                    unknown = isinstance(error, OutcomeUnknown)
                    if error.status.code is not Code.UNAVAILABLE and not unknown:
                        found.wrong.append(str(error))
                    await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(write(number)) for number in range(writers)]
    try:
        yield found
        before = len(found.acknowledged)
        await wait_until(lambda: len(found.acknowledged) > before + 20, SETTLE_S, "puts go on")
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def listed(cluster: Changing) -> list[dict[str, Any]]:
    """The members, as etcdctl sees them."""
    _, text, error = ctl(cluster, "member", "list", "-w", "json")
    assert not error
    found: list[dict[str, Any]] = json.loads(text)["members"]
    return found


async def grow(cluster: Changing) -> None:
    """Add a learner, start it with the settings that etcdctl prints, promote it."""
    late = cluster.make_room()
    words = ("member", "add", late.name, "--learner", f"--peer-urls=http://{late.peer}")
    added = await wanted(cluster, *words)
    id = re.match(r"Member\s+([0-9a-f]+) added to cluster", added)
    assert id is not None, added
    settings = dict(re.findall(r'^(ETCD_\w+)="(.*)"$', added, re.M))
    assert settings["ETCD_INITIAL_CLUSTER_STATE"] == "existing"
    assert f"{late.name}=http://{late.peer}" in settings["ETCD_INITIAL_CLUSTER"]
    words_of = cluster.command(late)
    position = words_of.index("--initial-cluster") + 1
    assert set(words_of[position].split(",")) == set(settings["ETCD_INITIAL_CLUSTER"].split(","))
    cluster.launch(late)
    await asyncio.to_thread(cluster.wait_ready)
    await learner_answers(late)
    assert "promoted in cluster" in await wanted(cluster, "member", "promote", id[1])
    cluster.learners.clear()


async def learner_answers(learner: Member) -> None:
    """A learner serves reads of its own state, and says by name that it does nothing else."""
    async with AsyncClient(learner.client, timeout_s=SETTLE_S, dial_timeout_s=SETTLE_S) as client:
        assert (await client.status()).is_learner
        await client.get("/load/0/1", serializable=True)
        for call in (client.put("k", "v"), client.get("k"), client.lease_grant(60)):
            with pytest.raises(EtcdError, match=r"^etcdserver: rpc not supported for learner$"):
                await call


async def shrink(cluster: Changing, id: str, name: str) -> list[str]:
    """Remove a member; its process ends by itself, without failure. Return its command line."""
    leaving = next(each for each in cluster.members if each.name == name)
    assert "removed from cluster" in await wanted(cluster, "member", "remove", id)
    process = leaving.process
    assert process is not None
    status = await asyncio.to_thread(process.wait, SETTLE_S)
    assert status == 0, leaving.log.read_text()[-2000:]
    leaving.process = None
    cluster.members.remove(leaving)
    assert isinstance(process.args, list)
    return [str(word) for word in process.args]


async def refused(cluster: Changing, command: list[str]) -> None:
    """Start a member that was removed; the last thing that it says is that, and what to do."""
    ended = await asyncio.to_thread(
        subprocess.run,
        command,
        env={**os.environ, **cluster.program.environment},
        capture_output=True,
        timeout=SETTLE_S,
        check=False,
        text=True,
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-2:]
    said = next(line for line in last if line.startswith("kvstore: "))
    assert "was removed from its group for good" in said
    assert "add it as a new member" in said


async def test_three_members_become_five_and_three_again(tmp_path: Path) -> None:
    cluster = Changing(tmp_path)
    with cluster:
        async with load(cluster) as writes:
            for _ in range(2):
                await grow(cluster)
            found = await asyncio.to_thread(listed, cluster)
            assert len(found) == 5
            assert not any(each.get("isLearner") for each in found)
            assert {each["name"] for each in found} == {each.name for each in cluster.members}
            names = {f"{each['ID']:x}": each["name"] for each in found}
            for _ in range(2):  # the leader, each time
                async with AsyncClient(cluster.serving, dial_timeout_s=SETTLE_S) as client:
                    leader = f"{(await client.status()).leader:x}"
                removed = await shrink(cluster, leader, names[leader])
            await refused(cluster, removed)
        assert not writes.wrong, writes.wrong
        assert len(await asyncio.to_thread(listed, cluster)) == 3
        for member in cluster.members:
            async with AsyncClient(
                member.client, timeout_s=SETTLE_S, dial_timeout_s=SETTLE_S
            ) as client:
                pairs = await client.get_prefix("/load/")
            there = {pair.key.decode(): pair.value.decode() for pair in pairs}
            assert writes.acknowledged.items() <= there.items(), member.name
        await alone_and_back(cluster)
    for log in await asyncio.to_thread(lambda: list(tmp_path.glob("*.log"))):
        assert "Traceback" not in log.read_text(), log


async def alone_and_back(cluster: Changing) -> None:
    """Whoever joined comes back from its own disk; with the others lost, it goes on alone."""
    late = next(each for each in cluster.members if each.name in cluster.joined)
    for flags in ((), ("--force-new-cluster",), ()):
        if flags:
            for member in cluster.members:
                cluster.kill(member)
        cluster.kill(late)
        cluster.flags = flags
        cluster.launch(late)
        await asyncio.to_thread(cluster.wait_ready)
    (only,) = await asyncio.to_thread(listed, cluster)
    assert only["name"] == late.name
    async with AsyncClient(late.client, timeout_s=SETTLE_S, dial_timeout_s=SETTLE_S) as client:
        await client.put("/alone", "")
        assert await client.get("/load/0/1") is not None
