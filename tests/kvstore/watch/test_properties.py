"""Random histories: every watcher sees exactly what an obvious model says it must.

The model is a list of all events. For each watch the promise is: a prefix of the matching events
from its start on, in order, no gap, no repetition, a revision never over two responses; all of them
in the end, unless it was canceled or compacted away; header revisions never claim what is missing.
"""

from __future__ import annotations

import asyncio

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2
from tests.kvstore.watch.fakes import PUT, Client, FakeStore, in_range, make_hub

KEYS = [b"a", b"b", b"ba", b"c"]
RANGES = [(b"a", b""), (b"b", b""), (b"a", b"c"), (b"b", b"c"), (b"\0", b"\0"), (b"b", b"\0")]
CLIENTS = 2


@attrs.define
class Watch:
    """What the model knows of a watch."""

    id: int
    start: int
    range: tuple[bytes, bytes]
    filters: list[int]
    prev_kv: bool
    canceled_by_client: bool = False


class HubAgainstModel(RuleBasedStateMachine):
    """Drives one hub with two streams that take what they get at their own pace."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = FakeStore()
        self.hub = make_hub(self.store)
        self.watches: list[list[Watch]] = [[] for _ in range(CLIENTS)]
        self.clients: list[Client] = []
        self.runner.run(self._open())

    async def _open(self) -> None:
        self.clients = [Client(self.hub, responses_max=4) for _ in range(CLIENTS)]

    def turn(self, turns: int = 1) -> None:
        async def let_run() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.runner.run(let_run())

    @rule(changes=st.dictionaries(st.sampled_from(KEYS), st.booleans(), min_size=1))
    def write(self, changes: dict[bytes, bool]) -> None:
        value = b"%d" % self.store.current_revision
        wanted = [
            (key, value if put else None)
            for key, put in changes.items()
            if put or self.store.lives(key)
        ]
        if wanted:
            self.store.txn(*wanted)

    @rule(count=st.integers(1, 30), key=st.sampled_from(KEYS))
    def write_many(self, count: int, key: bytes) -> None:
        for _ in range(count):
            self.store.put(key)

    @rule(back=st.integers(0, 40))
    def compact(self, back: int) -> None:
        revision = self.store.current_revision - back
        if revision > self.store.compact_revision:
            self.store.compact(revision)

    @rule(
        client=st.integers(0, CLIENTS - 1),
        watched=st.sampled_from(RANGES),
        offset=st.none() | st.integers(-20, 5),
        filters=st.lists(st.sampled_from([0, 1]), max_size=1),
        prev_kv=st.booleans(),
    )
    def create(
        self,
        client: int,
        watched: tuple[bytes, bytes],
        offset: int | None,
        filters: list[int],
        prev_kv: bool,
    ) -> None:
        current = self.store.current_revision
        start = 0 if offset is None else max(1, current + offset)
        watches = self.watches[client]
        watches.append(Watch(len(watches), start or current + 1, watched, filters, prev_kv))
        self.runner.run(
            self.clients[client].create(
                *watched, start_revision=start, filters=filters, prev_kv=prev_kv
            )
        )

    @rule(client=st.integers(0, CLIENTS - 1), number=st.integers(0, 20))
    def cancel(self, client: int, number: int) -> None:
        watches = self.watches[client]
        if number < len(watches) and not watches[number].canceled_by_client:
            watches[number].canceled_by_client = True
            self.runner.run(self.clients[client].cancel(number))

    @rule(client=st.integers(0, CLIENTS - 1))
    def ask_progress(self, client: int) -> None:
        self.runner.run(self.clients[client].progress())

    @rule(client=st.integers(0, CLIENTS - 1), flows=st.booleans())
    def pause_or_resume(self, client: int, flows: bool) -> None:
        if flows:
            self.clients[client].flows.set()
        else:
            self.clients[client].flows.clear()

    @rule(turns=st.integers(1, 20))
    def run_loop(self, turns: int) -> None:
        self.turn(turns)

    @rule(missed=st.integers(1, 10), back=st.integers(0, 15), key=st.sampled_from(KEYS))
    def restore(self, missed: int, back: int, key: bytes) -> None:
        self.store.sink = None
        for _ in range(missed):
            self.store.put(key)
        self.compact(back)
        self.store.sink = self.hub
        self.hub.restored()

    @invariant()
    def every_watcher_saw_a_prefix(self) -> None:
        for number in range(CLIENTS):
            self.check(number)

    def expected(self, watch: Watch) -> list[mvccpb_pb2.Event]:
        return [
            event
            for revision in range(watch.start, self.store.current_revision + 1)
            for event in self.store.log[revision]
            if in_range(event.kv.key, *watch.range) and event.type not in watch.filters
        ]

    def check(self, number: int) -> dict[int, tuple[int, bool]]:
        """Check one client's responses; return per watch (events seen, over)."""
        seen: dict[int, tuple[int, bool]] = {}
        expected: dict[int, list[mvccpb_pb2.Event]] = {}
        by_id = {watch.id: watch for watch in self.watches[number]}
        progress: dict[int, int] = {}
        for response in self.clients[number].taken:
            if response.watch_id == -1:
                progress.update(dict.fromkeys(seen, response.header.revision))
                continue
            if response.created:
                assert response.watch_id not in seen
                seen[response.watch_id] = (0, False)
                expected[response.watch_id] = self.expected(by_id[response.watch_id])
                continue
            count, over = seen[response.watch_id]
            if response.canceled:
                watch = by_id[response.watch_id]
                assert response.compact_revision or watch.canceled_by_client
                assert not over or watch.canceled_by_client
                seen[response.watch_id] = (count, True)
                continue
            assert not over, "events after the end"
            wanted = expected[response.watch_id][count : count + len(response.events)]
            self.check_events(by_id[response.watch_id], response, wanted)
            first = response.events[0].kv.mod_revision
            assert first > progress.get(response.watch_id, 0), (
                "an event at or below a progress revision"
            )
            rest = expected[response.watch_id][count + len(response.events) :]
            assert not rest or rest[0].kv.mod_revision > response.header.revision
            seen[response.watch_id] = (count + len(response.events), False)
        return seen

    def check_events(
        self, watch: Watch, response: pb.WatchResponse, wanted: list[mvccpb_pb2.Event]
    ) -> None:
        assert response.events
        assert len(wanted) == len(response.events)
        for event, right in zip(response.events, wanted, strict=True):
            assert event.kv == right.kv and event.type == right.type
            if not watch.prev_kv or (right.type == PUT and right.kv.version == 1):
                assert not event.HasField("prev_kv")
            elif event.HasField("prev_kv"):
                versions = self.store.versions[right.kv.key]
                before = [kv for kv in versions if kv.mod_revision < right.kv.mod_revision]
                assert event.prev_kv == before[-1]

    def teardown(self) -> None:
        for client in self.clients:
            client.flows.set()
        self.turn(3000)
        for number, client in enumerate(self.clients):
            for watch_id, (count, over) in self.check(number).items():
                watch = self.watches[number][watch_id]
                if not over:
                    assert count == len(self.expected(watch)), "events are missing in the end"
                else:
                    assert count <= len(self.expected(watch))
            assert len(self.check(number)) == len(self.watches[number])
            client.stream.close()
        self.turn(5)
        assert self.hub.stats.watchers == 0
        for client in self.clients:
            assert client.task.done() and client.task.exception() is None
        self.runner.close()


TestHubAgainstModel = HubAgainstModel.TestCase
TestHubAgainstModel.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
