"""Leases, and who is told of them."""

from __future__ import annotations

from pathlib import Path

from consensus.types import Position
from kvstore.errors import (
    LEADER_CHANGED,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    LEASE_TTL_TOO_LARGE,
)
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command, LeaseExpire
from tests.kvstore.machine.helpers import Listener, Sink
from tests.kvstore.mvcc.driver import Driver, keys_of


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
