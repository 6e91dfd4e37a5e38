"""The same random requests to a real etcd and to a machine: every field of every answer agrees."""

from __future__ import annotations

import itertools
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.errors import Code, Status
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.interop import free_ports, require_program
from tests.kvstore.mvcc.driver import Driver
from tests.waiting import wait_until_sync

METHODS: dict[type, tuple[str, type]] = {
    pb.RangeRequest: ("KV/Range", pb.RangeResponse),
    pb.PutRequest: ("KV/Put", pb.PutResponse),
    pb.DeleteRangeRequest: ("KV/DeleteRange", pb.DeleteRangeResponse),
    pb.TxnRequest: ("KV/Txn", pb.TxnResponse),
    pb.CompactionRequest: ("KV/Compact", pb.CompactionResponse),
    pb.LeaseGrantRequest: ("Lease/LeaseGrant", pb.LeaseGrantResponse),
    pb.LeaseRevokeRequest: ("Lease/LeaseRevoke", pb.LeaseRevokeResponse),
    pb.LeaseLeasesRequest: ("Lease/LeaseLeases", pb.LeaseLeasesResponse),
    pb.AlarmRequest: ("Maintenance/Alarm", pb.AlarmResponse),
}
CODES = {code.value[0]: Code(code.value[0]) for code in grpc.StatusCode}


