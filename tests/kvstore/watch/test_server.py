"""Watches through real clients against real server processes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.clusters import Cluster, Program
from tests.interop import require_program
from tests.kvstore.grpc_api import Api, WatchCall

STOP_MAX_S = 2.0
HAS_LEADER = (("hasleader", "true"),)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(Program.kvstore(), tmp_path_factory.mktemp("one"), 1) as cluster:
        yield cluster


@pytest.fixture
async def api(one: Cluster) -> AsyncIterator[Api]:
    async with Api(one.endpoints[0]) as connection:
        yield connection


def revisions(responses: list[pb.WatchResponse]) -> list[int]:
    return [event.kv.mod_revision for response in responses for event in response.events]


async def converse(api: Api) -> list[dict[str, Any]]:
    """Have one fixed conversation with a server, and return what it said, comparably."""
    said: list[dict[str, Any]] = []

    async def hear(watch: WatchCall, responses: int) -> None:
        for _ in range(responses):
            response = await watch.read()
            header = response.header
            said.append(
                {
                    "watch_id": response.watch_id,
                    "revision": header.revision,
                    "header": bool(header.cluster_id and header.member_id and header.raft_term),
                    "created": response.created,
                    "canceled": response.canceled,
                    "compact_revision": response.compact_revision,
                    "cancel_reason": response.cancel_reason,
                    "fragment": response.fragment,
                    "events": [str(event) for event in response.events],
                }
            )

    def put(key: bytes, value: bytes = b"x") -> pb.PutRequest:
        return pb.PutRequest(key=key, value=value)

    def delete(key: bytes, range_end: bytes = b"") -> pb.DeleteRangeRequest:
        return pb.DeleteRangeRequest(key=key, range_end=range_end)

    for number in range(5):
        await api.put(b"a", b"%d" % number)
    watch = api.watch()
    for fields in (
        {"key": b"a"},
        {"key": b"a", "watch_id": 7},
        {"key": b"a", "watch_id": 7},
        {"key": b"a", "watch_id": 1},
        {"key": b"a"},
        {"key": b"b", "range_end": b"a"},
        {"key": b"b", "range_end": b"b"},
        {"key": b"", "range_end": b"", "watch_id": -5},
    ):
        await watch.create(**fields)
        await hear(watch, 1)
    for watch_id in (999, 7, 7, 0, 1, 2):
        await watch.cancel(watch_id)
    await hear(watch, 4)
    await watch.progress()
    await hear(watch, 1)
    await watch.create(b"", b"\0", watch_id=60, prev_kv=True)
    await hear(watch, 1)
    await api.txn(put(b"f3"), put(b"f1"), put(b"a", b"new"))
    await hear(watch, 1)
    await api.txn(delete(b"f", b"g"), put(b"g"))
    await hear(watch, 1)
    await api.put(b"\0")
    await watch.cancel(60)
    await hear(watch, 3)  # -5 and 60 see the same put, in either order
    said[-3:] = sorted(said[-3:], key=lambda item: (item["canceled"], item["watch_id"]))
    await api.compact(4)
    history = api.watch()
    for start, responses in ((2, 2), (4, 2), (5, 2)):
        await history.create(b"a", start_revision=start, prev_kv=True, watch_id=start)
        await hear(history, responses)
    await history.cancel(2)
    await history.cancel(2)
    await hear(history, 1)
    await history.create(b"f", b"g", start_revision=5, filters=[pb.WatchCreateRequest.NOPUT])
    await hear(history, 2)
    large = api.watch()
    await large.create(b"L", b"M", fragment=True, prev_kv=True)
    await large.create(b"L", b"M", start_revision=9, watch_id=3)
    await hear(large, 2)
    for number in range(4):
        await api.put(b"L%d" % number, b"x" * 900_000)
        await hear(large, 2)
        said[-2:] = sorted(said[-2:], key=lambda item: int(item["watch_id"]))
    await large.cancel(3)
    await hear(large, 1)
    await api.txn(delete(b"L", b"M"))
    await hear(large, 2)
    await large.call.done_writing()
    await api.put(b"Lx")
    await hear(large, 1)
    for stream in (watch, history, large):
        stream.call.cancel()
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
        assert got == expected, f"response {number}"


async def test_a_client_that_reads_late_gets_everything(one: Cluster, api: Api) -> None:
    """While one client reads nothing of 20 MB, others are served; then it gets all of it."""
    start = await api.put(b"late/start")
    value = b"x" * 20_000
    expected = list(range(start + 1, start + 1001))
    async with Api(one.endpoints[0]) as other:
        slow, fast = other.watch(), api.watch()
        for watch in (slow, fast):
            await watch.create(b"late/", b"late0", start_revision=start + 1)
            await watch.read()
        reading = asyncio.create_task(fast.until(lambda got: len(revisions(got)) >= 1000, 60))
        for number in range(1000):
            await api.put(b"late/%d" % (number % 7), value)
        assert revisions(await reading) == expected
        late = await slow.until(lambda got: len(revisions(got)) >= 1000, 60)
        assert revisions(late) == expected
        assert len(late) < 1000, "what it missed came from history, many revisions a response"
        slow.call.cancel()
        fast.call.cancel()


async def test_a_malformed_request_ends_the_stream_with_a_clear_status(api: Api) -> None:
    call = api.channel.stream_stream("/etcdserverpb.Watch/Watch")()
    await call.write(b"\xff\xff\xff")
    status, details = await WatchCall(call).end()
    assert status is grpc.StatusCode.INTERNAL and "unmarshalling" in details


async def test_streams_that_clients_leave_are_forgotten(one: Cluster, api: Api) -> None:
    async with Api(one.endpoints[0]) as other:
        watches = [other.watch() for _ in range(50)]
        for watch in watches:
            await watch.create(b"left")
            await watch.read()
        for watch in watches[:25]:
            watch.call.cancel()
    before = time.monotonic()
    for _ in range(20):
        await api.put(b"left")
    assert time.monotonic() - before < 5


async def test_sigterm_ends_a_thousand_watches_in_two_seconds(tmp_path: Path) -> None:
    with Cluster(Program.kvstore(), tmp_path, 1) as cluster:
        apis = [Api(cluster.endpoints[0]) for _ in range(10)]
        watches = [api.watch() for api in apis for _ in range(100)]
        for watch in watches:
            await watch.create(b"a", b"b")
        for watch in watches:
            assert (await watch.read()).created
        ends = [asyncio.create_task(watch.end()) for watch in watches]
        process = cluster.members[0].process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code = await asyncio.to_thread(process.wait, 10)
        took_s = time.monotonic() - started
        statuses = {status for status, _ in await asyncio.gather(*ends)}
        for api in apis:
            await api.channel.close()
    assert code == 0
    assert took_s < STOP_MAX_S
    assert statuses == {grpc.StatusCode.UNAVAILABLE}


async def test_three_members_show_one_history_and_need_a_leader_where_asked(
    tmp_path: Path,
) -> None:
    """Watches on every member; one member is killed and comes back; then the leader is lost."""
    with Cluster(Program.kvstore(), tmp_path, 3) as cluster:
        apis = [Api(endpoint) for endpoint in cluster.endpoints]
        watches = [api.watch() for api in apis]
        for watch in watches:
            await watch.create(b"", b"\0", prev_kv=True, start_revision=2)
            await watch.read()
        for number in range(30):
            await apis[number % 3].put(b"k%d" % (number % 4), b"%d" % number)
        for watch in watches:
            got = await watch.until(lambda responses: len(revisions(responses)) >= 30)
            assert revisions(got) == list(range(2, 32))
            previous: dict[bytes, bytes] = {}
            for event in (event for response in got for event in response.events):
                assert event.prev_kv.value == previous.get(event.kv.key, b"")
                previous[event.kv.key] = event.kv.value

        statuses = [await api.member_status() for api in apis]
        away = next(n for n, s in enumerate(statuses) if s.header.member_id != s.leader)
        apis.append(apis.pop(away))
        watches.append(watches.pop(away))
        cluster.members.append(cluster.members.pop(away))
        cluster.kill(cluster.members[2])
        status, _ = await watches[2].end()
        assert status is grpc.StatusCode.UNAVAILABLE
        for _ in range(10):
            await apis[0].put(b"while-away")
        cluster.launch(cluster.members[2])
        resumed = apis[2].watch()
        await resumed.create(b"", b"\0", start_revision=32)
        got = await resumed.until(lambda responses: len(revisions(responses)) >= 10, 40)
        assert revisions(got) == list(range(32, 42)), "resumed without gap"

        strict, patient = apis[0].watch(HAS_LEADER), apis[0].watch()
        for watch in (strict, patient):
            await watch.create(b"a")
            assert (await watch.read()).created
        for member in cluster.members[1:]:
            cluster.kill(member)
        status, details = await strict.end(30)
        assert (status, details) == (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        refused = apis[0].watch(HAS_LEADER)
        assert (await refused.end())[1] == "etcdserver: no leader"
        await patient.progress()
        assert (await patient.read()).watch_id == -1, "who did not ask stays connected"
        for api in apis:
            await api.channel.close()
