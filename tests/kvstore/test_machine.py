"""The state machine around the store: contract, durability, damage, leases, alarms, quota."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
import pytest

from chaos.lossyfs.disk import LossyDisk, why_not
from chaos.lossyfs.volatile import Forget
from consensus.errors import StorageError
from consensus.testing import StateMachineContract
from consensus.types import Entry, Position
from kvstore.applier import UnknownCommand
from kvstore.errors import (
    CORRUPT,
    LEADER_CHANGED,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    LEASE_TTL_TOO_LARGE,
    NO_SPACE,
)
from kvstore.machine import COMMIT_BYTES, COMMIT_RECORDS, KVStateMachine
from kvstore.mvcc.backend import FORMAT_KEY, Backend
from kvstore.mvcc.records import Damaged
from kvstore.mvcc.scrub import scrub_steps
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command, LeaseExpire, MemberAttributes
from kvstore.pb.mvccpb_pb2 import Event
from tests.kvstore.mvcc.driver import Driver, drain, keys_of
from tests.waiting import wait_until_sync


class TestContract(StateMachineContract):
    """Everything that ``consensus.statemachine`` promises, killed restores included."""

    def make_machine(self, directory: Path) -> KVStateMachine:
        return KVStateMachine(directory)

    def commands(self) -> list[bytes]:
        txn = pb.TxnRequest(
            compare=[pb.Compare(key=b"a", target=pb.Compare.VERSION, version=1)],
            success=[
                pb.RequestOp(request_put=pb.PutRequest(key=b"c", value=b"x" * 100_000)),
                pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"b")),
            ],
        )
        commands = [
            Command(put=pb.PutRequest(key=b"a", value=b"1")),
            Command(lease_grant=pb.LeaseGrantRequest(ID=7, TTL=60)),
            Command(put=pb.PutRequest(key=b"b" * 2000, value=b"2", lease=7)),
            Command(put=pb.PutRequest(key=b"a", lease=99)),
            Command(txn=txn),
            Command(put=pb.PutRequest(key=b"big", value=b"y" * 900_000)),
            Command(delete_range=pb.DeleteRangeRequest(key=b"a")),
            Command(compaction=pb.CompactionRequest(revision=4)),
            Command(lease_expire=LeaseExpire(ids=[7], term=3)),
            Command(alarm=pb.AlarmRequest(action=1, memberID=3, alarm=pb.NOSPACE)),
            Command(member_attributes=MemberAttributes(id=3, name="m", client_urls=["http://x"])),
        ]
        return [command.SerializeToString() for command in commands]

    def queries(self) -> list[Any]:
        everything = pb.RangeRequest(key=b"\0", range_end=b"\0")
        return [everything, pb.LeaseLeasesRequest(), pb.AlarmRequest(), pb.TxnRequest()]


@pytest.fixture
def driver(tmp_path: Path) -> Any:
    driver = Driver(tmp_path / "machine")
    yield driver
    driver.machine.close()


# -- applying ------------------------------------------------------------------------------------


def test_an_unknown_command_halts_before_it(driver: Driver) -> None:
    driver.put(b"a")
    driver.machine.commit()
    entries = [
        Entry(1, 2, 0, Command(put=pb.PutRequest(key=b"b")).SerializeToString()),
        Entry(1, 3, 0, b"\xfa\x07\x00"),
    ]
    with pytest.raises(UnknownCommand, match="entry 3"):
        driver.machine.apply_batch(entries)
    assert driver.machine.position().index == 1
    assert keys_of(driver.range(b"\0", b"\0")) == [b"a"]


def test_a_killed_process_keeps_a_prefix(tmp_path: Path) -> None:
    """SIGKILL while it applies: what is on disk is what the log leads to, up to its position."""
    code = f"""
