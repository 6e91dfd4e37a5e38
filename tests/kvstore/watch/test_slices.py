"""History that one watcher has read serves those that need the same, and only those."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kvstore.watch.slices import SLICES_KEPT_BYTES_MAX, SLICES_KEPT_MAX, Slice, Slices
from tests.kvstore.watch.fakes import Client, FakeStore, make_hub

WATCHERS = 50


async def test_watchers_that_are_behind_together_read_history_once() -> None:
    store = FakeStore()
    hub = make_hub(store)
    for number in range(5):
        store.put(b"a", b"%d" % number)
    async with Client(hub) as one, Client(hub) as other:
        for client in (one, other):
            for _ in range(WATCHERS):
                await client.create(b"a", start_revision=2)
            answers = [r for r in await client.take(2 * WATCHERS) if not r.created]
            assert sorted(r.watch_id for r in answers) == [*range(WATCHERS)]
            values = [[event.kv.value for event in answer.events] for answer in answers]
            assert values == [[b"0", b"1", b"2", b"3", b"4"]] * WATCHERS
        assert store.history_calls == 1


async def test_each_filter_and_range_has_a_slice_of_its_own() -> None:
    store = FakeStore()
    hub = make_hub(store)
    store.put(b"a", b"1")
    store.put(b"b", b"2")
    store.put(b"a", b"3")
    async with Client(hub) as client:
        await client.create(b"a", b"c", start_revision=2)
        await client.create(b"a", start_revision=2)
        await client.create(b"a", b"c", start_revision=2, prev_kv=True)
        await client.create(b"a", b"c", start_revision=3)
        answers = {r.watch_id: r for r in await client.take(8) if not r.created}
        values = {
            watch_id: [(event.kv.value, event.prev_kv.value) for event in answer.events]
            for watch_id, answer in answers.items()
        }
        assert values == {
            0: [(b"1", b""), (b"2", b""), (b"3", b"")],
            1: [(b"1", b""), (b"3", b"")],
            2: [(b"1", b""), (b"2", b""), (b"3", b"1")],
            3: [(b"2", b""), (b"3", b"")],
        }


async def test_what_is_kept_ends_with_the_history_that_it_was_read_from() -> None:
    store = FakeStore()
    hub = make_hub(store)
    store.put(b"a", b"old")
    store.put(b"a", b"new")
    async with Client(hub) as client:

        async def read() -> tuple[bytes, bytes]:
            await client.create(b"a", start_revision=3, prev_kv=True)
            _, answer = await client.take(2)
            (event,) = answer.events
            return event.kv.value, event.prev_kv.value

        assert await read() == (b"new", b"old")
        store.compact(3)
        assert await read() == (b"new", b""), "what was before it is compacted"
        store.log[3][0].kv.value = b"another history"
        hub.restored()
        assert await read() == (b"another history", b"")


def test_the_oldest_slices_make_room() -> None:
    def watcher(revision: int) -> Any:
        return SimpleNamespace(
            next_revision=revision,
            key=b"a",
            range_end=b"",
            prev_kv=False,
            no_put=False,
            no_delete=False,
        )

    slices = Slices()
    for revision in range(SLICES_KEPT_MAX + 2):
        slices.keep(watcher(revision), Slice((), revision + 1, 1))
    assert [revision for revision in range(20) if slices.get(watcher(revision))] == [
        *range(2, SLICES_KEPT_MAX + 2)
    ]
    slices.keep(watcher(50), Slice((), 51, SLICES_KEPT_BYTES_MAX - 1))
    assert slices.get(watcher(50)) and slices.get(watcher(SLICES_KEPT_MAX + 1))
    assert slices.get(watcher(SLICES_KEPT_MAX)) is None
    slices.keep(watcher(60), Slice((), 61, SLICES_KEPT_BYTES_MAX + 1))
    assert slices.get(watcher(60)) is None and slices.get(watcher(50))
