"""Random histories of the real store: what each watcher gets is what a list of all events says.

Beyond ``test_properties``, which has a store that never loses anything: records are physically
compacted while slices of them are kept, the whole store is replaced by a snapshot of one that is
ahead, large responses leave in fragments, and many watchers fall behind together.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2
from kvstore.pb.command_pb2 import Command
from kvstore.watch import WatchHub, slices, stream, watcher
from tests.kvstore.watch.fakes import Client, header, in_range
from tests.kvstore.watch.real_store import RealStore
from tests.waiting import wait_until

KEYS = [b"a", b"b", b"ba", b"c", b"d" * 490]
RANGES = [(b"a", b""), (b"a", b"c"), (b"a", b"\0"), (b"b", b"\0"), (b"d" * 490, b"")]
FILTERS: list[Any] = [[], [], [0], [1]]
STEPS = 50
SENTINEL = 999


@attrs.define
class Log:
    """Every event there ever was, and a hub that hears of them, where there is one."""

    hub: WatchHub | None = None
    events: list[mvccpb_pb2.Event] = attrs.field(factory=list)
    newest: dict[bytes, mvccpb_pb2.KeyValue] = attrs.field(factory=dict)
    previous: dict[tuple[bytes, int], mvccpb_pb2.KeyValue | None] = attrs.field(factory=dict)

    def notify(self, revision: int, events: Sequence[mvccpb_pb2.Event]) -> None:
        for event in events:
            self.events.append(mvccpb_pb2.Event())
            self.events[-1].CopyFrom(event)
            kv = self.events[-1].kv
            self.previous[kv.key, revision] = self.newest.get(kv.key)
            self.newest[kv.key] = kv
        if self.hub is not None:
            self.hub.notify(revision, events)

    def restored(self) -> None:
        if self.hub is not None:
            self.hub.restored()

    def compacted(self, revision: int) -> None:
        if self.hub is not None:
            self.hub.compacted(revision)

    def before(self, event: mvccpb_pb2.Event) -> mvccpb_pb2.KeyValue | None:
        """The key of an event as it was right before it."""
        kv = self.previous[event.kv.key, event.kv.mod_revision]
        return kv if kv is not None and kv.version else None


class World:
    """One store, its hub, three clients that take what they get at their own pace."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.directory = directory
        self.store = RealStore(directory / "store")
        self.hub = WatchHub(self.store, header)
        self.hub.fragment_bytes = self.random.choice([150, 400])
        self.log = Log(self.hub)
        self.store.sink = self.log
        self.clients = [Client(self.hub, responses_max=n, bytes_max=1000) for n in (2, 8, 100)]
        self.asked: list[dict[int, pb.WatchCreateRequest]] = [{} for _ in self.clients]
        self.canceled: set[tuple[int, int]] = set()

    async def step(self) -> None:
        action = self.random.choices(
            [
                self.write,
                self.create,
                self.cancel,
                self.pause,
                self.compact,
                self.replace,
                self.run,
            ],
            [30, 25, 10, 8, 6, 4, 17],
        )[0]
        await action()

    async def write(self) -> None:
        for _ in range(self.random.choice([1, 3, 25])):
            write_some(self.store, self.random)

    async def create(self) -> None:
        """Watch from one revision on, in several ways, on every client: slices are shared."""
        start = max(1, self.store.current_revision + self.random.randrange(-60, 6))
        wanted = [
            pb.WatchCreateRequest(
                key=key,
                range_end=range_end,
                start_revision=start,
                filters=self.random.choice(FILTERS),
                fragment=self.random.random() < 0.3,
                prev_kv=self.random.random() < 0.3,
            )
            for key, range_end in self.random.choices(RANGES, k=4)
        ]
        for client, asked in zip(self.clients, self.asked, strict=True):
            if client.stream._answers > stream.ANSWERS_BUFFERED_MAX - 10:
                continue  # it would wait until the client takes some
            for request in wanted:
                watch_id = len(asked) + 1
                asked[watch_id] = pb.WatchCreateRequest(watch_id=watch_id)
                asked[watch_id].MergeFrom(request)
                await client.stream.handle(pb.WatchRequest(create_request=asked[watch_id]))

    async def cancel(self) -> None:
        number = self.random.randrange(len(self.clients))
        client = self.clients[number]
        if self.asked[number] and client.stream._answers < stream.ANSWERS_BUFFERED_MAX - 10:
            watch_id = self.random.choice(list(self.asked[number]))
            self.canceled.add((number, watch_id))
            await client.cancel(watch_id)

    async def pause(self) -> None:
        flows = self.random.choice(self.clients).flows
        if flows.is_set():
            flows.clear()
        else:
            flows.set()

    async def compact(self) -> None:
        revision = self.store.current_revision - self.random.randrange(50)
        if revision > self.store.compact_revision:
            self.store.apply(Command(compaction=pb.CompactionRequest(revision=revision)))
        self.store.machine.tick()

    async def replace(self) -> None:
        """Restore a snapshot of another member, which is ahead."""
        self.directory /= "o"
        other = RealStore(self.directory)
        move(self.store, other)
        other.sink = attrs.evolve(self.log, hub=None)
        for _ in range(self.random.randrange(30)):
            write_some(other, self.random)
        if other.current_revision - 10 > other.compact_revision and self.random.random() < 0.3:
            other.compact(other.current_revision - 10)
        if self.random.random() < 0.3:
            self.store.machine.discard()
        move(other, self.store)
        other.close()

    async def run(self) -> None:
        for _ in range(self.random.randrange(1, 30)):
            await asyncio.sleep(0)

    def check(self, number: int) -> None:
        """Check all that one client got against the log."""
        expected: dict[int, list[mvccpb_pb2.Event]] = {}
        over = set()
        for response in self.clients[number].taken:
            watch_id = response.watch_id
            if watch_id == SENTINEL:
                continue
            asked = self.asked[number][watch_id]
            if response.created:
                expected[watch_id] = [
                    event
                    for event in self.log.events
                    if event.kv.mod_revision >= asked.start_revision
                    and in_range(event.kv.key, asked.key, asked.range_end)
                    and int(event.type) not in set(map(int, asked.filters))
                ]
            elif response.canceled:
                assert response.compact_revision or (number, watch_id) in self.canceled
                over.add(watch_id)
            else:
                assert watch_id not in over, "events after the end"
                assert asked.fragment or not response.fragment
                self.check_events(asked, response, expected[watch_id])
        assert expected.keys() == self.asked[number].keys()
        for watch_id, rest in expected.items():
            assert watch_id in over or not rest, "events are missing"

    def check_events(
        self,
        asked: pb.WatchCreateRequest,
        response: pb.WatchResponse,
        expected: list[mvccpb_pb2.Event],
    ) -> None:
        """Check one response against what its watcher must still get, and take it off there."""
        assert response.events
        for event in response.events:
            right = expected.pop(0)
            assert (event.type, event.kv) == (right.type, right.kv)
            if event.HasField("prev_kv"):
                assert asked.prev_kv and event.prev_kv == self.log.before(event)
        if expected and not response.fragment:
            assert expected[0].kv.mod_revision > response.header.revision


