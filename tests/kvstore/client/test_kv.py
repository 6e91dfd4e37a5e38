"""Keys, values and transactions through the client, against real servers."""

from __future__ import annotations

import pytest

from kvstore.client import (
    AsyncClient,
    Code,
    Delete,
    EtcdError,
    Get,
    Put,
    RangeResult,
    SortOrder,
    SortTarget,
    Txn,
    TxnResult,
    create_revision,
    lease,
    mod_revision,
    prefix_end,
    value,
    version,
)


async def test_put_returns_the_previous_pair(client: AsyncClient) -> None:
    first = await client.put("/a", "1", prev_kv=True)
    second = await client.put("/a", b"2", prev_kv=True)
    assert first.prev_kv is None
    assert second.prev_kv is not None
    assert second.prev_kv.value == b"1"
    assert second.header.revision == first.header.revision + 1


async def test_get_reads_now_and_then(client: AsyncClient) -> None:
    first = await client.put("/a", "1")
    await client.put("/a", "2")
    now = await client.get("/a")
    then = await client.get("/a", revision=first.header.revision)
    assert now is not None
    assert then is not None
    assert (now.value, now.version, now.create_revision) == (b"2", 2, first.header.revision)
    assert (then.value, then.version) == (b"1", 1)
    assert await client.get("/missing") is None


async def test_range_has_all_options(client: AsyncClient) -> None:
    for number, key in enumerate(["b", "a", "c", "d"]):
        await client.put(f"/r/{key}", str(9 - number))
    found = await client.range("/r/", prefix=True, limit=2)
    assert [kv.key for kv in found.kvs] == [b"/r/a", b"/r/b"]
    assert (found.count, found.more) == (4, True)
    by_value = await client.range("/r/", prefix=True, sort_by=SortTarget.VALUE)
    assert [kv.value for kv in by_value.kvs] == [b"6", b"7", b"8", b"9"]
    newest = await client.range(
        "/r/", prefix=True, sort_by=SortTarget.MOD, order=SortOrder.DESCEND, limit=1
    )
    assert newest.kvs[0].key == b"/r/d"
    assert [kv.key for kv in (await client.range("/r/b", "/r/d")).kvs] == [b"/r/b", b"/r/c"]
    assert (await client.range("/r/c", from_key=True)).count == 2
    only_keys = await client.range("/r/", prefix=True, keys_only=True, serializable=True)
    assert {kv.value for kv in only_keys.kvs} == {b""}
    counted = await client.range("/r/", prefix=True, count_only=True)
    assert (counted.count, counted.kvs) == (4, ())
    recent = await client.range("/r/", prefix=True, min_mod_revision=newest.kvs[0].mod_revision)
    assert [kv.key for kv in recent.kvs] == [b"/r/d"]


async def test_delete_counts_and_returns(client: AsyncClient) -> None:
    for key in ("/d/1", "/d/2", "/e"):
        await client.put(key, key)
    gone = await client.delete_prefix("/d/", prev_kv=True)
    assert gone.deleted == 2
    assert [kv.value for kv in gone.prev_kvs] == [b"/d/1", b"/d/2"]
    assert (await client.delete("/d/1")).deleted == 0
    assert [kv.key for kv in await client.get_prefix("/")] == [b"/e"]


async def test_txn_takes_the_branch_that_its_conditions_choose(client: AsyncClient) -> None:
    create = Put("/owner", "me")
    first = await client.txn(
        when=[version("/owner") == 0], then=[create], otherwise=[Get("/owner")]
    )
    second = await client.txn(
        when=[version("/owner") == 0], then=[create], otherwise=[Get("/owner")]
    )
    assert first.succeeded
    assert not second.succeeded
    answer = second.responses[0]
    assert isinstance(answer, RangeResult)
    assert answer.kvs[0].value == b"me"


async def test_txn_compares_everything(client: AsyncClient) -> None:
    put = await client.put("/k", "5")
    revision = put.header.revision
    holding = [
        value("/k") == "5",
        value("/k") > "4",
        value("/k") < b"6",
        value("/k") != "4",
        version("/k") == 1,
        create_revision("/k") == revision,
        mod_revision("/k") > revision - 1,
        lease("/k") == 0,
        version("/", prefix=True) < 2,
        mod_revision("/nothing") == 0,
    ]
    assert (await client.txn(when=holding)).succeeded
    for condition in (value("/k") == "6", value("/nothing") != "6", version("/k") > 1):
        assert not (await client.txn(when=[*holding, condition])).succeeded


async def test_txn_nests(client: AsyncClient) -> None:
    await client.put("/x", "old")
    result = await client.txn(
        then=[
            Txn(when=[value("/x") == "old"], then=[Put("/x", "new", prev_kv=True), Get("/x")]),
            Delete("/y", prev_kv=True),
        ]
    )
    inner = result.responses[0]
    assert isinstance(inner, TxnResult)
    assert inner.succeeded
    seen = inner.responses[1]
    assert isinstance(seen, RangeResult)
    assert seen.kvs[0].value == b"new"


async def test_errors_carry_etcds_code_and_text(client: AsyncClient) -> None:
    with pytest.raises(EtcdError, match="etcdserver: key is not provided") as empty:
        await client.put("", "x")
    assert empty.value.status.code is Code.INVALID_ARGUMENT
    with pytest.raises(EtcdError, match="requested lease not found") as leaseless:
        await client.put("/a", "x", lease=12345)
    assert leaseless.value.status.code is Code.NOT_FOUND
    with pytest.raises(EtcdError, match="required revision is a future revision"):
        await client.get("/a", revision=1 << 40)
    with pytest.raises(EtcdError, match="duplicate key given in txn request"):
        await client.txn(then=[Put("/a", "1"), Put("/a", "2")])


async def test_compact_forgets(client: AsyncClient) -> None:
    first = await client.put("/a", "1")
    last = await client.put("/a", "2")
    await client.compact(last.header.revision, physical=True)
    with pytest.raises(EtcdError, match="has been compacted") as compacted:
        await client.get("/a", revision=first.header.revision)
    assert compacted.value.status.code is Code.OUT_OF_RANGE


def test_prefix_end_is_the_first_key_behind() -> None:
    assert prefix_end("a") == b"b"
    assert prefix_end(b"a\xff\xff") == b"b"
    assert prefix_end(b"\xff") == b"\0"
    assert prefix_end("") == b"\0"


def test_a_comparison_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(TypeError, match="version compares with a whole number, not '1'"):
        version("/a") == "1"  # noqa: B015
    with pytest.raises(TypeError, match="a value compares with text or bytes, not 1"):
        value("/a") == 1  # noqa: B015


async def test_only_one_way_to_name_a_range(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="only one of range_end, prefix and from_key"):
        await client.range("/a", "/b", prefix=True)
