"""Watch streams: answers to requests, as etcd 3.4.23 gave them to the same requests."""

from __future__ import annotations

import asyncio

from kvstore.errors import SERVER_STOPPED
from kvstore.http2.frames import FRAME_BYTES_MIN
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.watch.stream import (
    ANSWERS_BUFFERED_MAX,
    DUPLICATE_WATCH_ID,
    EMPTY_RANGE,
    PROGRESS_INTERVAL_S_MIN,
    SEND_BYTES,
    WatchStream,
)
from tests.kvstore.watch.fakes import (
    CLUSTER_ID,
    DELETE,
    MEMBER_ID,
    PUT,
    TERM,
    AnyStore,
    Client,
    events_of,
    make_hub,
)
from tests.waiting import wait_until

NOPUT, NODELETE = pb.WatchCreateRequest.NOPUT, pb.WatchCreateRequest.NODELETE


async def test_a_created_watch_gets_events_from_the_next_revision_on(store: AnyStore) -> None:
    hub = make_hub(store)
    store.put(b"a", b"old")
    async with Client(hub) as client:
        await client.create(b"a")
        store.put(b"a", b"new")
        created, response = await client.take(2)
    assert created == pb.WatchResponse(
        header=pb.ResponseHeader(
            cluster_id=CLUSTER_ID, member_id=MEMBER_ID, revision=2, raft_term=TERM
        ),
        created=True,
    )
    assert response.header.revision == 3
    assert response.watch_id == 0 and not response.created
    assert [(e.kv.key, e.kv.value, e.kv.version) for e in response.events] == [(b"a", b"new", 2)]
    assert not response.events[0].HasField("prev_kv")


