"""Hypothesis drives a machine and a slow, obvious twin: a list of every key's past."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consensus.types import Position
from kvstore.errors import COMPACTED, FUTURE_REVISION, LEASE_NOT_FOUND, EtcdError
from kvstore.mvcc.hashing import KvHash, hash_kv_steps
from kvstore.mvcc.scrub import scrub_steps
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.mvccpb_pb2 import Event, KeyValue
from tests.kvstore.mvcc.driver import Driver, drain

KEYS = st.sampled_from([b"a", b"b", b"b\0", b"c", b"d" * 481, b"d" * 481 + b"x", b"e\xff"])
ENDS = st.sampled_from([b"", b"\0", b"b", b"c", b"d" * 500, b"f"])
VALUES = st.sampled_from([b"", b"1", b"22", b"x" * 5000])


@attrs.define
class Model:
    """Every key's past: (revision, what it was then or None), oldest first; and leases."""

    revision: int = 1
    compacted: int = 0
    past: dict[bytes, list[tuple[int, KeyValue | None]]] = attrs.field(factory=dict)
    leases: dict[int, int] = attrs.field(factory=dict)
    events: list[tuple[int, list[Event]]] = attrs.field(factory=list)

    def at(self, key: bytes, revision: int) -> KeyValue | None:
        found = None
        for when, pair in self.past.get(key, []):
            if when <= revision:
                found = pair
        return found

    def matching(self, key: bytes, end: bytes, revision: int) -> list[KeyValue]:
        return [
            pair
            for name in sorted(self.past)
            if inside(name, key, end) and (pair := self.at(name, revision)) is not None
        ]

    def write(self, changes: Callable[[int], Sequence[Event]]) -> None:
        events = changes(self.revision + 1)
        if events:
            self.revision += 1
            self.events.append((self.revision, list(events)))

    def put(self, key: bytes, value: bytes, lease: int, revision: int) -> Event:
        old = self.at(key, revision)
        pair = KeyValue(key=key, value=value, lease=lease, mod_revision=revision)
        pair.create_revision = old.create_revision if old else revision
        pair.version = old.version + 1 if old else 1
        self.past.setdefault(key, []).append((revision, pair))
        return Event(kv=pair)

    def delete(self, keys: list[bytes], revision: int) -> list[Event]:
        for key in keys:
            self.past[key].append((revision, None))
        return [
            Event(type=Event.DELETE, kv=KeyValue(key=key, mod_revision=revision)) for key in keys
        ]


def inside(name: bytes, key: bytes, end: bytes) -> bool:
    if not end:
        return name == key
    return name >= key and (end == b"\0" or name < end)


