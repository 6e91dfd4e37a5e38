"""What Put, DeleteRange, Txn and Compact do to the store: etcd's rules of release 3.6.

Each method is one command at apply. A refusal is a ``Status`` and changes nothing: whatever can
be refused is checked before the first write. Requests were validated before they were proposed
(``kvstore.mvcc.validate``); what depends on the state is checked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import eq, gt, lt, ne
from typing import Any, Final, cast

from kvstore.errors import (
    KEY_NOT_FOUND,
    LEASE_NOT_FOUND,
    Status,
)
from kvstore.lease.lessor import Lessor
from kvstore.mvcc.ranges import check_revision, range_now
from kvstore.mvcc.records import TOMBSTONE, Head
from kvstore.mvcc.store import Store
from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from kvstore.pb.mvccpb_pb2 import KeyValue

Branches = Iterator[bool]
"""Which branch each txn takes, in the order of a walk that meets a txn before those inside it."""


class Commands:
    """The commands of the KV service, applied to one store.

    Args:
        store: the keys.
        lessor: the leases that keys may hang on.
    """

    def __init__(self, store: Store, lessor: Lessor) -> None:
        self._store = store
        self._lessor = lessor

    def put(self, request: PutRequest) -> PutResponse | Status:
        """Set one key.

        Raises:
            Damaged: the previous value is asked for, and damaged.
        """
        store = self._store
        if request.lease and not self._lessor.exists(request.lease):
            return LEASE_NOT_FOUND
        if (request.ignore_value or request.ignore_lease) and not self._lives(request.key):
            return KEY_NOT_FOUND
        store.begin_write()
        response = self._put(request)
        store.end_write()
        return response

    def _put(self, request: PutRequest) -> PutResponse:
        """Put inside the open write."""
        store = self._store
        key, value, lease = request.key, request.value, request.lease
        head = store.head(key)
        response = PutResponse()
        old_lease = 0
        if head is not None:
            old_lease = head.lease
            if not head.flags & TOMBSTONE:
                if request.prev_kv:
                    response.prev_kv.MergeFromString(store.payload(key, head))
                if request.ignore_value:
                    value = KeyValue.FromString(store.payload(key, head)).value
                if request.ignore_lease:
                    lease = old_lease
        store.put(key, value, lease, head)
        if lease != old_lease:
            if old_lease:
                self._lessor.detach(old_lease, key)
            if lease:
                self._lessor.attach(lease, key)
        response.header.revision = store.write_revision
        return response

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        """Delete one key or a range; no key deleted, no new revision.

        Raises:
            Damaged: a previous value is asked for, and damaged.
        """
        self._store.begin_write()
        response = self._delete_range(request)
        self._store.end_write()
        return response

    def _delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        """DeleteRange inside the open write."""
        store = self._store
        response = DeleteRangeResponse()
        living = store.living(request.key, request.range_end)
        if request.prev_kv:
            for key, head in living:
                response.prev_kvs.add().MergeFromString(store.payload(key, head))
        self.delete_living(living)
        response.deleted = len(living)
        response.header.revision = store.write_revision
        return response

    def delete_living(self, living: list[tuple[bytes, Head]]) -> None:
        """Delete living keys in the open write, and take them off their leases."""
        for key, head in living:
            self._store.delete(key, head)
            if head.lease:
                self._lessor.detach(head.lease, key)

    def compact(self, request: CompactionRequest) -> CompactionResponse | Status:
        """Make history before a revision unreadable at once; it is removed later, in slices."""
        refusal = self._store.compact(request.revision)
        if refusal is not None:
            return refusal
        response = CompactionResponse()
        response.header.revision = self._store.current_revision
        return response

    # -- transactions ----------------------------------------------------------------------------

    def txn(self, request: TxnRequest) -> TxnResponse | Status:
        """Compare, then do one branch, as one revision. A refusal leaves nothing written.

        Raises:
            Damaged: a record that is compared or answered is damaged.
        """
        store = self._store
        store.begin_write()
        taken = list(self._branches(request))
        refusal = self._check_puts(request, iter(taken)) or self._check_ranges(request, iter(taken))
        if refusal is not None:
            return refusal
        response = self._run(request, iter(taken))
        response.header.revision = store.end_write()
        return response

    def _branches(self, request: TxnRequest) -> Branches:
        """Decide every branch on the state before the txn, nested ones too, as etcd does."""
        success = all(self._holds(compare) for compare in request.compare)
        yield success
        for operation in request.success if success else request.failure:
            if operation.WhichOneof("request") == "request_txn":
                yield from self._branches(operation.request_txn)

    def _check_puts(self, request: TxnRequest, taken: Branches) -> Status | None:
        for operation in _chosen(request, taken):
            kind = operation.WhichOneof("request")
            refusal = None
            if kind == "request_txn":
                refusal = self._check_puts(operation.request_txn, taken)
            elif kind == "request_put":
                put = operation.request_put
                if (put.ignore_value or put.ignore_lease) and not self._lives(put.key):
                    refusal = KEY_NOT_FOUND
                elif put.lease and not self._lessor.exists(put.lease):
                    refusal = LEASE_NOT_FOUND
            if refusal is not None:
                return refusal
        return None

    def _check_ranges(self, request: TxnRequest, taken: Branches) -> Status | None:
        for operation in _chosen(request, taken):
            kind = operation.WhichOneof("request")
            refusal = None
            if kind == "request_txn":
                refusal = self._check_ranges(operation.request_txn, taken)
            elif kind == "request_range":
                refusal = check_revision(self._store, operation.request_range.revision)
            if refusal is not None:
                return refusal
        return None

    def _run(self, request: TxnRequest, taken: Branches) -> TxnResponse:
        response = TxnResponse()
        response.header.SetInParent()
        response.succeeded = next(taken)
        for operation in request.success if response.succeeded else request.failure:
            answer = response.responses.add()
            kind = operation.WhichOneof("request")
            if kind == "request_put":
                answer.response_put.CopyFrom(self._put(operation.request_put))
            elif kind == "request_range":
                # Its revision was checked before the first write.
                found = cast(RangeResponse, range_now(self._store, operation.request_range))
                answer.response_range.CopyFrom(found)
            elif kind == "request_delete_range":
                deleted = self._delete_range(operation.request_delete_range)
                answer.response_delete_range.CopyFrom(deleted)
            else:
                answer.response_txn.CopyFrom(self._run(operation.request_txn, taken))
        return response

    def _holds(self, compare: Compare) -> bool:
        """Whether one compare is true: for every key of its range, or for a missing key's zeros."""
        store = self._store
        by_value = compare.target == Compare.VALUE
        found = False
        for key, head in store.living(compare.key, compare.range_end):
            found = True
            if by_value:
                actual: Any = KeyValue.FromString(store.payload(key, head)).value
            else:
                actual = _FIELDS.get(compare.target, _zero)(head)
            if not _compare(compare, actual):
                return False
        return found or (not by_value and _compare(compare, 0))

    def _lives(self, key: bytes) -> bool:
        head = self._store.head(key)
        return head is not None and not head.flags & TOMBSTONE