async def test_watch_ids_are_chosen_as_etcd_does(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        for wanted in (0, 7, 1, 0, -5):
            await client.create(b"a", watch_id=wanted)
        assert [r.watch_id for r in await client.take(5)] == [0, 7, 1, 2, -5]
        await client.cancel(0)
        await client.create(b"a")
        assert [r.watch_id for r in await client.take(2)] == [0, 3], "a freed id is not reused"


async def test_refused_creations_say_why_and_name_no_watch(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        await client.create(b"a", watch_id=7)
        await client.take(1)
        await client.create(b"a", watch_id=7)
        await client.create(b"b", b"a")
        await client.create(b"b", b"b")
        await client.create(b"a", start_revision=-1)
        answers = await client.take(4)
        assert [r.cancel_reason for r in answers] == [
            DUPLICATE_WATCH_ID,
            EMPTY_RANGE,
            EMPTY_RANGE,
            "etcdserver: mvcc: required revision has been compacted",
        ]
        for answer in answers:
            assert answer.created and answer.canceled and answer.watch_id == -1
            assert answer.header.revision == 1
        await client.create(b"a")
        assert (await client.take(1))[0].watch_id == 0, "refusals take no id"


async def test_key_and_range_end_conventions(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        for number, (key, end) in enumerate(
            [(b"", b""), (b"", b"\0"), (b"\0", b"\0"), (b"m", b"\0"), (b"k", b"m"), (b"k", b"")]
        ):
            await client.create(key, end, watch_id=100 + number)
        await client.take(6)
        for key, expected in [
            (b"\0", {100, 101, 102}),
            (b"k", {101, 102, 104, 105}),
            (b"l", {101, 102, 104}),
            (b"m", {101, 102, 103}),
            (b"z\xff", {101, 102, 103}),
        ]:
            store.put(key)
            assert {r.watch_id for r in await client.take(len(expected))} == expected
            await client.quiet()


async def test_cancel_answers_once_and_stops_events(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        await client.create(b"a")
        store.put(b"a")
        await client.cancel(0)
        await client.cancel(0)
        await client.cancel(12345)
        store.put(b"a")
        created, event, canceled = await client.take(3)
        assert created.created and event.events
        assert canceled.canceled and canceled.watch_id == 0 and canceled.header.revision == 2
        assert canceled.cancel_reason == "" and canceled.compact_revision == 0
        await client.quiet()


async def test_filters_drop_events_and_empty_responses(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        await client.create(b"a", b"z", filters=[NOPUT], watch_id=1)
        await client.create(b"a", b"z", filters=[NODELETE], watch_id=2)
        await client.create(b"a", b"z", filters=[NODELETE, NODELETE, NOPUT], watch_id=3)
        await client.create(b"a", b"z", filters=[7], watch_id=4)  # type: ignore[list-item]
        await client.take(4)
        store.put(b"b")
        assert {r.watch_id for r in await client.take(2)} == {2, 4}
        store.txn((b"b", None), (b"c", b"1"))
        got = {r.watch_id: events_of([r]) for r in await client.take(3)}
        assert got == {
            1: [(DELETE, b"b", 3)],
            2: [(PUT, b"c", 3)],
            4: [(DELETE, b"b", 3), (PUT, b"c", 3)],
        }
        await client.quiet()
        await client.create(b"a", b"z", filters=[NOPUT], start_revision=2)
        assert events_of(await client.take(2)) == [(DELETE, b"b", 3)]


async def test_prev_kv_live_and_in_history(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        await client.create(b"a", prev_kv=True)
        await client.create(b"a")
        await client.take(2)
        store.put(b"a", b"1")
        store.put(b"a", b"2")
        store.delete(b"a")
        store.put(b"a", b"3")
        live = await client.take(8)
        previous = [
            r.events[0].prev_kv.value if r.events[0].HasField("prev_kv") else None
            for r in live
            if r.watch_id == 0
        ]
        assert previous == [None, b"1", b"2", None]
        assert not any(r.events[0].HasField("prev_kv") for r in live if r.watch_id == 1)
        store.compact(3)
        await client.create(b"a", prev_kv=True, start_revision=3)
        _, history = await client.take(2)
        assert [e.prev_kv.value for e in history.events] == [b"", b"2", b""]
        assert not history.events[0].HasField("prev_kv"), "the value before was compacted"
        assert history.events[1].prev_kv.mod_revision == 3


async def test_events_of_one_revision_come_in_one_response_in_order(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        await client.create(b"foo", b"fop")
        await client.create(b"foo3")
        store.txn((b"foo3", b"v"), (b"foo1", b"v"), (b"g", b"v"), (b"foo2", b"v"))
        responses = {r.watch_id: r for r in (await client.take(4))[2:]}
        both, single = responses[0], responses[1]
        assert events_of([both]) == [(PUT, b"foo3", 2), (PUT, b"foo1", 2), (PUT, b"foo2", 2)]
        assert events_of([single]) == [(PUT, b"foo3", 2)]


async def test_start_revision_in_the_past_replays_then_goes_on_live(store: AnyStore) -> None:
    hub = make_hub(store)
    for _ in range(5):
        store.put(b"a")
        store.put(b"b")
    async with Client(hub) as client:
        await client.create(b"a", start_revision=3)
        created, history = await client.take(2)
        assert created.created
        assert [e.kv.mod_revision for e in history.events] == [4, 6, 8, 10]
        assert history.header.revision == 11, "a response says up to where nothing is missing"
        store.put(b"a")
        assert events_of(await client.take(1)) == [(PUT, b"a", 12)]


async def test_start_revision_in_the_future_waits_for_it(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        await client.create(b"a", start_revision=5)
        for _ in range(5):
            store.put(b"a")
        created, first, second = await client.take(3)
        assert created.header.revision == 1
        assert events_of([first, second]) == [(PUT, b"a", 5), (PUT, b"a", 6)]


async def test_a_compacted_start_is_created_then_canceled(store: AnyStore) -> None:
    hub = make_hub(store)
    for _ in range(8):
        store.put(b"a")
    store.compact(5)
    async with Client(hub) as client:
        await client.create(b"a", start_revision=4, watch_id=5)
        created, canceled = await client.take(2)
        assert created.created and not created.canceled and created.watch_id == 5
        assert canceled == pb.WatchResponse(
            header=pb.ResponseHeader(cluster_id=CLUSTER_ID, member_id=MEMBER_ID, raft_term=TERM),
            watch_id=5,
            canceled=True,
            compact_revision=5,
        )
        await client.create(b"a", watch_id=5)
        assert (await client.take(1))[0].cancel_reason == DUPLICATE_WATCH_ID
        await client.cancel(5)
        assert (await client.take(1))[0].canceled
        await client.create(b"a", start_revision=5)
        _, history = await client.take(2)
        assert [e.kv.mod_revision for e in history.events] == [5, 6, 7, 8, 9]


async def test_a_catch_up_response_holds_at_most_1000_revisions(store: AnyStore) -> None:
    hub = make_hub(store)
    for _ in range(3500):
        store.put(b"a")
    async with Client(hub) as client:
        await client.create(b"a", start_revision=2)
        await client.until(lambda: sum(len(r.events) for r in client.taken) == 3500)
        responses = client.taken[1:]
        assert max(len(r.events) for r in responses) <= 1000
        assert events_of(responses) == [(PUT, b"a", r) for r in range(2, 3502)]
        for response in responses:
            assert response.header.revision == response.events[-1].kv.mod_revision


async def test_progress_request_is_answered_for_the_whole_stream(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        await client.progress()
        (nobody,) = await client.take(1)
        assert nobody.watch_id == -1 and nobody.header.revision == 1
        await client.create(b"a")
        store.put(b"b")
        await client.progress()
        _, answer = await client.take(2)
        assert answer.watch_id == -1 and answer.header.revision == 2 and not answer.events
        assert not answer.created and not answer.canceled


async def test_progress_waits_until_every_watcher_is_current(store: AnyStore) -> None:
    hub = make_hub(store)
    for _ in range(300):
        store.put(b"a")
    async with Client(hub) as client:
        client.flows.clear()
        await client.create(b"a", start_revision=2)
        await client.progress()
        client.flows.set()
        await client.until(lambda: bool(client.taken) and client.taken[-1].watch_id == -1)
        assert events_of(client.taken) == [(PUT, b"a", r) for r in range(2, 302)]
        assert client.taken[-1].header.revision == 301
        client.taken.clear()
        await client.create(b"a", start_revision=304, watch_id=9)
        await client.progress()
        store.put(b"b")
        store.put(b"b")
        await asyncio.sleep(0)
        await client.take(1)
        assert not client.taken, "no progress while a watcher's start is in the future"
        store.put(b"b")
        assert (await client.take(1))[0].header.revision == 304


async def test_progress_notify_goes_to_idle_watchers_that_asked(store: AnyStore) -> None:
    async with Client(make_hub(store), progress_interval_s=0.0) as client:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await client.create(b"a", progress_notify=True, watch_id=1)
        await client.create(b"a", watch_id=2)
        await client.create(b"a", progress_notify=True, start_revision=50, watch_id=3)
        await client.take(3)
        (notice,) = await client.take(1)
        assert loop.time() - started >= PROGRESS_INTERVAL_S_MIN
        assert notice == pb.WatchResponse(header=notice.header, watch_id=1)
        assert notice.header.revision == 1
        store.put(b"a")
        await client.take(2)
        last_event = loop.time()
        (notice,) = await client.take(1)
        assert notice.watch_id == 1 and notice.header.revision == 2
        assert loop.time() - last_event >= PROGRESS_INTERVAL_S_MIN, "skipped after an event"


async def test_large_responses_are_split_only_where_asked_for(store: AnyStore) -> None:
    hub = make_hub(store, max_request_bytes=1000 - 512 * 1024)
    async with Client(hub) as client:
        await client.create(b"a", b"b", fragment=True, watch_id=1)
        await client.create(b"a", b"b", watch_id=2)
        await client.take(2)
        store.txn(*((b"a%d" % n, b"x" * 400) for n in range(5)), (b"a9", b"x" * 3000))
        await client.until(lambda: sum(len(r.events) for r in client.taken) == 12)
        pieces = [r for r in client.taken if r.watch_id == 1]
        (whole,) = [r for r in client.taken if r.watch_id == 2]
        assert len(whole.events) == 6 and not whole.fragment
        assert [e for r in pieces for e in r.events] == list(whole.events)
        assert [len(r.events) for r in pieces] == [2, 2, 1, 1]
        assert [r.fragment for r in pieces] == [True, True, True, False]
        assert all(r.ByteSize() < 1000 for r in pieces[:-1])
        assert {r.header.revision for r in pieces} == {2}


async def test_half_close_leaves_open_watches_running(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        await client.create(b"a", start_revision=1)
        client.stream.finish_requests()
        store.put(b"a")
        assert events_of(await client.take(2)) == [(PUT, b"a", 2)]
        assert not client.task.done()


async def test_half_close_ends_a_stream_that_has_no_watch(store: AnyStore) -> None:
    hub = make_hub(store)
    store.put(b"a")
    store.put(b"a")
    store.compact(3)
    async with Client(hub) as client:
        await client.create(b"a", start_revision=2)
        client.stream.finish_requests()
        await wait_until(client.task.done, 5)
        assert [r.compact_revision for r in client.taken] == [0, 3]
        assert client.status is None


async def test_close_ends_at_once_with_its_status(store: AnyStore) -> None:
    hub = make_hub(store)
    async with Client(hub) as client:
        await client.create(b"a")
        client.stream.close(SERVER_STOPPED)
        client.stream.close()
        await wait_until(client.task.done, 5)
        assert client.status == SERVER_STOPPED
        assert hub.stats.watchers == 0 and hub.stats.streams == 0
        await client.create(b"a")
        store.put(b"a")
        assert hub.stats.watchers == 0, "requests after the end do nothing"


async def test_a_client_that_takes_no_answers_waits_with_its_requests(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        client.flows.clear()  # it has taken one batch, of at most all that may lie there

        async def ask() -> None:
            for _ in range(ANSWERS_BUFFERED_MAX * 3):
                await client.progress()

        asking = asyncio.create_task(ask())
        await wait_until(lambda: client.stream._answers == ANSWERS_BUFFERED_MAX, 5)
        assert not asking.done()
        client.flows.set()
        await asking
        assert len(await client.take(ANSWERS_BUFFERED_MAX * 3)) == ANSWERS_BUFFERED_MAX * 3


async def test_a_request_without_content_is_ignored(store: AnyStore) -> None:
    async with Client(make_hub(store)) as client:
        await client.stream.handle(pb.WatchRequest())
        await client.quiet()


async def test_responses_that_lie_there_leave_together_as_far_as_they_fit_a_frame(
    store: AnyStore,
) -> None:
    stream = WatchStream(make_hub(store))
    for number in range(100):
        request = pb.WatchCreateRequest(key=b"a", watch_id=number + 1)
        await stream.handle(pb.WatchRequest(create_request=request))
    store.put(b"a", b"v" * 1_000)
    store.put(b"a", b"v" * (SEND_BYTES + 1))
    batches = []
    async for batch in stream.responses():
        batches.append(batch)
        if sum(map(len, batches)) == 300:
            stream.close()
    taken = [pb.WatchResponse.FromString(message) for batch in batches for message in batch]
    assert [answer.watch_id for answer in taken] == [*range(1, 101)] * 3
    assert all(answer.created for answer in taken[:100])
    assert len(batches[0]) > 100, "answers and events leave together"
    sizes = [sum(len(message) + 5 for message in batch) for batch in batches]
    for batch, size in zip(batches, sizes, strict=True):
        assert size <= FRAME_BYTES_MIN or len(batch) == 1
    assert [len(batch) for batch in batches[-100:]] == [1] * 100
