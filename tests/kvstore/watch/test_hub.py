"""The hub: slow watchers, restores, compaction, and encoding once for all."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.pb import mvccpb_pb2
from kvstore.watch import hub as hub_module
from kvstore.watch import wire
from tests.kvstore.watch.fakes import PUT, AnyStore, Client, events_of, make_hub
from tests.waiting import wait_until


async def test_a_slow_client_falls_back_to_history_and_misses_nothing(store: AnyStore) -> None:
    hub = make_hub(store)
    async with Client(hub, responses_max=10) as slow, Client(hub) as fast:
        await slow.create(b"a")
        await fast.create(b"a")
        await slow.take(1)
        slow.flows.clear()
        for number in range(500):
            store.put(b"a", b"%d" % number)
            assert len(slow.stream._out) <= 10, "the buffer is bounded"
        await fast.until(lambda: len(events_of(fast.taken)) == 500)
        assert store.history_calls == 0, "who keeps up never reads history"
        assert hub.stats.fell_behind == 1
        slow.flows.set()
        await slow.until(lambda: len(events_of(slow.taken)) == 500)
        assert events_of(slow.taken) == [(PUT, b"a", r) for r in range(2, 502)]
        store.put(b"a")
        await slow.until(lambda: len(events_of(slow.taken)) == 501)
        assert len(events_of(slow.taken[-1:])) == 1, "live again"


async def test_the_buffer_is_bounded_in_bytes_too(store: AnyStore) -> None:
    hub = make_hub(store)
    async with Client(hub, bytes_max=10_000) as slow:
        await slow.create(b"a")
        await slow.take(1)
        slow.flows.clear()
        for _ in range(200):
            store.put(b"a", b"x" * 1000)
            assert slow.stream._out_bytes < 12_000
        slow.flows.set()
        await slow.until(lambda: len(events_of(slow.taken)) == 200)
        assert events_of(slow.taken) == [(PUT, b"a", r) for r in range(2, 202)]


async def test_slices_shrink_for_large_values_and_grow_for_small_ones(store: AnyStore) -> None:
    hub = make_hub(store)
    for _ in range(150):
        store.put(b"big", b"x" * 100_000)
    for _ in range(5000):
        store.put(b"other")
    store.put(b"big")
    async with Client(hub) as client:
        await client.create(b"big", start_revision=2)
        await client.until(lambda: len(events_of(client.taken)) == 151)
        largest = max(r.ByteSize() for r in client.taken)
        assert largest < 1_300_000, "a response of small revisions stays near its target"
        assert store.history_calls < 40, "empty history is crossed in large steps"
        headers = [r.header.revision for r in client.taken if r.events]
        assert headers == sorted(headers)


async def test_one_large_revision_is_sent_whole(store: AnyStore) -> None:
    hub = make_hub(store)
    store.txn(*((b"k%03d" % n, b"x" * 20_000) for n in range(200)))
    async with Client(hub) as client:
        await client.create(b"k", b"l", start_revision=2)
        _, response = await client.take(2)
        assert len(response.events) == 200


async def test_restore_moves_each_watcher_to_its_own_next_revision(store: AnyStore) -> None:
    hub = make_hub(store)
    store.put(b"a")
    async with Client(hub) as client:
        await client.create(b"a", watch_id=1)
        await client.create(b"a", start_revision=6, watch_id=2)
        await client.create(b"a", start_revision=40, watch_id=3)
        store.put(b"a")
        assert events_of((await client.take(4))[3:]) == [(PUT, b"a", 3)]
        store.sink = None  # a snapshot brings what this member never applied
        for _ in range(5):
            store.put(b"a")
        store.compact(4)
        store.sink = hub
        hub.restored()
        await client.until(lambda: len(events_of(client.taken)) == 8)
        by_id = {
            watch_id: events_of([r for r in client.taken if r.watch_id == watch_id])
            for watch_id in (1, 2, 3)
        }
        assert by_id == {
            1: [(PUT, b"a", r) for r in range(4, 9)],
            2: [(PUT, b"a", r) for r in range(6, 9)],
            3: [],
        }
        client.taken.clear()
        store.put(b"a")
        assert sorted(r.watch_id for r in await client.take(2)) == [1, 2]


async def test_restore_cancels_watchers_whose_next_revision_is_compacted(store: AnyStore) -> None:
    hub = make_hub(store)
    async with Client(hub) as client:
        await client.create(b"a", watch_id=1)
        await client.create(b"a", start_revision=8, watch_id=2)
        await client.take(2)
        store.sink = None
        for _ in range(9):
            store.put(b"a")
        store.compact(8)
        store.sink = hub
        hub.restored()
        await client.until(lambda: len(client.taken) == 2)
        canceled = next(r for r in client.taken if r.watch_id == 1)
        assert canceled.canceled and canceled.compact_revision == 8
        assert canceled.header.revision == 0
        alive = next(r for r in client.taken if r.watch_id == 2)
        assert events_of([alive]) == [(PUT, b"a", r) for r in (8, 9, 10)]
        store.put(b"a")
        await client.until(lambda: len(client.taken) == 3)
        assert client.taken[2].watch_id == 2


async def test_compaction_cancels_a_watcher_that_is_behind_it(store: AnyStore) -> None:
    hub = make_hub(store)
    async with Client(hub, responses_max=2) as client:
        await client.create(b"a", watch_id=1)
        await client.take(1)
        client.flows.clear()
        for _ in range(20):
            store.put(b"a")
        store.compact(15)
        client.flows.set()
        await client.until(lambda: bool(client.taken) and client.taken[-1].canceled)
        *events, canceled = client.taken
        seen = [r for _, _, r in events_of(events)]
        assert seen == list(range(2, 2 + len(seen))) and len(seen) < 15
        assert canceled.compact_revision == 15 and canceled.watch_id == 1
        assert hub.stats.watchers == 0
        client.taken.clear()
        await client.progress()
        assert (await client.take(1))[0].watch_id == -1, "a canceled watch holds up no progress"


async def test_compaction_leaves_synced_watchers_alone(store: AnyStore) -> None:
    hub = make_hub(store)
    async with Client(hub) as client:
        await client.create(b"a")
        for _ in range(20):
            store.put(b"a")
        store.compact(21)
        store.put(b"a")
        await client.until(lambda: len(events_of(client.taken)) == 21)


async def test_cancel_while_behind_ends_reading(store: AnyStore) -> None:
    hub = make_hub(store)
    for _ in range(5000):
        store.put(b"a")
    async with Client(hub) as client:
        client.flows.clear()
        await client.create(b"a", start_revision=2)
        await client.create(b"b", watch_id=5)
        await client.cancel(0)
        await client.progress()
        client.flows.set()
        await client.until(lambda: bool(client.taken) and client.taken[-1].watch_id == -1)
        client.taken.clear()
        await client.quiet()
        assert store.history_calls <= 2


async def test_an_event_is_encoded_once_for_all_watchers(
    store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bytes] = []

    def counting(event: mvccpb_pb2.Event, prev_kv: mvccpb_pb2.KeyValue | None = None) -> bytes:
        calls.append(event.kv.key)
        return wire.event_field(event, prev_kv)

    monkeypatch.setattr(hub_module, "event_field", counting)
    hub = make_hub(store)
    async with Client(hub) as one, Client(hub) as two:
        for client in (one, two):
            for _ in range(50):
                await client.create(b"a")
                await client.create(b"", b"\0")
        for client in (one, two):
            await client.take(100)
        store.put(b"a", b"x" * 1000)
        shared = {id(item.shared) for s in (one, two) for item in s.stream._out}
        assert calls == [b"a"] and len(shared) == 1
        for client in (one, two):
            assert len(await client.take(100)) == 100


async def test_many_watchers_behind_do_not_hold_the_loop(store: AnyStore) -> None:
    hub = make_hub(store)
    for number in range(3000):
        store.put(b"k%d" % (number % 100))
    async with Client(hub, responses_max=100_000) as client:
        for number in range(100):
            await client.create(b"k%d" % number, start_revision=2)
        turns = 0
        while len(events_of(client.taken)) < 3000:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 100, "every slice gives the loop a turn"
        per_key = {
            watch_id: [
                r for _, _, r in events_of([x for x in client.taken if x.watch_id == watch_id])
            ]
            for watch_id in range(100)
        }
        assert all(per_key[n] == list(range(n + 2, 3002, 100)) for n in range(100))


async def test_closed_streams_leave_nothing_in_the_hub(store: AnyStore) -> None:
    hub = make_hub(store)
    store.put(b"a")
    for _ in range(3):
        async with Client(hub) as client:
            await client.create(b"a")
            await client.create(b"a", b"b", start_revision=1)
            await client.create(b"a", start_revision=99)
            await client.progress()
            await wait_until(lambda: hub.stats.watchers == 3, 5)
    assert hub.stats.watchers == 0 and hub.stats.streams == 0
    assert len(hub._index) == 0 and not hub._progress
