"""Leases through real clients against real server processes."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.clusters import Cluster, Program
from tests.interop import require_program
from tests.kvstore.grpc_api import Api
from tests.waiting import wait_until


async def converse(api: Api) -> list[Any]:
    """Have one fixed conversation with a server, and return what it said, comparably."""
    said: list[Any] = []

    async def ask(name: str, request: Any, response: Any) -> Any:
        try:
            answer = await api.call(name, request, response)
        except grpc.aio.AioRpcError as error:
            said.append((name, error.code(), error.details()))
            return None
        assert answer.header.cluster_id and answer.header.member_id and answer.header.raft_term
        fields = {
            field.name: getattr(answer, field.name)
            for field in answer.DESCRIPTOR.fields
            if field.name not in ("header", "keys", "leases")
        }
        said.append((name, answer.header.revision, fields))
        return answer

    async def grant(lease_id: int, ttl_s: int) -> Any:
        request = pb.LeaseGrantRequest(ID=lease_id, TTL=ttl_s)
        answer = await ask("Lease/LeaseGrant", request, pb.LeaseGrantResponse)
        if answer is not None and lease_id == 0:
            assert 0 < answer.ID < 2**63
            said[-1][2]["ID"] = "chosen"
        return answer

    async def time_to_live(lease_id: int, keys: bool) -> None:
        request = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        answer = await ask("Lease/LeaseTimeToLive", request, pb.LeaseTimeToLiveResponse)
        said.append(sorted(answer.keys))
        if answer.grantedTTL > 0:
            assert answer.grantedTTL - 3 <= said[-2][2].pop("TTL") < answer.grantedTTL

    async def revoke(lease_id: int) -> None:
        request = pb.LeaseRevokeRequest(ID=lease_id)
        await ask("Lease/LeaseRevoke", request, pb.LeaseRevokeResponse)

    for lease_id, ttl_s in (
        (5, 1000),
        (5, 60),
        (-3, 60),
        (0, 9_000_000_000),
        (0, 9_000_000_001),
        (6, 9_000_000_001),
        (7, 100),
        (2**63 - 1, 300),
    ):
        await grant(lease_id, ttl_s)
    said.append([(await grant(0, ttl_s)).TTL for ttl_s in (-5, 0, 1, 2, 3)])
    for key in (b"z", b"a", b"m"):
        await api.put(key, lease=7)
    await api.put(b"m")
    for lease_id, keys in ((7, False), (7, True), (8, True), (0, True), (-3, True)):
        await time_to_live(lease_id, keys)
    request = pb.PutRequest(key=b"q", lease=404)
    await ask("KV/Put", request, pb.PutResponse)
    call = api.keep_alive()
    for lease_id in (7, 8, 0, -3):
        await call.write(pb.LeaseKeepAliveRequest(ID=lease_id))
        answer = await call.read()
        said.append(("keep alive", answer.header.revision, answer.ID, answer.TTL))
    await call.done_writing()
    said.append((await call.read() is grpc.aio.EOF, await call.code()))
    watch = api.watch()
    await watch.create(b"", b"\0")
    await watch.read()
    for lease_id in (0, 99, 7, 7, -3):
        await revoke(lease_id)
    deleted = await watch.read()
    said.append([str(event) for event in deleted.events])
    watch.call.cancel()
    listed = await api.call("Lease/LeaseLeases", pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse)
    said.append({status.ID for status in listed.leases} >= {5, 2**63 - 1})
    said.append({status.ID for status in listed.leases} & {7, -3, 6})
    return said


@pytest.mark.interop
async def test_every_answer_is_etcd_s(tmp_path: Path) -> None:
    require_program("etcd")
    answers = []
    for program in (Program.etcd(), Program.kvstore()):
        with Cluster(program, tmp_path / program.name, 1) as cluster:
            async with Api(cluster.endpoints[0]) as api:
                answers.append(await converse(api))
    theirs, ours = answers
    assert len(ours) > 30
    for number, (expected, got) in enumerate(zip(theirs, ours, strict=True)):
        assert got == expected, f"answer {number}"


class KeepAlive:
    """Renews a lease through one member until it is stopped, and notes the TTLs it was told."""

    def __init__(self, api: Api, lease_id: int) -> None:
        self.ttls: list[int] = []
        self._call = api.keep_alive()
        self._task = asyncio.create_task(self._renew(lease_id))

    async def _renew(self, lease_id: int) -> None:
        while True:
            await self._call.write(pb.LeaseKeepAliveRequest(ID=lease_id))
            self.ttls.append((await self._call.read()).TTL)
            await asyncio.sleep(0.2)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._call.cancel()


async def test_leases_on_three_members_outlive_their_leader_and_expire_once(
    tmp_path: Path,
) -> None:
    """Keepalives go through a follower; the leader is killed; then nobody renews any more."""
    with Cluster(Program.kvstore(), tmp_path, 3) as cluster:
        apis = {member.name: Api(member.client) for member in cluster.members}
        statuses = {name: await api.member_status() for name, api in apis.items()}
        leader = next(n for n, s in statuses.items() if s.header.member_id == s.leader)
        follower, other = (api for name, api in apis.items() if name != leader)
        ttl_s = 2
        kept = (await follower.grant(ttl_s)).ID
        left = (await apis[leader].grant(ttl_s)).ID
        for key in (b"kept/b", b"kept/a", b"kept/c"):
            await follower.put(key, lease=kept)
        await other.put(b"left/1", lease=left)
        for api in apis.values():
            answer = await api.time_to_live(kept, keys=True)
            assert answer.grantedTTL == ttl_s and 0 < answer.TTL <= ttl_s
            assert list(answer.keys) == [b"kept/a", b"kept/b", b"kept/c"]
            assert (await api.time_to_live(404)).TTL == -1
        watch = other.watch()
        await watch.create(b"", b"\0")
        await watch.read()
        keeper = KeepAlive(follower, kept)
        gone = await watch.read()
        assert [(e.type, e.kv.key) for e in gone.events] == [(1, b"left/1")]
        assert (await follower.time_to_live(left)).TTL == -1
        assert await other.count(b"kept/", b"kept0") == 3

        cluster.kill(next(member for member in cluster.members if member.name == leader))
        seen = len(keeper.ttls)
        await wait_until(lambda: len(keeper.ttls) > seen + 3, 30, "renewals by a new leader")
        assert set(keeper.ttls) == {ttl_s}, "no renewal was ever told that its lease is gone"
        answer = await other.time_to_live(kept)
        assert answer.TTL in (ttl_s - 1, ttl_s, ttl_s + 1)
        assert await other.count(b"kept/", b"kept0") == 3
        await keeper.stop()
        stopped = time.monotonic()
        gone = await watch.read(30)
        lived_s = time.monotonic() - stopped
        assert [(e.type, e.kv.key) for e in gone.events] == [
            (1, b"kept/a"),
            (1, b"kept/b"),
            (1, b"kept/c"),
        ], "all keys in one revision, in order"
        assert len({e.kv.mod_revision for e in gone.events}) == 1
        assert ttl_s - 0.5 < lived_s < ttl_s + 5
        for api in apis.values():
            await api.channel.close()


async def test_a_paused_server_does_not_expire_what_nobody_could_renew(tmp_path: Path) -> None:
    with Cluster(Program.kvstore(), tmp_path, 1) as cluster:
        process = cluster.members[0].process
        assert process is not None
        async with Api(cluster.endpoints[0]) as api:
            lease_id = (await api.grant(2)).ID
            await api.put(b"a", lease=lease_id)
            process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(3.5)  # the fault itself: time that must not count
            finally:
                process.send_signal(signal.SIGCONT)
            call = api.keep_alive()
            await call.write(pb.LeaseKeepAliveRequest(ID=lease_id))
            assert (await call.read()).TTL == 2
            assert await api.count(b"a") == 1
            call.cancel()
            await wait_until(lambda: gone(api, b"a"), 15, "expiry without renewals")


async def gone(api: Api, key: bytes) -> bool:
    return await api.count(key) == 0


async def test_leases_survive_a_restart_of_everything(tmp_path: Path) -> None:
    with Cluster(Program.kvstore(), tmp_path, 1) as cluster:
        async with Api(cluster.endpoints[0]) as api:
            lease_id = (await api.grant(100)).ID
            short_id = (await api.grant(2)).ID
            await api.put(b"a", lease=lease_id)
            await api.put(b"b", lease=short_id)
        cluster.kill(cluster.members[0], signal.SIGTERM)
        cluster.launch(cluster.members[0])
        cluster.wait_ready()
        async with Api(cluster.endpoints[0]) as api:
            answer = await api.time_to_live(lease_id, keys=True)
            assert answer.TTL >= 95 and list(answer.keys) == [b"a"]
            await wait_until(lambda: gone(api, b"b"), 15, "a lease of before the restart expires")
            assert await api.count(b"a") == 1
