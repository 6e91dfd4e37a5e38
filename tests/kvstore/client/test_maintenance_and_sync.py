"""Maintenance calls, verified snapshots, and the blocking client."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from kvstore.client import AsyncClient, Client, Event, Get, Put, SnapshotDamaged, version
from kvstore.client.maintenance import SnapshotFile
from tests.kvstore.client.servers import Server


async def test_status_members_hash_alarms(client: AsyncClient, server: Server) -> None:
    put = await client.put("/a", "1")
    status = await client.status(server.endpoint)
    members = await client.member_list()
    assert [each.id for each in members] == [status.header.member_id]
    assert members[0].name == "infra0"
    assert status.leader == status.header.member_id
    assert status.db_size_bytes > 0
    assert status.version.count(".") == 2
    first = await client.hash_kv(revision=put.header.revision)
    await client.put("/a", "2")
    assert (await client.hash_kv(revision=put.header.revision)).hash == first.hash
    assert (await client.hash_kv()).hash != first.hash
    assert await client.alarms() == ()
    assert await client.alarm_disarm() == ()
    await client.defragment(server.endpoint)


async def test_snapshot_is_verified_and_appears_whole(client: AsyncClient, tmp_path: Path) -> None:
    await client.put("/a", "x" * 100_000)
    path = tmp_path / "backup.db"
    saved = await client.snapshot(path)
    content = path.read_bytes()
    assert hashlib.sha256(content[:-32]).digest() == content[-32:] == saved.sha256
    assert saved.size_bytes == len(content) - 32
    assert os.listdir(tmp_path) == ["backup.db"]


def test_a_damaged_snapshot_leaves_no_file(tmp_path: Path) -> None:
    body = b"state" * 1000
    for stream in (body + hashlib.sha256(b"other").digest(), body, b""):
        with (
            pytest.raises(SnapshotDamaged, match="incomplete or damaged"),
            SnapshotFile(tmp_path / "backup.db") as file,
        ):
            file.write(stream[:700])
            file.write(stream[700:])
            file.finish()
        assert list(tmp_path.iterdir()) == []


def test_the_blocking_client_has_the_same_names(server: Server) -> None:
    with Client(server.endpoint) as client:
        client.delete("", from_key=True)
        put = client.put("/s/a", "1")
        assert [kv.value for kv in client.get_prefix("/s/")] == [b"1"]
        assert client.txn(
            when=[version("/s/b") == 0], then=[Put("/s/b", "2")], otherwise=[Get("/s/b")]
        ).succeeded
        with client.watch("/s/", prefix=True, start_revision=put.header.revision) as watch:
            assert [next(watch).kv.key for _ in range(2)] == [b"/s/a", b"/s/b"]
        with client.lease(5) as lease:
            client.put("/s/leased", "1", lease=lease.id)
            assert client.lease_time_to_live(lease.id, keys=True).keys == (b"/s/leased",)
        assert client.get("/s/leased") is None
        with client.lock("/s/lock") as lock:
            assert lock.is_held
        with client.campaign("/s/election", "me") as leadership:
            client.proclaim(leadership, "me, busy")
            assert next(client.observe("/s/election")).value == b"me, busy"


def test_a_blocking_watch_is_closed_from_another_thread(server: Server) -> None:
    with Client(server.endpoint) as client, client.watch("/quiet") as watch:
        seen: list[Event] = []
        reader = threading.Thread(target=lambda: seen.extend(watch))
        reader.start()
        client.put("/quiet", "1")
        watch.close()
        reader.join(10)
        assert not reader.is_alive()


def test_every_method_of_the_client_exists_in_both() -> None:
    def names(client: type) -> set[str]:
        return {name for name in dir(client) if not name.startswith("_")}

    assert names(AsyncClient) - names(Client) == set()
