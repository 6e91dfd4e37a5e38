"""The machine keeps every promise of the contract, and refuses what it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consensus.testing import StateMachineContract
from consensus.types import Entry
from kvstore.applier import UnknownCommand
from kvstore.machine import KVStateMachine
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command, LeaseExpire, MemberAttributes
from tests.kvstore.mvcc.driver import Driver, keys_of


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


def test_only_reads_are_queries(driver: Driver) -> None:
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"a"))
    for request in (
        pb.PutRequest(key=b"a"),
        pb.TxnRequest(failure=[pb.RequestOp(request_txn=pb.TxnRequest(success=[put]))]),
        pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE),
    ):
        with pytest.raises(TypeError):
            driver.machine.query(request)