import sys
from pathlib import Path
from tests.kvstore.mvcc.driver import Driver
driver = Driver(Path({str(tmp_path / "machine")!r}))
for number in range(10**9):
    driver.put(b"k%d" % (number % 50), b"%d" % number)
    if number % 10 == 0:
        driver.machine.tick()
    if number == 5000:
        print("running", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"running\n"
        child.send_signal(signal.SIGKILL)
    machine = KVStateMachine(tmp_path / "machine")
    at = machine.position().index
    assert at > 5000 - 2 * COMMIT_RECORDS
    assert machine.store.current_revision == at + 1
    twin = Driver(tmp_path / "twin")
    for number in range(at):
        twin.put(b"k%d" % (number % 50), b"%d" % number)
    assert machine.state_hash() == twin.machine.state_hash()
    machine.close()
    twin.machine.close()


def test_large_values_are_committed_before_they_are_many(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "machine")
    for number in range(12):
        driver.put(b"k%d" % number, b"x" * (COMMIT_BYTES // 10))
    assert sum(driver.machine.commits.counts) == 1
    assert driver.machine.store.uncommitted == 2
    driver.machine.close()


def test_a_position_stays_whatever_comes_right_after(tmp_path: Path) -> None:
    if why_not():
        pytest.skip(why_not())
    disk = LossyDisk("m", tmp_path / "store", tmp_path / "disk", tmp_path / "log", seed=7)
    code = f"""
from pathlib import Path
from tests.kvstore.mvcc.driver import Driver
driver = Driver(Path({str(tmp_path / "disk" / "machine")!r}))
driver.put(b"a")
print(driver.machine.position().index, flush=True)
input()
"""
    disk.mount()
    try:
        for expected in (1, 2, 3):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
                assert child.stdout is not None
                assert int(child.stdout.readline()) == expected
                child.send_signal(signal.SIGKILL)
            disk.forget(Forget.ALL)
    finally:
        disk.unmount()


@pytest.mark.parametrize("mode", Forget)
def test_a_loss_of_power_keeps_a_prefix_and_every_position(tmp_path: Path, mode: Forget) -> None:
    """The disk forgets what was not synced: a commit may go, what ``position`` said does not."""
    if why_not():
        pytest.skip(why_not())
    disk = LossyDisk("m", tmp_path / "store", tmp_path / "disk", tmp_path / "log", seed=7)
    code = f"""
import sys
from pathlib import Path
from tests.kvstore.mvcc.driver import Driver
driver = Driver(Path({str(tmp_path / "disk" / "machine")!r}))
number = driver.machine.position().index
while True:
    driver.put(b"k%d" % (number % 50), b"%d" % number)
    number += 1
    if number % 7 == 0:
        driver.machine.commit()
    if number % 100 == 0:
        print(driver.machine.position().index, flush=True)
"""
    disk.mount()
    try:
        twin, at, lost = Driver(tmp_path / "twin"), 0, 0
        for _ in range(4):
            with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                said = [int(child.stdout.readline()) for _ in range(3)][-1]
                child.send_signal(signal.SIGKILL)
            lost += disk.forget(mode)
            machine = KVStateMachine(tmp_path / "disk" / "machine")
            begins, at = at, machine.position().index
            assert at >= said
            for number in range(begins, at):
                twin.put(b"k%d" % (number % 50), b"%d" % number)
            assert machine.state_hash() == twin.machine.state_hash()
            machine.close()
        twin.machine.close()
        assert lost > 0
    finally:
        disk.unmount()


def test_what_is_applied_is_seen_at_once_and_durable_after_commit(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "machine")
    driver.put(b"a")
    assert keys_of(driver.range(b"a")) == [b"a"]
    assert not driver.machine.commit_due
    wait_until_sync(lambda: driver.machine.commit_due, 5.0)
    driver.machine.tick()
    assert not driver.machine.store.dirty
    driver.put(b"b")
    driver.machine.store.abort()
    assert keys_of(driver.range(b"\0", b"\0")) == [b"a"]
    driver.machine.close()


def test_only_reads_are_queries(driver: Driver) -> None:
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"a"))
    for request in (
        pb.PutRequest(key=b"a"),
        pb.TxnRequest(failure=[pb.RequestOp(request_txn=pb.TxnRequest(success=[put]))]),
        pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE),
    ):
        with pytest.raises(TypeError):
            driver.machine.query(request)


# -- sliced reads --------------------------------------------------------------------------------


def fill(driver: Driver, count: int, value: bytes = b"v") -> None:
    commands = [
        Command(put=pb.PutRequest(key=b"key-%06d" % number, value=value)).SerializeToString()
        for number in range(count)
    ]
    start = driver.index + 1
    driver.machine.apply_batch([Entry(1, start + n, 0, c) for n, c in enumerate(commands)])
    driver.index += count


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


