"""Leases that run out: what is deleted, in which revisions, as both systems' watchers see it.

When a lease ends is each system's own matter (a second or so), and so is the order of leases that
end together; the rest is not: all keys of a lease in one revision, in the order of keys.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2
from tests.clusters import Cluster, Program
from tests.interop import require_program
from tests.kvstore.grpc_api import Api

SEED = 20260727
LEASES = 20
KEYS_OF_EACH = 3
SHORT_TTLS = (-1, 0, 1, 2, 3)
"""No lease is shorter than 2 s with the default election timeout, whatever is asked for."""

EXPIRY_TIMEOUT_S = 30.0

pytestmark = pytest.mark.interop

Outcome = tuple[list[int], list[list[bytes]], int]


async def expire(endpoints: Sequence[str]) -> Outcome:
    """Grant leases at random members, attach keys, and wait until a watcher saw them all go.

    Returns:
        the TTLs that were granted; for each revision that deleted keys, these keys in the order of
        their events; and the store's revision after all.
    """
    keys, members = random.Random(SEED), random.Random(SEED)
    apis = [Api(endpoint) for endpoint in endpoints]
    watch = members.choice(apis).watch()
    try:
        await watch.create(key=b"lease/", range_end=b"lease0")
        granted = []
        for lease in range(1, LEASES + 1):
            answer = await members.choice(apis).grant(SHORT_TTLS[lease % len(SHORT_TTLS)], lease)
            granted.append(answer.TTL)
            for key in keys.sample(range(100), KEYS_OF_EACH):
                name = f"lease/{lease:02d}/{key:02d}".encode()
                await members.choice(apis).put(name, lease=lease)
        gone: dict[int, list[bytes]] = {}

        def all_gone(responses: list[pb.WatchResponse]) -> bool:
            gone.clear()
            for response in responses:
                for event in response.events:
                    if event.type == mvccpb_pb2.Event.DELETE:
                        gone.setdefault(event.kv.mod_revision, []).append(event.kv.key)
            return sum(map(len, gone.values())) >= LEASES * KEYS_OF_EACH

        await watch.until(all_gone, EXPIRY_TIMEOUT_S)
        answer = await members.choice(apis).call(
            "KV/Range", pb.RangeRequest(key=b"lease/", range_end=b"lease0"), pb.RangeResponse
        )
        assert answer.count == 0
        return granted, sorted(gone.values()), answer.header.revision
    finally:
        watch.call.cancel()
        for api in apis:
            await api.channel.close()


async def test_leases_run_out_alike(tmp_path: Path) -> None:
    require_program("etcd")
    with (
        Cluster(Program.etcd(), tmp_path / "oracle", size=1) as oracle,
        Cluster(Program.kvstore(), tmp_path / "kvstore") as subject,
    ):
        expected, actual = await asyncio.gather(expire(oracle.endpoints), expire(subject.endpoints))
    assert actual == expected
    granted, together, _ = expected
    assert set(granted) == {2, 3}
    assert len(together) == LEASES
    assert all(len(keys) == KEYS_OF_EACH and keys == sorted(keys) for keys in together)