class Recorder:
    """A watch sink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[int, list[Event]]] = []

    def notify(self, revision: int, events: Sequence[Event]) -> None:
        self.events.append((revision, list(events)))

    def restored(self) -> None:
        pass

    def compacted(self, revision: int) -> None:
        pass


class MachineTwin(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="kvstore-model-"))
        self.driver = Driver(self.directory / "machine")
        self.sink = self.driver.machine.watch_sink = Recorder()
        self.model = Model()
        self.compacted_history = 0

    @rule(key=KEYS, value=VALUES, lease=st.sampled_from([0, 0, 1, 2]))
    def put(self, key: bytes, value: bytes, lease: int) -> None:
        answer = self.driver.put(key, value, lease=lease, prev_kv=True)
        if lease and lease not in self.model.leases:
            assert answer == LEASE_NOT_FOUND
            return
        before = self.model.at(key, self.model.revision)
        self.model.write(lambda revision: [self.model.put(key, value, lease, revision)])
        assert answer.header.revision == self.model.revision
        assert answer.HasField("prev_kv") == (before is not None)
        if before is not None:
            assert answer.prev_kv == before

    @rule(key=KEYS, times=st.integers(10, 40))
    def overwrite(self, key: bytes, times: int) -> None:
        for number in range(times):
            self.driver.put(key, b"%d" % number)
            self.model.write(
                lambda revision, n=number: [self.model.put(key, b"%d" % n, 0, revision)]
            )

    @rule(key=KEYS, end=ENDS)
    def delete(self, key: bytes, end: bytes) -> None:
        gone = self.model.matching(key, end, self.model.revision)
        answer = self.driver.delete(key, end, prev_kv=True)
        self.model.write(lambda revision: self.model.delete([pair.key for pair in gone], revision))
        assert answer.deleted == len(gone)
        assert list(answer.prev_kvs) == gone
        assert answer.header.revision == self.model.revision

    @rule(pairs=st.lists(st.tuples(KEYS, VALUES), unique_by=lambda pair: pair[0], max_size=4))
    def txn(self, pairs: list[tuple[bytes, bytes]]) -> None:
        puts = [pb.RequestOp(request_put=pb.PutRequest(key=k, value=v)) for k, v in pairs]
        answer = self.driver.call(pb.TxnRequest(success=puts))
        self.model.write(
            lambda revision: [self.model.put(key, value, 0, revision) for key, value in pairs]
        )
        assert answer.header.revision == self.model.revision

    @rule(id=st.integers(1, 2), ttl=st.integers(1, 100))
    def grant(self, id: int, ttl: int) -> None:
        self.driver.call(pb.LeaseGrantRequest(ID=id, TTL=ttl))
        self.model.leases.setdefault(id, max(ttl, 2))

    @rule(id=st.integers(1, 2))
    def revoke(self, id: int) -> None:
        self.driver.call(pb.LeaseRevokeRequest(ID=id))
        if self.model.leases.pop(id, None):
            living = self.model.matching(b"\0", b"\0", self.model.revision)
            gone = [pair.key for pair in living if pair.lease == id]
            self.model.write(lambda revision: self.model.delete(gone, revision))

    @rule(back=st.integers(-1, 60))
    def compact(self, back: int) -> None:
        revision = self.model.revision - back
        answer = self.driver.compact(revision)
        if revision <= self.model.compacted and (revision or self.compacted_history):
            assert answer == COMPACTED
        elif revision > self.model.revision:
            assert answer == FUTURE_REVISION
        else:
            self.compacted_history += 1
            self.model.compacted = max(revision, 0)

    @rule()
    def tick(self) -> None:
        self.driver.machine.tick()

    @precondition(lambda self: self.driver.machine.compacting)
    @rule()
    def finish_sweep(self) -> None:
        before = self.driver.machine.state_hash()
        self.driver.sweep()
        assert self.driver.machine.state_hash() == before, "physical removal changed the state"

    @rule()
    def restart(self) -> None:
        self.driver.reopen()
        self.driver.machine.watch_sink = self.sink

    @rule()
    def move_to_another_member(self) -> None:
        """Snapshot, restore into a fresh machine, and go on there."""
        old = self.driver
        before = old.machine.state_hash()
        snapshot = old.machine.snapshot()
        self.driver = Driver(Path(tempfile.mkdtemp(dir=self.directory)))
        at = Position(old.index, 1, 0, 0)
        for _ in self.driver.machine.restore_steps(snapshot.chunks(), at):
            pass
        snapshot.release()
        assert self.driver.machine.position() == at
        assert self.driver.machine.state_hash() == before
        self.driver.index = old.index
        self.driver.machine.watch_sink = self.sink
        old.machine.close()

    @rule(key=KEYS, end=ENDS, back=st.integers(-1, 80), limit=st.integers(0, 3))
    def read(self, key: bytes, end: bytes, back: int, limit: int) -> None:
        revision = self.model.revision - back
        answer = self.driver.range(key, end, revision=revision, limit=limit)
        if revision > self.model.revision:
            assert answer == FUTURE_REVISION
            return
        if 0 < revision < self.model.compacted:
            assert answer == COMPACTED
            return
        expected = self.model.matching(key, end, revision if revision > 0 else self.model.revision)
        assert answer.count == len(expected)
        assert list(answer.kvs) == (expected[:limit] if limit else expected)
        assert answer.more == (bool(limit) and len(expected) > limit)

    @rule(key=KEYS, end=ENDS, back=st.integers(0, 80), most=st.integers(1, 5))
    def read_history(self, key: bytes, end: bytes, back: int, most: int) -> None:
        store = self.driver.machine.store
        start = max(self.model.revision - back, 1)
        if start < self.model.compacted:
            try:
                store.history(start, key, end, most, self.model.revision)
            except EtcdError as error:
                assert error.status == COMPACTED
                return
            raise AssertionError("compacted history was answered")
        expected = [
            (revision, touched)
            for revision, events in self.model.events
            if revision >= start
            and (touched := [event for event in events if inside(event.kv.key, key, end)])
        ]
        found: list[Any] = []
        while start <= self.model.revision:
            some, start = store.history(start, key, end, most, self.model.revision)
            assert len(some) <= most
            found += some
        assert found == expected

    @rule(key=KEYS, back=st.integers(0, 80))
    def get_at(self, key: bytes, back: int) -> None:
        revision = self.model.revision - back
        expected = None
        if revision >= self.model.compacted:
            expected = self.model.at(key, revision)
        assert self.driver.machine.store.get_at(key, revision) == expected

    @rule()
    def hash_and_scrub(self) -> None:
        store = self.driver.machine.store
        found = drain(hash_kv_steps(store, 0))
        assert isinstance(found, KvHash) and found.revision == self.model.revision
        assert drain(scrub_steps(store)) > 0

    @invariant()
    def same_place(self) -> None:
        store = self.driver.machine.store
        assert store.current_revision == self.model.revision
        assert store.compact_revision == self.model.compacted
        assert dict(self.driver.machine.leases()) == self.model.leases
        for id in self.model.leases:
            living = self.model.matching(b"\0", b"\0", self.model.revision)
            expected = [pair.key for pair in living if pair.lease == id]
            assert self.driver.machine.lessor.keys(id) == expected

    @invariant()
    def every_event_was_told_once(self) -> None:
        assert self.sink.events == self.model.events

    def teardown(self) -> None:
        self.driver.machine.close()
        shutil.rmtree(self.directory)


TestMachineTwin = MachineTwin.TestCase
TestMachineTwin.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
