"""A damaged store is rebuilt from the other members; what is damaged is never answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore.client import AsyncClient, EtcdError
from tests.clusters import Cluster, Member, Program
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("durability")

KEYS = 60
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("rebuild")
    # With so small a log the store comes back as a snapshot.
    with Cluster(Program.kvstore("native"), directory, flags=("--snapshot-count", "10")) as running:
        yield running
    for member in running.members:
        assert "Traceback" not in member.log.read_text(), member.log


def value_of(number: int) -> bytes:
    return b"value of %05d " % number * 8


async def fill(cluster: Cluster) -> None:
    async with AsyncClient(cluster.endpoints, timeout_s=PATIENCE_S) as client:
        for number in range(KEYS):
            await client.put(b"key/%05d" % number, value_of(number))


def flip_values(database: Path) -> None:
    """Change a bit of every value in the file, wherever it is."""
    data = bytearray(database.read_bytes())
    start = 0
    while (found := data.find(b"value of ", start)) >= 0:
        data[found + 3] ^= 0x10
        start = found + 1
    database.write_bytes(data)


def cut_tables(database: Path) -> None:
    """Make the names of the tables unreadable: the store cannot even be opened."""
    data = database.read_bytes()
    database.write_bytes(data.replace(b"lease_keys", b"lease_kkkk"))


async def serves_all(member: Member) -> bool:
    """Whether a member answers every key, from its own state, rightly; never a wrong value."""
    try:
        async with AsyncClient(member.client, timeout_s=2.0) as client:
            pairs = await client.get_prefix(b"key/", serializable=True)
            assert all(pair.value == value_of(int(pair.key[4:])) for pair in pairs)
            await client.put(b"probe", b"")
            return len(pairs) == KEYS
    except EtcdError:
        return False


@pytest.mark.parametrize("damage", [flip_values, cut_tables])
async def test_a_damaged_store_is_rebuilt(cluster: Cluster, damage: Callable[[Path], None]) -> None:
    await fill(cluster)
    member = cluster.members[1]
    cluster.kill(member)
    (database,) = member.data.rglob("state.mdb")
    damage(database)
    before = member.log.stat().st_size
    cluster.launch(member)

    async def rebuilt() -> bool:
        text = member.log.read_bytes()[before:]
        return b"rebuil" in text and await serves_all(member)

    await wait_until(rebuilt, PATIENCE_S, "the member is rebuilt")
    assert member.running, "by itself, in the same process"
    async with AsyncClient(cluster.endpoints, timeout_s=PATIENCE_S) as client:
        revision = (await client.put("/end", "")).header.revision
    hashes = set()
    for each in cluster.members:
        async with AsyncClient(each.client, timeout_s=PATIENCE_S) as client:
            await client.get("/end")
            hashes.add((await client.hash_kv(revision=revision)).hash)
    assert len(hashes) == 1
