"""Alarms and the quota: what they stop, and what goes on."""

from __future__ import annotations

from pathlib import Path

from kvstore.errors import (
    CORRUPT,
    NO_SPACE,
)
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.kvstore.mvcc.driver import Driver, keys_of


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
