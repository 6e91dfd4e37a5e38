"""Long reads and hashes in slices; compaction and defragmenting beside them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from consensus.errors import StorageError
from consensus.types import Position
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.mvccpb_pb2 import Event
from tests.kvstore.machine.helpers import Sink, fill
from tests.kvstore.mvcc.driver import Driver, drain, keys_of


def test_a_sliced_range_answers_one_revision_whatever_happens_meanwhile(driver: Driver) -> None:
    fill(driver, 5000)
    expected = driver.range(b"\0", b"\0")
    steps = driver.machine.query_steps(pb.RangeRequest(key=b"\0", range_end=b"\0"))
    next(steps)
    driver.put(b"key-004999", b"changed")
    driver.put(b"key-000000", b"changed")
    driver.put(b"key-002500x", b"new")
    driver.delete(b"key-003", b"key-004")
    driver.compact(driver.machine.store.current_revision)
    for _ in range(20):
        driver.machine.tick()
    assert driver.machine.compacting, "removal must wait for the read"
    driver.machine.commit()
    answer = drain(steps)
    assert answer == expected
    driver.sweep()
    assert len(keys_of(driver.range(b"\0", b"\0"))) == 4001


def test_an_abandoned_read_lets_compaction_go_on(driver: Driver) -> None:
    fill(driver, 5000)
    steps = driver.machine.query_steps(pb.RangeRequest(key=b"\0", range_end=b"\0"))
    next(steps)
    steps.close()
    driver.compact(driver.machine.store.current_revision)
    driver.sweep()


def test_hash_kv_is_equal_wherever_compaction_is(tmp_path: Path) -> None:
    swept, pending = Driver(tmp_path / "swept"), Driver(tmp_path / "pending")
    for driver in (swept, pending):
        chance = random.Random(5)
        for number in range(600):
            key = b"k%d" % chance.randrange(20)
            if chance.random() < 0.3:
                driver.delete(key)
            else:
                driver.put(key, b"%d" % number)
        driver.compact(driver.machine.store.current_revision - 100)
    swept.sweep()
    assert pending.machine.compacting
    current = swept.machine.store.current_revision
    for revision in (0, current - 100, current - 50, current):
        request = pb.HashKVRequest(revision=revision)
        answers = [drain(driver.machine.query_steps(request)) for driver in (swept, pending)]
        assert answers[0] == answers[1]
        assert answers[0].hash_revision == revision or current
    assert swept.machine.state_hash() == pending.machine.state_hash()
    swept.put(b"k1", b"x")
    assert swept.machine.state_hash() != pending.machine.state_hash()
    for driver in (swept, pending):
        driver.machine.close()


def test_compaction_frees_pages_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "machine")
    for _ in range(10):
        fill(driver, 300, b"v" * 1000)
    driver.machine.commit()
    before = driver.machine.db_size_in_use
    driver.compact(driver.machine.store.current_revision)
    driver.machine.tick()
    assert driver.machine.compacting
    driver.reopen()
    assert driver.machine.compacting, "the pending removal is remembered"
    driver.sweep()
    driver.machine.commit()
    assert driver.machine.db_size_in_use < before / 4
    size = driver.machine.db_size
    for _ in range(3):
        fill(driver, 300, b"w" * 1000)
    driver.machine.commit()
    assert driver.machine.db_size <= size * 1.1, "freed pages are not used again"
    driver.machine.close()


def test_a_deletion_at_the_compact_revision_is_kept_until_the_next(driver: Driver) -> None:
    driver.put(b"a")
    driver.delete(b"a")
    revision = driver.machine.store.current_revision
    driver.put(b"b")
    driver.compact(revision)
    driver.sweep()
    store = driver.machine.store
    events, _ = store.history(revision, b"a", b"", 10, revision)
    assert [event.type for event in events[0][1]] == [Event.DELETE]
    driver.compact(revision + 1)
    driver.sweep()
    assert store.head(b"a") is None


def test_defragmenting_shrinks_the_file_while_writes_go_on(tmp_path: Path) -> None:
    driver, twin = Driver(tmp_path / "machine"), Driver(tmp_path / "twin")
    for each in (driver, twin):
        each.call(pb.LeaseGrantRequest(ID=5, TTL=100))
        for _ in range(5):
            fill(each, 400, b"v" * 1000)
        each.put(b"leased" * 300, b"v", lease=5)
        each.compact(each.machine.store.current_revision - 20)
        each.sweep()
        each.machine.commit()
    sink = driver.machine.watch_sink = Sink()
    machine = driver.machine
    before = machine.db_size
    frozen = machine.snapshot()
    number = 0
    for number, _ in enumerate(machine.defragment_steps()):
        for each in (driver, twin):
            each.put(b"key-%06d" % (number % 400), b"during")
        if number == 20:
            assert b"".join(frozen.chunks())
            frozen.release()
        if number % 5 == 0:
            machine.tick()
    assert number >= 20, "the switch did not wait for the snapshot"
    assert machine.db_size < before / 2
    assert machine.state_hash() == twin.machine.state_hash()
    assert machine.position() == twin.machine.position()
    assert len(sink.heard) == number + 1, "a write was told twice, or not at all"
    assert keys_of(driver.range(b"leased" * 300)) == [b"leased" * 300]
    driver.reopen()
    assert driver.machine.state_hash() == twin.machine.state_hash()
    assert sorted(os.listdir(driver.directory)) == ["state.mdb", "state.mdb-lock"]
    for each in (driver, twin):
        each.machine.close()


def test_defragmenting_gives_up_when_the_state_is_replaced(driver: Driver) -> None:
    fill(driver, 3000, b"v" * 1000)
    steps = driver.machine.defragment_steps()
    next(steps)
    driver.machine.discard()
    with pytest.raises(StorageError, match="replaced meanwhile"):
        drain(steps)
    assert driver.machine.position() == Position()
    assert sorted(os.listdir(driver.directory)) == ["state.mdb", "state.mdb-lock"]