def write_some(store: RealStore, choices: random.Random) -> None:
    """Write one revision: puts of some keys, deletions of others that live."""
    now = store.current_revision
    store.txn(
        *(
            (key, None)
            if choices.random() < 0.3 and store.get_at(key, now)
            else (key, b"%d" % now + b"x" * choices.choice([0, 50, 200]))
            for key in choices.sample(KEYS, choices.choice([1, 1, 2, 4]))
        )
    )


def move(source: RealStore, target: RealStore) -> None:
    """Give ``target`` all that ``source`` has."""
    snapshot = source.machine.snapshot()
    data = b"".join(snapshot.chunks())
    snapshot.release()
    target._index = source._index
    target.machine.restore(data)


async def take_all(client: Client) -> None:
    """Let a client take what there is for it, and wait until it has done so."""
    await wait_until(lambda: not client.stream._behind and not client.stream._out, 30, "the end")
    await client.create(b"sentinel", watch_id=SENTINEL)
    await wait_until(lambda: any(r.watch_id == SENTINEL for r in client.taken), 30, "the sentinel")


@pytest.mark.parametrize("seed", range(3))
async def test_each_watcher_gets_what_the_log_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # Small bounds, so that a short history meets all of them.
    monkeypatch.setattr(slices, "CATCH_UP_BYTES", 300)
    monkeypatch.setattr(stream, "CATCH_UP_BYTES", 300)
    monkeypatch.setattr(slices, "SLICES_KEPT_BYTES_MAX", 2000)
    monkeypatch.setattr(watcher, "CATCH_UP_REVISIONS_FIRST", 4)
    monkeypatch.setattr(stream, "SEND_BYTES", 200)
    world = World(tmp_path, seed)
    for _ in range(STEPS):
        await world.step()
    for number, client in enumerate(world.clients):
        client.flows.set()
        await take_all(client)
        world.check(number)
        client.stream.close()
        await client.task
    assert world.hub.stats.watchers == 0
    kept = world.hub.slices
    assert kept._bytes == sum(found.size for found in kept._kept.values())
    world.store.close()