class Etcd:
    """A real etcd of one member."""

    def __init__(self, directory: Path) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
        command = [require_program("etcd"), "--data-dir", str(directory / "etcd")]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", f"default={peer}", "--unsafe-no-fsync"]
        with (directory / "etcd.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.channel = grpc.insecure_channel(client.removeprefix("http://"))
        wait_until_sync(
            lambda: not isinstance(self.call(pb.RangeRequest(key=b"k")), Status), 20.0, "etcd"
        )

    def call(self, request: Any) -> Any:
        method, response = METHODS[type(request)]
        call = self.channel.unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        try:
            return call(request, timeout=10)
        except grpc.RpcError as error:
            return Status(CODES[error.code().value[0]], error.details())

    def stop(self) -> None:
        self.channel.close()
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    server = Etcd(tmp_path)
    yield server
    server.stop()


class Requests:
    """Random requests over few keys, so that they meet; some of them wrong on purpose."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.revision = 1
        self.short_lived = itertools.count(100)

    def key(self) -> bytes:
        if self.random.random() < 0.02:
            return b""
        if self.random.random() < 0.1:
            return b"l" * self.random.choice([480, 481, 700, 960, 1200]) + self.short()
        return self.short()

    def short(self) -> bytes:
        return self.random.choice([b"a", b"b", b"c", b"ab", b"b\0", b"\xff", b"d\xff"])

    def end(self) -> bytes:
        return self.random.choice([b"", b"", b"\0", b"b", b"c", b"m", self.key()])

    def flag(self, probability: float = 0.2) -> bool:
        return self.random.random() < probability

    def old(self) -> int:
        if self.flag(0.6):
            return 0
        return self.random.randint(max(-1, self.revision - 60), self.revision + 1)

    def lease(self) -> int:
        return self.random.choice([0, 0, 0, 11, 12, 13])

    def range(self) -> pb.RangeRequest:
        request = pb.RangeRequest(
            key=self.key(),
            range_end=self.end(),
            revision=self.old(),
            limit=self.random.choice([0, 0, 1, 2, 3, -1]),
            sort_order=self.random.choice([0, 0, 1, 2]),
            keys_only=self.flag(),
            count_only=self.flag(0.1),
            serializable=self.flag(),
        )
        # Sorts whose keys are unique: etcd's sort is not stable, so ties have no certain order.
        request.sort_target = self.random.choice([pb.RangeRequest.KEY, pb.RangeRequest.KEY, 4])
        for name in ("min_mod", "max_mod", "min_create", "max_create"):
            if self.flag(0.1):
                setattr(request, f"{name}_revision", self.random.randint(1, self.revision + 1))
        return request

    def put(self) -> pb.PutRequest:
        request = pb.PutRequest(key=self.key(), lease=self.lease(), prev_kv=self.flag())
        # Values are unique and grow, so that a sort by value has one right answer.
        request.value = b"%09d" % self.random.getrandbits(29)
        if self.flag(0.1):
            request.ignore_value = True
            if self.flag(0.8):
                request.value = b""
        if self.flag(0.1):
            request.ignore_lease = True
            if self.flag(0.8):
                request.lease = 0
        return request

    def delete(self) -> pb.DeleteRangeRequest:
        return pb.DeleteRangeRequest(key=self.key(), range_end=self.end(), prev_kv=self.flag())

    def compare(self) -> pb.Compare:
        compare = pb.Compare(
            key=self.key(), result=self.random.randrange(4), target=self.random.randrange(5)
        )
        if self.flag():
            compare.range_end = self.end()
        number = self.random.choice([0, 1, 2, self.revision, self.revision - 3])
        match self.random.choice(["same", "same", "same", "other", "none"]):
            case "same" if compare.target == pb.Compare.VALUE:
                compare.value = b"%09d" % self.random.getrandbits(29)
            case "same":
                names = ("version", "create_revision", "mod_revision", "", "lease")
                setattr(compare, names[compare.target], number)
            case "other":
                compare.mod_revision = number
        return compare

    def operation(self, depth: int) -> pb.RequestOp:
        match self.random.choice(["range", "put", "put", "delete", "txn"]):
            case "range":
                return pb.RequestOp(request_range=self.range())
            case "put":
                return pb.RequestOp(request_put=self.put())
            case "delete":
                delete = self.delete()
                # etcd dies of a txn that deletes "from key" and puts there with ignore_lease.
                delete.range_end = delete.range_end.replace(b"\0", b"z")
                return pb.RequestOp(request_delete_range=delete)
        if depth > 2 or self.flag(0.05):
            return pb.RequestOp()
        return pb.RequestOp(request_txn=self.txn(depth + 1))

    def txn(self, depth: int = 0) -> pb.TxnRequest:
        return pb.TxnRequest(
            compare=[self.compare() for _ in range(self.random.choice([0, 1, 1, 2]))],
            success=[self.operation(depth) for _ in range(self.random.choice([0, 1, 2, 3]))],
            failure=[self.operation(depth) for _ in range(self.random.choice([0, 1, 2]))],
        )

    def next(self) -> Any:
        match self.random.choices(
            ["range", "put", "delete", "txn", "compact", "grant", "revoke", "leases"],
            [30, 30, 8, 30, 3, 2, 2, 1],
        )[0]:
            case "range":
                return self.range()
            case "put":
                return self.put()
            case "delete":
                return self.delete()
            case "txn":
                return self.txn()
            case "compact":
                back = self.random.choice([-2, 0, 5, 20, 40])
                return pb.CompactionRequest(revision=self.revision - back, physical=self.flag())
            case "grant":
                ttl = self.random.choice([-1, 0, 1, 100, 5000, 9_000_000_000, 9_000_000_001])
                # A short TTL may run out in etcd while the test runs: it has an id of its own.
                id = (self.lease() or 1) if ttl >= 100 else next(self.short_lived)
                return pb.LeaseGrantRequest(ID=id, TTL=ttl)
            case "revoke":
                return pb.LeaseRevokeRequest(ID=self.lease() or 5)
        return pb.LeaseLeasesRequest()


def comparable(answer: Any) -> Any:
    """What must agree: all but who answered."""
    if isinstance(answer, Status):
        return answer
    # The service fills these in.
    answer.header.cluster_id = answer.header.member_id = answer.header.raft_term = 0
    if isinstance(answer, pb.LeaseLeasesResponse):
        return sorted(lease.ID for lease in answer.leases if lease.ID < 100)
    return answer


@pytest.mark.interop
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_requests_get_the_same_answers(etcd: Etcd, tmp_path: Path, seed: int) -> None:
    driver = Driver(tmp_path / "machine")
    requests = Requests(seed)
    for number in range(1200):
        request = requests.next()
        expected, actual = comparable(etcd.call(request)), comparable(driver.call(request))
        assert actual == expected, f"request {number} of seed {seed}: {request}"
        requests.revision = driver.machine.store.current_revision
        if number % 7 == 0:
            driver.machine.tick()
        if number % 300 == 299:
            driver.reopen()
    assert requests.revision > 200, "the requests hardly wrote anything"
    driver.machine.close()


@pytest.mark.interop
def test_fixed_cases_get_the_same_answers(etcd: Etcd, tmp_path: Path) -> None:
    driver = Driver(tmp_path / "machine")
    put, delete = pb.PutRequest, pb.DeleteRangeRequest
    operation = pb.RequestOp
    nested_put = operation(
        request_txn=pb.TxnRequest(success=[operation(request_put=put(key=b"n"))])
    )
    nested_delete = operation(
        request_txn=pb.TxnRequest(success=[operation(request_delete_range=delete(key=b"n"))])
    )
    cases: list[Any] = [
        pb.CompactionRequest(revision=0),
        pb.CompactionRequest(revision=0),
        pb.CompactionRequest(revision=2),
        pb.RangeRequest(key=b"a", revision=-5),
        pb.TxnRequest(),
        pb.TxnRequest(success=[operation()] * 129),
        pb.TxnRequest(success=[operation(request_range=pb.RangeRequest(key=b"a"))] * 128),
        pb.TxnRequest(success=[nested_put, nested_delete]),
        pb.TxnRequest(success=[nested_delete, nested_put]),
        pb.TxnRequest(success=[nested_put, nested_put]),
        pb.TxnRequest(
            success=[
                operation(request_put=put(key=b"n")),
                operation(request_delete_range=delete(key=b"a", range_end=b"\0")),
            ]
        ),
        pb.TxnRequest(
            success=[
                operation(request_put=put(key=b"q", lease=99)),
                operation(request_range=pb.RangeRequest(key=b"q", revision=999)),
            ]
        ),
        pb.TxnRequest(success=[operation(request_put=put(key=b"q", ignore_value=True, lease=99))]),
        put(key=b"q", ignore_value=True, lease=99),
        put(key=b"q", ignore_value=True),
        pb.TxnRequest(compare=[pb.Compare(target=9, result=0, key=b"x", version=1)]),  # type: ignore[arg-type]
        pb.TxnRequest(compare=[pb.Compare(target=0, result=9, key=b"x", version=1)]),  # type: ignore[arg-type]
        pb.LeaseGrantRequest(ID=-9, TTL=100),
        put(key=b"leased", lease=-9),
        pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=7, alarm=pb.NOSPACE),
        pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=7, alarm=pb.NOSPACE),
        pb.AlarmRequest(action=pb.AlarmRequest.GET),
        put(key=b"a"),
        delete(key=b"leased"),
        pb.TxnRequest(success=[operation(request_put=put(key=b"q"))]),
        pb.TxnRequest(
            compare=[pb.Compare(target=0, result=0, key=b"x", version=0)],
            success=[operation(request_delete_range=delete(key=b"x"))],
        ),
        pb.LeaseGrantRequest(ID=3, TTL=100),
        pb.LeaseRevokeRequest(ID=-9),
        pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=8, alarm=pb.NOSPACE),
        pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=7, alarm=pb.NOSPACE),
        put(key=b"a"),
    ]
    for request in cases:
        assert comparable(driver.call(request)) == comparable(etcd.call(request)), request
    driver.machine.close()
