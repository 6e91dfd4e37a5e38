"""A store in memory, small enough to be obviously right, and helpers to drive a watch stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from kvstore.errors import EtcdError, Status
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2
from kvstore.watch import WatchHub, WatchStream
from tests.waiting import wait_until

CLUSTER_ID, MEMBER_ID, TERM = 0xC1, 0xE1, 7
PUT, DELETE = mvccpb_pb2.Event.PUT, mvccpb_pb2.Event.DELETE


AnyStore = Any
"""A ``FakeStore`` or a ``RealStore``: the ``store`` fixture gives each in turn."""


def in_range(key: bytes, first: bytes, range_end: bytes) -> bool:
    """Return whether a watch of [first, range_end) concerns ``key``."""
    if range_end == b"":
        return key == first
    return key >= first and (range_end == b"\0" or key < range_end)


class FakeStore:
    """Keeps every revision for ever; ``compact`` only forbids reading old ones."""

    def __init__(self) -> None:
        self.current_revision = 1
        self.compact_revision = 0
        self.log: dict[int, list[mvccpb_pb2.Event]] = {1: []}
        self.versions: dict[bytes, list[mvccpb_pb2.KeyValue]] = {}
        self.sink: Any = None
        self.history_calls = 0

    def get_at(self, key: bytes, revision: int) -> mvccpb_pb2.KeyValue | None:
        if revision < self.compact_revision:
            return None
        for kv in reversed(self.versions.get(key, [])):
            if kv.mod_revision <= revision:
                return kv if kv.version else None
        return None

    def history(
        self, from_revision: int, key: bytes, range_end: bytes, max_revisions: int, to_revision: int
    ) -> tuple[Sequence[tuple[int, Sequence[mvccpb_pb2.Event]]], int]:
        assert from_revision >= self.compact_revision
        assert from_revision <= to_revision <= self.current_revision
        self.history_calls += 1
        found: list[tuple[int, list[mvccpb_pb2.Event]]] = []
        for revision in range(from_revision, to_revision + 1):
            if len(found) == max_revisions:
                return found, revision
            events = [e for e in self.log[revision] if in_range(e.kv.key, key, range_end)]
            if events:
                found.append((revision, events))
        return found, to_revision + 1

    def txn(self, *changes: tuple[bytes, bytes | None]) -> int:
        """Apply puts (key, value) and deletes (key, None) as one revision; return it."""
        self.current_revision = revision = self.current_revision + 1
        events = []
        for key, value in changes:
            versions = self.versions.setdefault(key, [])
            last = versions[-1] if versions else None
            if value is None:
                assert last is not None and last.version, "only existing keys are deleted"
                kv = mvccpb_pb2.KeyValue(key=key, mod_revision=revision)
                events.append(mvccpb_pb2.Event(type=DELETE, kv=kv))
            else:
                lives = last is not None and last.version > 0
                kv = mvccpb_pb2.KeyValue(
                    key=key,
                    value=value,
                    mod_revision=revision,
                    create_revision=last.create_revision if lives and last else revision,
                    version=last.version + 1 if lives and last else 1,
                )
                events.append(mvccpb_pb2.Event(type=PUT, kv=kv))
            versions.append(kv)
        self.log[revision] = events
        if self.sink is not None:
            self.sink.notify(revision, events)
        return revision

    def put(self, key: bytes, value: bytes = b"v") -> int:
        return self.txn((key, value))

    def delete(self, key: bytes) -> int:
        return self.txn((key, None))

    def lives(self, key: bytes) -> bool:
        return self.get_at(key, self.current_revision) is not None

    def compact(self, revision: int) -> None:
        self.compact_revision = revision
        if self.sink is not None:
            self.sink.compacted(revision)


def header(revision: int) -> pb.ResponseHeader:
    """Make a header of the test member."""
    return pb.ResponseHeader(
        cluster_id=CLUSTER_ID, member_id=MEMBER_ID, revision=revision, raft_term=TERM
    )


def make_hub(store: Any, **options: Any) -> WatchHub:
    """Make a hub that hears of everything the store does."""
    hub = WatchHub(store, header, **options)
    store.sink = hub
    return hub


class Client:
    """The far end of a stream: collects responses, and can stop taking them."""

    def __init__(self, hub: WatchHub, **options: Any) -> None:
        self.stream = WatchStream(hub, **options)
        self.taken: list[pb.WatchResponse] = []
        self.status: Status | None = None
        self.flows = asyncio.Event()
        self.flows.set()
        self.task = asyncio.create_task(self._take())

    async def _take(self) -> None:
        try:
            async for messages in self.stream.responses():
                await self.flows.wait()
                self.taken.extend(map(pb.WatchResponse.FromString, messages))
        except EtcdError as error:
            self.status = error.status

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stream.close()
        self.flows.set()
        await self.task

    async def create(self, key: bytes, range_end: bytes = b"", **fields: Any) -> None:
        request = pb.WatchCreateRequest(key=key, range_end=range_end, **fields)
        await self.stream.handle(pb.WatchRequest(create_request=request))

    async def cancel(self, watch_id: int) -> None:
        request = pb.WatchCancelRequest(watch_id=watch_id)
        await self.stream.handle(pb.WatchRequest(cancel_request=request))

    async def progress(self) -> None:
        await self.stream.handle(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def until(self, condition: Callable[[], bool], what: str = "") -> None:
        await wait_until(condition, 5, what or str(self.taken))

    async def take(self, count: int) -> list[pb.WatchResponse]:
        """Wait for ``count`` responses and return (and forget) exactly those."""
        await self.until(lambda: len(self.taken) >= count, f"{count} responses")
        out, self.taken = self.taken[:count], self.taken[count:]
        return out

    async def quiet(self) -> None:
        """Check that nothing more comes: a sentinel answer arrives with nothing before it."""
        await self.cancel_sentinel()

    async def cancel_sentinel(self) -> None:
        await self.create(b"sentinel", watch_id=999_999)
        await self.cancel(999_999)
        created, canceled = await self.take(2)
        assert created.watch_id == canceled.watch_id == 999_999, created
        assert created.created and canceled.canceled


def events_of(responses: Sequence[pb.WatchResponse]) -> list[tuple[int, bytes, int]]:
    """Flatten responses to (type, key, mod_revision)."""
    return [(e.type, e.kv.key, e.kv.mod_revision) for r in responses for e in r.events]
