"""Watches through the client: order, history, filters, progress, and resuming after a break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from kvstore.client import (
    AsyncClient,
    Compacted,
    Connection,
    EndpointsUnavailable,
    Event,
    EventType,
    Watch,
)
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.kvstore.client.servers import Server, cluster
from tests.waiting import wait_until


async def take(watch: Watch, count: int) -> list[Event]:
    async with asyncio.timeout(20):
        return [await anext(watch) for _ in range(count)]


def plain(events: list[Event]) -> list[tuple[str, bytes, bytes]]:
    return [(event.type.name, event.kv.key, event.kv.value) for event in events]


async def test_watch_sees_changes_in_order(client: AsyncClient) -> None:
    async with client.watch("/w/", prefix=True, prev_kv=True) as watch:
        await client.put("/w/a", "1")
        await client.put("/other", "x")
        await client.put("/w/a", "2")
        await client.delete("/w/a")
        events = await take(watch, 3)
    assert plain(events) == [
        ("PUT", b"/w/a", b"1"),
        ("PUT", b"/w/a", b"2"),
        ("DELETE", b"/w/a", b""),
    ]
    previous = [event.prev_kv.value if event.prev_kv else None for event in events]
    assert previous == [None, b"1", b"2"]


async def test_watch_replays_history(client: AsyncClient) -> None:
    first = await client.put("/h", "1")
    await client.put("/h", "2")
    async with client.watch("/h", start_revision=first.header.revision) as watch:
        assert plain(await take(watch, 2)) == [("PUT", b"/h", b"1"), ("PUT", b"/h", b"2")]


async def test_watch_skips_types(client: AsyncClient) -> None:
    async with client.watch("/f", skip=[EventType.PUT]) as watch:
        await client.put("/f", "1")
        await client.delete("/f")
        assert plain(await take(watch, 1)) == [("DELETE", b"/f", b"")]


async def test_progress_moves_the_next_revision(client: AsyncClient) -> None:
    async with client.watch("/p") as watch:
        put = await client.put("/elsewhere", "1")
        await watch.request_progress()
        async with asyncio.timeout(10):
            batch = await anext(watch.batches())
        assert batch.events == ()
        assert batch.header.revision >= put.header.revision
        assert watch.next_revision == batch.header.revision + 1


async def test_watch_of_compacted_history_says_how_far(client: AsyncClient) -> None:
    first = await client.put("/c", "1")
    last = await client.put("/c", "2")
    await client.compact(last.header.revision)
    watch = client.watch("/c", start_revision=first.header.revision)
    with pytest.raises(Compacted) as compacted:
        await take(watch, 1)
    assert compacted.value.compact_revision == last.header.revision


async def test_close_ends_an_iteration_that_waits(client: AsyncClient) -> None:
    watch = client.watch("/quiet")
    async with watch:
        waiting = asyncio.create_task(anext(watch, None))
        await asyncio.sleep(0)
        await watch.close()
        assert await asyncio.wait_for(waiting, 5) is None


async def test_watch_resumes_where_it_was(kind: str, tmp_path: Path) -> None:
    """Neither a killed server nor what happened while away makes a gap or a repetition."""
    with cluster(kind, tmp_path) as (server,):
        async with (
            AsyncClient(server.endpoint) as client,
            client.watch("/r/", prefix=True) as watch,
        ):
            await client.put("/r/1", "1")
            assert plain(await take(watch, 1)) == [("PUT", b"/r/1", b"1")]
            server.kill()
            server.launch()
            server.wait_healthy()
            async with AsyncClient(server.endpoint) as other:
                await other.put("/r/2", "2")
                await other.delete("/r/1")
            assert plain(await take(watch, 2)) == [
                ("PUT", b"/r/2", b"2"),
                ("DELETE", b"/r/1", b""),
            ]


async def test_watch_gives_up_when_told_to(kind: str, tmp_path: Path) -> None:
    with cluster(kind, tmp_path) as (server,):
        async with (
            AsyncClient(server.endpoint) as client,
            client.watch("/r", reconnect_timeout_s=0.2) as watch,
        ):
            server.kill()
            with pytest.raises(EndpointsUnavailable, match="onnection refused"):
                await take(watch, 1)


async def test_watch_resumes_after_compaction_with_an_error(kind: str, tmp_path: Path) -> None:
    """What was compacted while the watch was cut off is reported, never skipped."""
    with cluster(kind, tmp_path) as (server,):
        async with AsyncClient(server.endpoint) as client, client.watch("/r") as watch:
            await client.put("/r", "1")
            await take(watch, 1)
            server.kill()
            server.launch()
            server.wait_healthy()
            # The watch is made to see the compaction first: it is only read again afterwards.
            async with AsyncClient(server.endpoint) as other:
                await other.put("/r", "2")
                last = await other.put("/r", "3")
                await other.compact(last.header.revision)
            with pytest.raises(Compacted) as compacted:
                await take(watch, 1)
            assert compacted.value.compact_revision == last.header.revision


async def test_two_watches_of_one_client_are_apart(client: AsyncClient, server: Server) -> None:
    async with client.watch("/1") as one, client.watch("/2") as two:
        await client.put("/2", "b")
        await client.put("/1", "a")
        assert plain(await take(one, 1)) == [("PUT", b"/1", b"a")]
        assert plain(await take(two, 1)) == [("PUT", b"/2", b"b")]


class ScriptedStream:
    """A connection with one stream, on which a test decides what comes and when."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.answers: asyncio.Queue[pb.WatchResponse] = asyncio.Queue()

    @asynccontextmanager
    async def stream(self, rpc: Any, **options: Any) -> AsyncIterator[ScriptedStream]:
        yield self

    async def write(self, request: pb.WatchRequest) -> None:
        self.written.append(str(request.WhichOneof("request_union")))

    async def read(self) -> pb.WatchResponse:
        return await self.answers.get()

    def cancel(self) -> None:
        pass


async def test_progress_is_asked_only_where_the_watch_was_created() -> None:
    """A notice of a stream without watches would make it resume behind what it never saw."""
    stream = ScriptedStream()
    watch = Watch(cast(Connection, stream), pb.WatchCreateRequest(start_revision=5))
    reading = asyncio.create_task(anext(watch.messages()))
    await wait_until(lambda: stream.written == ["create_request"])
    await watch.request_progress()
    assert stream.written == ["create_request"]
    stream.answers.put_nowait(pb.WatchResponse(created=True))
    assert (await reading).created
    await watch.request_progress()
    assert stream.written == ["create_request", "progress_request"]
    assert watch.next_revision == 5
    await watch.close()
