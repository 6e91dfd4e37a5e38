"""Random requests of every kind, with every option, and now and then one that must be refused."""

from __future__ import annotations

import random
from typing import Any, Final

import attrs

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.differential.keyspace import KeySpace, prefix_end

TXN_OPS_MAX: Final = 128
"""etcd's default for --max-txn-ops."""

NESTING_MAX: Final = 3
LEASE_ID_MAX: Final = 60
TTL_MAX_S: Final = 9_000_000_000
TTL_SAFE_S: Final = 3600
"""No lease of the random sequence may end by itself while the sequence runs."""


@attrs.define(slots=True)
class Shadow:
    """The little that requests must know of the store to be about something."""

    revision: int = 1
    compacted: int = 0
    leases: set[int] = attrs.field(factory=set)


class Requests:
    """Draws requests from ``rng``. ``boldness`` is how often an option is set.

    Without ``failing_txn_reads`` a txn that writes reads no old revision. Members of etcd 3.4.23
    come to disagree on a txn whose read fails: those that need not answer leave its reads out.
    """

    def __init__(self, rng: random.Random, shadow: Shadow, failing_txn_reads: bool) -> None:
        self.failing_txn_reads = failing_txn_reads
        self.rng = rng
        self.shadow = shadow
        self.space = KeySpace.draw(rng)
        self.boldness = 0.2

    def swarm(self) -> None:
        """Begin another stretch: other keys, other habits."""
        self.space = KeySpace.draw(self.rng)
        self.boldness = self.rng.choice((0.05, 0.2, 0.5))

    def often(self, factor: float = 1.0) -> bool:
        """Whether to set an option now."""
        return self.rng.random() < self.boldness * factor

    def rarely(self) -> bool:
        """Whether to make the mistake at hand now."""
        return self.rng.random() < 0.02

    def near_revision(self) -> int:
        """A revision around the newest one: mostly past, sometimes compacted or future."""
        kind = self.rng.random()
        current, compacted = self.shadow.revision, self.shadow.compacted
        if kind < 0.7:
            return self.rng.randint(max(1, compacted), current)
        if kind < 0.8:
            return current
        if kind < 0.85:
            return max(1, compacted)
        if kind < 0.92:
            return self.rng.randint(-1, max(1, compacted))
        return current + self.rng.randint(1, 5)

    def lease(self) -> int:
        """A lease that is granted if there is one, sometimes one that is not."""
        if self.shadow.leases and self.rng.random() < 0.93:
            return self.rng.choice(sorted(self.shadow.leases))
        return self.rng.randint(1, LEASE_ID_MAX)

    def range(self) -> Any:
        """A RangeRequest."""
        key, end = self.space.range(self.rng)
        request = pb.RangeRequest(key=b"" if self.rarely() else key, range_end=end)
        rng = self.rng
        if self.often():
            request.limit = rng.choice((1, 1, 2, 3, 5, 50, -1))
        if self.often():
            request.revision = self.near_revision()
        if self.often():
            request.sort_order = rng.choice((1, 2))
        if self.often():
            request.sort_target = rng.randint(0, 4)
        request.serializable = self.often()
        request.keys_only = self.often(0.5)
        request.count_only = self.often(0.4)
        for name in (
            "min_mod_revision",
            "max_mod_revision",
            "min_create_revision",
            "max_create_revision",
        ):
            if self.often(0.4):
                setattr(request, name, self.near_revision())
        return request

    def put(self) -> Any:
        """A PutRequest; ``ignore_*`` mostly with an empty field, as it should be."""
        key = self.space.key(self.rng)
        request = pb.PutRequest(key=b"" if self.rarely() else key, value=self.space.value(self.rng))
        if self.often():
            request.lease = self.lease()
        request.prev_kv = self.often()
        if self.often(0.5):
            request.ignore_value = True
            if self.rng.random() < 0.8:
                request.value = b""
        if self.often(0.5):
            request.ignore_lease = True
            if self.rng.random() < 0.8:
                request.lease = 0
        return request

    def delete(self) -> Any:
        """A DeleteRangeRequest, mostly of one key so that the store does not stay empty."""
        key, end = self.space.range(self.rng)
        if self.rng.random() < 0.6:
            end = b""
        return pb.DeleteRangeRequest(
            key=b"" if self.rarely() else key, range_end=end, prev_kv=self.often()
        )

    def compare(self) -> Any:
        """One comparison of a txn."""
        rng = self.rng
        key, end = self.space.range(rng)
        compare = pb.Compare(
            key=b"" if rng.random() < 0.005 else key,
            result=rng.randint(0, 3),
            target=rng.randint(0, 4),
        )
        if rng.random() < 0.3:
            compare.range_end = end
        if rng.random() < 0.93:  # else the union is not set, which compares with zero or empty
            match compare.target:
                case pb.Compare.VERSION:
                    compare.version = rng.randint(0, 3)
                case pb.Compare.CREATE:
                    compare.create_revision = rng.choice((0, self.near_revision()))
                case pb.Compare.MOD:
                    compare.mod_revision = rng.choice((0, self.near_revision()))
                case pb.Compare.VALUE:
                    compare.value = self.space.value(rng)
                case pb.Compare.LEASE:
                    compare.lease = rng.choice((0, self.lease()))
        return compare

    def txn(self, depth: int = 1) -> Any:
        """A TxnRequest, nested up to ``NESTING_MAX``."""
        rng = self.rng
        request = pb.TxnRequest()
        request.compare.extend(self.compare() for _ in range(rng.choice((0, 1, 1, 1, 2, 3))))
        request.success.extend(self._branch(depth))
        request.failure.extend(self._branch(depth))
        return request

    def read_txn(self) -> Any:
        """A TxnRequest that only reads; now and then all its reads are serializable."""
        request = pb.TxnRequest(compare=[self.compare() for _ in range(self.rng.randint(0, 2))])
        serializable = self.rng.random() < 0.3
        for branch in (request.success, request.failure):
            for _ in range(self.rng.randint(1, 3)):
                read = self.range()
                read.serializable = serializable
                branch.add(request_range=read)
        return request

    def crowded_txn(self) -> Any:
        """A TxnRequest at or just over the number of operations that is allowed."""
        count = self.rng.choice((TXN_OPS_MAX, TXN_OPS_MAX + 1, TXN_OPS_MAX + 1))
        request = pb.TxnRequest()
        part = self.rng.choice(("success", "failure", "compare", "nested"))
        if part == "compare":
            request.compare.extend(self.compare() for _ in range(count))
        else:
            branch = getattr(request, "success" if part == "nested" else part)
            if part == "nested":
                branch.add(request_range=self.range())
                branch = branch.add(request_txn=pb.TxnRequest()).request_txn.success
                count -= 2
            for number in range(count):
                branch.add(request_put=pb.PutRequest(key=b"crowd%d" % number, value=b"v"))
        return request

    def _branch(self, depth: int) -> list[Any]:
        rng = self.rng
        ops: list[Any] = []
        claimed: list[tuple[bytes, bytes]] = []
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            kind = rng.random()
            if kind < 0.3:
                read = self.range()
                if not self.failing_txn_reads:
                    read.revision = 0
                ops.append(pb.RequestOp(request_range=read))
            elif kind < 0.68:
                put = self.put()
                if self._claim(claimed, put.key, b""):
                    ops.append(pb.RequestOp(request_put=put))
            elif kind < 0.83:
                delete = self.delete()
                if self._claim(claimed, delete.key, delete.range_end):
                    ops.append(pb.RequestOp(request_delete_range=delete))
            elif kind < 0.99:
                if depth < NESTING_MAX:
                    ops.append(pb.RequestOp(request_txn=self.txn(depth + 1)))
            else:
                ops.append(pb.RequestOp())
        return ops

    def _claim(self, claimed: list[tuple[bytes, bytes]], key: bytes, end: bytes) -> bool:
        """Mostly keep the changes of one branch apart; one in ten overlaps and is refused."""
        stop = end or key + b"\x00"
        whole = end == b"\x00"
        clash = any(
            (whole or start < stop) and (last == b"\x00" or key < last) for start, last in claimed
        )
        if clash and self.rng.random() < 0.9:
            return False
        claimed.append((key, b"\x00" if whole else stop))
        return True

    def compact(self) -> Any:
        """A CompactionRequest: mostly of a good part of the history that is left."""
        kind = self.rng.random()
        current, compacted = self.shadow.revision, self.shadow.compacted
        if kind < 0.6:
            revision = self.rng.randint(min(compacted + 1, current), current)
        elif kind < 0.7:
            revision = current
        elif kind < 0.85:
            revision = self.rng.randint(-1, max(compacted, 0))
        else:
            revision = current + self.rng.randint(1, 5)
        return pb.CompactionRequest(revision=revision, physical=self.rng.random() < 0.3)

    def grant(self) -> Any:
        """A LeaseGrantRequest with an id of its own, sometimes taken, sometimes too long."""
        ttl = self.rng.choice((TTL_SAFE_S, TTL_SAFE_S * 2, TTL_MAX_S, TTL_SAFE_S + 1))
        if self.rng.random() < 0.1:
            ttl = TTL_MAX_S + 1
        return pb.LeaseGrantRequest(TTL=ttl, ID=self.rng.randint(1, LEASE_ID_MAX))

    def watch(self) -> Any:
        """A WatchCreateRequest."""
        rng = self.rng
        key, end = self.space.range(rng)
        if rng.random() < 0.3:  # wide ranges see more
            key = key[:1]
            end = prefix_end(key)
        create = pb.WatchCreateRequest(key=b"" if self.rarely() else key, range_end=end)
        if rng.random() < 0.6:
            create.start_revision = max(0, self.near_revision())
        create.progress_notify = self.often()
        create.prev_kv = self.often(2)
        create.fragment = self.often()
        if self.often():
            create.filters.append(rng.randint(0, 1))
        if self.often(0.2):
            create.filters.extend((0, 1))
        if self.often():
            create.watch_id = rng.randint(1, 12)
        return pb.WatchRequest(create_request=create)