# -- compaction ----------------------------------------------------------------------------------


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


# -- leases --------------------------------------------------------------------------------------


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[str, int, int]] = []

    def granted(self, id: int, ttl_s: int) -> None:
        self.heard.append(("granted", id, ttl_s))

    def revoked(self, id: int) -> None:
        self.heard.append(("revoked", id, 0))

    def reset(self) -> None:
        self.heard.append(("reset", 0, 0))


class Sink:
    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []
        self.events: list[Event] = []

    def notify(self, revision: int, events: Sequence[Event]) -> None:
        self.heard.append(("notify", revision))
        self.events += events

    def restored(self) -> None:
        self.heard.append(("restored", 0))

    def compacted(self, revision: int) -> None:
        self.heard.append(("compacted", revision))


def test_leases_as_etcd_grants_and_revokes_them(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "machine", min_lease_ttl_s=2)
    listener = driver.machine.lease_listener = Listener()
    sink = driver.machine.watch_sink = Sink()
    grant = pb.LeaseGrantRequest
    assert driver.call(grant(ID=5, TTL=1)).TTL == 2
    assert driver.call(grant(ID=5, TTL=10)) == LEASE_EXISTS
    assert driver.call(grant(ID=5, TTL=9_000_000_001)) == LEASE_TTL_TOO_LARGE
    assert driver.call(grant(ID=6, TTL=9_000_000_000)).TTL == 9_000_000_000
    for key in (b"c", b"a", b"b" * 3000):
        driver.put(key, lease=5)
    driver.put(b"d", lease=6)
    driver.put(b"c", lease=6)
    assert driver.machine.lessor.keys(5) == [b"a", b"b" * 3000]
    sink.events.clear()
    answer = driver.call(pb.LeaseRevokeRequest(ID=5))
    assert answer.header.revision == driver.machine.store.current_revision
    assert [event.kv.key for event in sink.events] == [b"a", b"b" * 3000]
    assert {event.kv.mod_revision for event in sink.events} == {answer.header.revision}
    assert driver.call(pb.LeaseRevokeRequest(ID=5)) == LEASE_NOT_FOUND
    assert dict(driver.machine.leases()) == {6: 9_000_000_000}
    assert keys_of(driver.range(b"\0", b"\0")) == [b"c", b"d"]
    assert listener.heard == [("granted", 5, 2), ("granted", 6, 9_000_000_000), ("revoked", 5, 0)]
    driver.machine.close()


def test_an_expiry_decided_in_another_term_is_refused(driver: Driver) -> None:
    """etcd issue 15247: a leader that was deposed meanwhile must not revoke."""
    driver.call(pb.LeaseGrantRequest(ID=5, TTL=10))
    driver.put(b"a", lease=5)
    expire = Command(lease_expire=LeaseExpire(ids=[5, 77], term=4))
    assert driver.apply(expire, term=5) == LEADER_CHANGED
    assert keys_of(driver.range(b"a")) == [b"a"]
    assert driver.apply(expire, term=4) == (5,)
    assert keys_of(driver.range(b"a")) == []


def test_a_restore_and_a_discard_tell_those_who_listen(tmp_path: Path) -> None:
    source, target = Driver(tmp_path / "source"), Driver(tmp_path / "target")
    source.call(pb.LeaseGrantRequest(ID=5, TTL=10))
    listener = target.machine.lease_listener = Listener()
    sink = target.machine.watch_sink = Sink()
    frozen = source.machine.snapshot()
    for _ in target.machine.restore_steps(frozen.chunks(), Position(9, 2, 0, 0)):
        pass
    frozen.release()
    assert dict(target.machine.leases()) == {5: 10}
    target.machine.discard()
    assert dict(target.machine.leases()) == {}
    assert listener.heard == [("reset", 0, 0)] * 2
    assert sink.heard == [("restored", 0)] * 2
    for driver in (source, target):
        driver.machine.close()


# -- alarms and quota ----------------------------------------------------------------------------