def _zero(_: Head) -> int:
    return 0


_FIELDS: Final = {
    Compare.VERSION: lambda head: head.version,
    Compare.CREATE: lambda head: head.create_revision,
    Compare.MOD: lambda head: head.main,
    Compare.LEASE: lambda head: head.lease,
}
_EXPECTED: Final = {
    Compare.VERSION: "version",
    Compare.CREATE: "create_revision",
    Compare.MOD: "mod_revision",
    Compare.VALUE: "value",
    Compare.LEASE: "lease",
}
_OPERATORS: Final = {
    Compare.EQUAL: eq,
    Compare.GREATER: gt,
    Compare.LESS: lt,
    Compare.NOT_EQUAL: ne,
}


def _compare(compare: Compare, actual: Any) -> bool:
    """Compare with the expected value; an unset one is zero, an unknown result or target holds."""
    name = _EXPECTED.get(compare.target)
    holds = _OPERATORS.get(compare.result)
    if holds is None:
        return True
    expected = actual if name is None else getattr(compare, name)
    return bool(holds(actual, expected))


def _chosen(request: TxnRequest, taken: Branches) -> Iterator[RequestOp]:
    yield from request.success if next(taken) else request.failure


def is_read_only(request: TxnRequest) -> bool:
    """Whether no branch of a txn writes: it is then served without the log, as a read."""
    for operation in (*request.success, *request.failure):
        kind = operation.WhichOneof("request")
        if kind == "request_txn":
            if not is_read_only(operation.request_txn):
                return False
        elif kind != "request_range":
            return False
    return True
