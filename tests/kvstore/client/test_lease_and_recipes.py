"""Leases, locks with fencing tokens, and elections, against real servers."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from kvstore.client import AsyncClient, Code, EtcdError, LeaseLost, Put
from tests.kvstore.client.servers import cluster
from tests.waiting import wait_until


async def test_lease_calls(client: AsyncClient) -> None:
    lease = await client.lease_grant(60)
    await client.put("/leased", "1", lease=lease.id)
    info = await client.lease_time_to_live(lease.id, keys=True)
    assert info.granted_ttl_s == 60
    assert 50 < info.ttl_s <= 60
    assert info.keys == (b"/leased",)
    assert lease.id in await client.leases()
    assert await client.lease_keepalive(lease.id) == 60
    await client.lease_revoke(lease.id)
    assert await client.get("/leased") is None
    assert (await client.lease_time_to_live(lease.id)).ttl_s == -1
    with pytest.raises(LeaseLost):
        await client.lease_keepalive(lease.id)
    with pytest.raises(EtcdError, match="requested lease not found") as gone:
        await client.lease_revoke(lease.id)
    assert gone.value.status.code is Code.NOT_FOUND
    with pytest.raises(EtcdError, match="too large lease TTL"):
        await client.lease_grant(9_000_000_001)


async def test_a_lease_is_kept_alive_and_revoked_at_the_end(client: AsyncClient) -> None:
    async with client.lease(2) as lease:
        await client.put("/alive", "1", lease=lease.id)
        began = asyncio.get_running_loop().time()
        # Longer than the lease lives without renewals, by a second: expiry comes within one.
        while asyncio.get_running_loop().time() - began < lease.ttl_s + 1.5:
            assert await client.get("/alive") is not None
            await asyncio.sleep(0.2)
        assert not lease.is_lost
    assert await client.get("/alive") is None


async def test_a_revoked_lease_is_noticed(client: AsyncClient) -> None:
    async with client.lease(2) as lease:
        await client.lease_revoke(lease.id)
        await asyncio.wait_for(lease.wait_lost(), 5)
        with pytest.raises(LeaseLost, match=f"{lease.id:x}"):
            lease.check()


async def test_a_lease_that_cannot_be_renewed_is_lost_in_time(kind: str, tmp_path: Path) -> None:
    with cluster(kind, tmp_path) as (server,):
        async with (
            AsyncClient(server.endpoint, timeout_s=1) as client,
            client.lease(2) as lease,
        ):
            server.kill(signal.SIGKILL)
            began = asyncio.get_running_loop().time()
            await asyncio.wait_for(lease.wait_lost(), lease.ttl_s + 1)
            assert asyncio.get_running_loop().time() - began <= lease.ttl_s + 0.5


async def test_a_lock_admits_one_at_a_time_with_growing_tokens(client: AsyncClient) -> None:
    inside = 0
    tokens: list[int] = []

    async def work() -> None:
        nonlocal inside
        async with client.lock("/locks/x", ttl_s=5) as lock:
            assert lock.is_held
            inside += 1
            assert inside == 1
            tokens.append(lock.fencing_token)
            await client.put("/work", "done")
            inside -= 1

    async with asyncio.timeout(30):
        await asyncio.gather(*(work() for _ in range(6)))
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 6
    assert await client.get_prefix("/locks/x") == ()


async def test_a_lost_lock_guards_nothing(client: AsyncClient) -> None:
    async with client.lock("/locks/y", ttl_s=5) as lock:
        assert (await client.txn(when=[lock.held()], then=[Put("/guarded", "1")])).succeeded
        await client.lease_revoke(lock.lease.id)
        assert not (await client.txn(when=[lock.held()], then=[Put("/guarded", "2")])).succeeded
    assert not (await client.txn(when=[lock.held()], then=[Put("/guarded", "3")])).succeeded
    with pytest.raises(RuntimeError, match="not acquired yet"):
        client.lock("/locks/y").held()


async def test_giving_up_leaves_the_queue(client: AsyncClient) -> None:
    async with client.lock("/locks/z"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                async with client.lock("/locks/z"):
                    pytest.fail("two holders")
        assert len(await client.get_prefix("/locks/z")) == 1


async def test_an_election_hands_over(client: AsyncClient) -> None:
    assert await client.leader("/election") is None
    seen: list[bytes] = []

    async def observe() -> None:
        async for leader in client.observe("/election"):
            seen.append(leader.value)  # noqa: PERF401 (others look on while it grows)

    observing = asyncio.create_task(observe())

    async def second() -> bytes:
        async with client.campaign("/election", "node2") as leadership:
            leader = await client.leader("/election")
            assert leader is not None
            assert leader.create_revision == leadership.fencing_token
            await wait_until(lambda: b"node2" in seen, what="node2 observed")
            return leader.value

    async with client.campaign("/election", "node1") as leadership:
        waiting = asyncio.create_task(second())
        await wait_until(lambda: b"node1" in seen, what="node1 observed")
        await leadership.proclaim("node1, busy")
        await wait_until(lambda: b"node1, busy" in seen, what="proclamation observed")
        assert not waiting.done()
    assert await asyncio.wait_for(waiting, 10) == b"node2"
    with pytest.raises(LeaseLost):
        await leadership.proclaim("still me")
    observing.cancel()
    assert seen == [b"node1", b"node1, busy", b"node2"]