def test_no_space_stops_what_costs_space_and_nothing_else(driver: Driver) -> None:
    driver.put(b"a")
    raised = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=3, alarm=pb.NOSPACE)
    driver.call(raised)
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"b"))
    delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"x"))
    assert driver.put(b"b") == NO_SPACE
    assert driver.call(pb.LeaseGrantRequest(ID=1, TTL=9)) == NO_SPACE
    assert driver.call(pb.TxnRequest(failure=[put])) == NO_SPACE
    assert driver.call(pb.TxnRequest(success=[delete])).succeeded
    assert driver.delete(b"a").deleted == 1
    assert keys_of(driver.range(b"a")) == []
    assert driver.compact(2).header.revision == 3
    driver.reopen()
    assert driver.put(b"b") == NO_SPACE
    raised.action = pb.AlarmRequest.DEACTIVATE
    assert len(driver.call(raised).alarms) == 1
    assert driver.put(b"b").header.revision == 4


def test_corrupt_stops_all_writes_and_no_read(driver: Driver) -> None:
    raised = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=3, alarm=pb.CORRUPT)
    driver.call(raised)
    put = pb.PutRequest(key=b"a")
    writes = [
        put,
        pb.DeleteRangeRequest(key=b"a"),
        pb.TxnRequest(success=[pb.RequestOp(request_put=put)]),
        pb.CompactionRequest(revision=1),
        pb.LeaseGrantRequest(ID=1, TTL=9),
        pb.LeaseRevokeRequest(ID=1),
    ]
    for request in writes:
        assert driver.call(request) == CORRUPT
    for read in (pb.RangeRequest(key=b"a"), pb.TxnRequest(), pb.LeaseLeasesRequest()):
        assert driver.call(read).header.revision == 1
    assert len(driver.machine.query(pb.AlarmRequest()).alarms) == 1


def test_a_small_quota_fills_up_and_compaction_frees_it(tmp_path: Path) -> None:
    quota = 13 * 4096
    driver = Driver(tmp_path / "machine", quota_bytes=quota)
    machine = driver.machine
    puts = 0
    while machine.has_space(256 + 1 + 500):
        driver.put(b"k", b"v" * 500)
        puts += 1
        assert puts < 200, "the quota is never reached"
    assert puts > 10
    driver.compact(machine.store.current_revision)
    driver.sweep()
    machine.commit()
    assert machine.has_space(256 + 1 + 500)
    assert machine.db_size_in_use < quota
    assert machine.db_size_in_use % 4096 == 0
    machine.close()
    unlimited = Driver(tmp_path / "unlimited", quota_bytes=-1)
    assert unlimited.machine.has_space(2**50)
    unlimited.machine.close()


# -- opening and damage --------------------------------------------------------------------------


def test_a_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "state.mdb").write_bytes(b"hello, this is a text file\n" * 1000)
    with pytest.raises(StorageError, match="not a kvstore database"):
        KVStateMachine(tmp_path / "text")
    (tmp_path / "other").mkdir()
    foreign = str(tmp_path / "other" / "state.mdb")
    with lmdb.open(foreign, subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"x", b"y")
    with pytest.raises(StorageError, match="not one of kvstore"):
        KVStateMachine(tmp_path / "other")


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    KVStateMachine(tmp_path).close()
    backend = Backend(tmp_path / "state.mdb")
    backend.put_meta(FORMAT_KEY, b"raftyard-kvstore-2")
    backend.commit()
    backend.close()
    with pytest.raises(StorageError, match="raftyard-kvstore-2"):
        KVStateMachine(tmp_path)


def test_an_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "state.mdb").mkdir()
    with pytest.raises(StorageError, match=r"state\.mdb"):
        KVStateMachine(tmp_path)


