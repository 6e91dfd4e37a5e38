"""Starting the native engine on a directory that is not as it should be: what a person is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consensus.engines.native import NativeEngine
from consensus.engines.pysyncobj import PySyncObjEngine
from consensus.errors import DataDamaged, StorageError
from tests.consensus.native.member import ListHost, proposal
from tests.interop import free_ports
from tests.waiting import wait_until


def engine(directory: Path, *, members: int = 1, cluster: str = "raftyard") -> NativeEngine:
    names = ("ann", "bob", "cas")[:members]
    addresses = {
        name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(members), strict=True)
    }
    return NativeEngine(
        "ann",
        addresses,
        directory,
        cluster=cluster,
        election_timeout_ms=200,
        heartbeat_interval_ms=40,
    )


async def run_once(directory: Path, commands: int = 5) -> ListHost:
    """Run a group of one, and have it apply some commands."""
    host = ListHost()
    node = engine(directory)
    await node.start(host)
    await wait_until(lambda: node.status().leader == "ann", 5)
    for number in range(commands):
        node.propose([proposal(number + 1)])
    await wait_until(lambda: len(host.commands) >= commands, 5)
    await node.stop()
    return host


async def refused(node: NativeEngine) -> str:
    with pytest.raises(StorageError) as error:
        await node.start(ListHost())
    await node.stop()
    return str(error.value)


async def test_it_starts_again_where_it_was(tmp_path: Path) -> None:
    await run_once(tmp_path)
    host = ListHost()
    node = engine(tmp_path)
    await node.start(host)
    await wait_until(lambda: len(host.commands) == 5, 5)
    await node.stop()


async def test_damage_in_a_group_of_one_names_the_place_and_a_backup(tmp_path: Path) -> None:
    await run_once(tmp_path)
    (segment,) = (tmp_path / "wal").glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[4_200] ^= 1
    segment.write_bytes(data)
    node = engine(tmp_path)
    with pytest.raises(DataDamaged) as damaged:
        await node.start(ListHost())
    text = str(damaged.value)
    assert f"log segment {segment.name} is damaged at offset " in text
    assert f"This is the only member, so nobody else has what was lost: restore {tmp_path}" in text
    assert segment.read_bytes() == data, "nothing was cut"
    assert "damaged at offset" in await refused(engine(tmp_path)), "and it is not held locked"


async def test_damage_in_a_group_of_three_that_cannot_be_repaired_says_how_to_come_back(
    tmp_path: Path,
) -> None:
    """Beside the record, both notes of the term are gone."""
    await run_once(tmp_path)
    (segment,) = (tmp_path / "wal").glob("*.wal")
    data = bytearray(segment.read_bytes())
    for position in (4_200, 1_540, 2_052):
        data[position] ^= 1
    segment.write_bytes(data)
    text = await refused(engine(tmp_path, members=3))
    assert f"remove this member from the group, delete {tmp_path}, add it again" in text


async def test_a_log_that_is_gone_is_damage_and_no_fresh_start(tmp_path: Path) -> None:
    """An empty log would have forgotten votes and acknowledgements."""
    await run_once(tmp_path)
    for segment in (tmp_path / "wal").glob("*.wal"):
        segment.unlink()
    text = await refused(engine(tmp_path, members=3))
    assert "the log of this member is gone from" in text
    assert "remove this member" in text


async def test_a_directory_of_another_engine_is_refused_by_name(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    other = PySyncObjEngine("ann", {"ann": f"127.0.0.1:{port}"}, tmp_path)
    await other.start(ListHost())
    await other.stop()
    text = await refused(engine(tmp_path))
    assert "was written by the pysyncobj engine; this is the native engine" in text
    assert "Start this member with the pysyncobj engine, or give it an empty directory" in text


async def test_a_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    await run_once(tmp_path)
    text = await refused(engine(tmp_path, cluster="east"))
    assert "belongs to another cluster: its cluster is 'raftyard', this member's is 'east'" in text


async def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    node = engine(tmp_path)
    await node.start(ListHost())
    try:
        assert f"in use by process {os.getpid()}" in await refused(engine(tmp_path))
    finally:
        await node.stop()


async def test_a_directory_that_cannot_be_read_gives_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "snap").touch()
    assert f"data directory {tmp_path} cannot be used" in await refused(engine(tmp_path))


async def test_numbers_of_an_earlier_life_do_not_come_again_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader remembers forwarded numbers: a member that came back at once would be ignored."""
    monkeypatch.setattr("consensus.engines.native.engine.time.time", lambda: 1_000.0)
    requests = []
    for _ in range(3):
        node = engine(tmp_path)
        await node.start(ListHost())
        requests.append(next(node._running()._requests))
        await node.stop()
    assert requests == [(second << 32) + 1 for second in (1_000, 1_001, 1_002)]