def test_too_little_address_space_is_said_plainly(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from consensus.errors import StorageError
from kvstore.machine import KVStateMachine
try:
    KVStateMachine(Path({str(tmp_path)!r}))
except StorageError as error:
    print(error)
"""
    limited = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)),
    )
    assert "64 GiB of address space" in limited.stdout


def test_damaged_values_are_never_answered(tmp_path: Path) -> None:
    """One bit flipped in any stored value: the damage is named, or the answers are right."""
    pristine = tmp_path / "pristine"
    driver = Driver(pristine)
    driver.call(pb.LeaseGrantRequest(ID=5, TTL=100))
    values = {b"key-%d" % n: bytes([65 + n]) * 400 for n in range(20)}
    for key, value in values.items():
        driver.put(key, b"old-" + value, lease=5)
        driver.put(key, value)
    driver.machine.close()
    content = (pristine / "state.mdb").read_bytes()
    chance = random.Random(3)
    found = 0
    for trial in range(120):
        key = chance.choice(sorted(values))
        # 30 bytes before a value there is still its record: checksum, links, key.
        offset = chance.choice(_occurrences(content, values[key])) + chance.randrange(
            -30, len(values[key])
        )
        flipped = bytearray(content)
        flipped[offset] ^= 1 << chance.randrange(8)
        directory = tmp_path / f"flip{trial}"
        directory.mkdir()
        (directory / "state.mdb").write_bytes(flipped)
        found += _damage_is_found(directory, values)
    assert found > 100, "hardly any flip was noticed; did they hit the values at all?"


def _occurrences(content: bytes, value: bytes) -> list[int]:
    places, at = [], content.find(value)
    while at >= 0:
        places.append(at)
        at = content.find(value, at + 1)
    return places


def _damage_is_found(directory: Path, values: dict[bytes, bytes]) -> bool:
    """Read all there is; a wrong answer fails the test. Returns whether damage was named."""
    machine = KVStateMachine(directory)
    damaged = False
    try:
        for key, value in values.items():
            for back in (0, 1):
                expected = value if not back else b"old-" + value
                revision = 3 + 2 * sorted(values, key=lambda k: int(k[4:])).index(key) - back
                try:
                    answer = machine.query(pb.RangeRequest(key=key, revision=revision))
                except Damaged as error:
                    assert str(error)
                    damaged = True
                else:
                    assert [pair.value for pair in answer.kvs] == [expected]
        try:
            drain(scrub_steps(machine.store))
        except Damaged:
            damaged = True
    finally:
        machine.store.backend.close()
    return damaged


def test_a_missing_record_is_damage_not_absence(driver: Driver) -> None:
    driver.put(b"a")
    backend = driver.machine.store.backend
    with backend.txn.cursor(db=backend.revisions) as cursor:
        assert cursor.last()
        name = cursor.key()
    backend.txn.delete(name, db=backend.revisions)
    with pytest.raises(Damaged, match="missing"):
        driver.range(b"a")
    with pytest.raises(Damaged, match="missing"):
        drain(scrub_steps(driver.machine.store))


def test_a_bad_snapshot_is_refused_and_the_state_stays(driver: Driver) -> None:
    driver.put(b"a", b"x" * 1000)
    frozen = driver.machine.snapshot()
    good = b"".join(frozen.chunks())
    frozen.release()
    before = driver.machine.state_hash()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    newer = good.replace(b"SNAPSHOT-0001", b"SNAPSHOT-0009")
    for bad in (b"", good[:-1], good + b"x", b"hello" * 99, bytes(flipped), newer):
        with pytest.raises(StorageError, match="snapshot cannot be restored"):
            for _ in driver.machine.restore_steps([bad], Position(9, 2, 0, 0)):
                pass
        assert driver.machine.state_hash() == before
    assert sorted(os.listdir(driver.directory)) == ["state.mdb", "state.mdb-lock"]


def test_a_disk_that_takes_no_more_leaves_a_prefix(tmp_path: Path) -> None:
    """The file may not grow over 2 MiB: the error is plain, and what was committed is there."""
    code = f"""
import resource, signal
from pathlib import Path
from consensus.errors import StorageError
from tests.kvstore.mvcc.driver import Driver
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21))
driver = Driver(Path({str(tmp_path)!r}))
try:
    while True:
        driver.put(b"k%d" % driver.index, b"v" * 1000)
        if driver.index % 100 == 0:
            driver.machine.commit()
except StorageError as error:
    print(error)
at = driver.machine.position().index
driver.index = at
for _ in range(100):
    driver.put(b"k%d" % driver.index, b"v" * 1000)
try:
    driver.machine.commit()
except StorageError:
    print("again")
assert driver.machine.position().index == at
driver.machine.close()
"""
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "cannot be written" in child.stdout
    assert "again" in child.stdout
    driver = Driver(tmp_path)
    assert driver.index > 250
    assert driver.machine.store.current_revision == driver.index + 1
    assert driver.range(b"\0", b"\0", count_only=True).count == driver.index
    driver.machine.close()
