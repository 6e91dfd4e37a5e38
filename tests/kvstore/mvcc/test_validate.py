"""What is refused at the front: texts are compared with etcd's in test_oracle; here, the rules."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.errors import (
    DUPLICATE_KEY,
    EMPTY_KEY,
    INVALID_SORT_OPTION,
    KEY_NOT_FOUND,
    LEASE_PROVIDED,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
    Status,
)
from kvstore.mvcc import validate
from kvstore.pb.etcdserverpb_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)


def put(key: bytes, **fields: Any) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, **fields))


def delete(key: bytes, end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=end))


def txn(success: list[RequestOp], failure: list[RequestOp] | None = None) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(success=success, failure=failure or []))


def read(key: bytes) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key=key))


def test_single_requests() -> None:
    unknown: Any = 7
    assert validate.validate_range(RangeRequest()) == EMPTY_KEY
    assert validate.validate_range(RangeRequest(key=b"a")) is None
    for field in ("sort_order", "sort_target"):
        request = RangeRequest(key=b"a", **{field: unknown})
        assert validate.validate_range(request) == INVALID_SORT_OPTION
    assert validate.validate_put(PutRequest(value=b"v")) == EMPTY_KEY
    assert validate.validate_put(PutRequest(key=b"a", value=b"v")) is None
    assert (
        validate.validate_put(PutRequest(key=b"a", value=b"v", ignore_value=True)) == VALUE_PROVIDED
    )
    assert validate.validate_put(PutRequest(key=b"a", ignore_value=True)) is None
    assert validate.validate_put(PutRequest(key=b"a", lease=1, ignore_lease=True)) == LEASE_PROVIDED
    assert validate.validate_delete_range(DeleteRangeRequest()) == EMPTY_KEY


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([put(b"a"), put(b"b")], None),
        ([put(b"a"), put(b"a")], DUPLICATE_KEY),
        ([put(b"a"), delete(b"a")], DUPLICATE_KEY),
        ([delete(b"a", b"c"), put(b"b")], DUPLICATE_KEY),
        ([delete(b"a", b"c"), put(b"c")], None),
        ([delete(b"a", b"\0"), put(b"c")], None),
        ([delete(b"a"), delete(b"a")], None),
        ([read(b"a"), put(b"a")], None),
        ([put(b"a"), txn([put(b"a")])], DUPLICATE_KEY),
        ([put(b"a"), txn([], [delete(b"a")])], DUPLICATE_KEY),
        ([delete(b"a"), txn([put(b"a")])], DUPLICATE_KEY),
        ([txn([put(b"a")], [put(b"a")])], None),
        ([txn([put(b"a")], [delete(b"a")])], None),
        ([txn([put(b"a")]), txn([], [put(b"a")])], DUPLICATE_KEY),
        ([txn([delete(b"a")]), txn([put(b"a")])], DUPLICATE_KEY),
        ([txn([put(b"a")]), txn([delete(b"a")])], None),
        ([txn([txn([put(b"a")])]), put(b"a")], DUPLICATE_KEY),
        ([put(b"a"), put(b"a"), put(b"")], EMPTY_KEY),
        ([put(b"a", value=b"v", ignore_value=True)], VALUE_PROVIDED),
        ([txn([RequestOp()])], KEY_NOT_FOUND),
        ([read(b"")], EMPTY_KEY),
    ],
)
def test_branches(operations: list[RequestOp], expected: Status | None) -> None:
    assert validate.validate_txn(TxnRequest(success=operations)) == expected
    assert validate.validate_txn(TxnRequest(failure=operations)) == expected


def test_then_and_else_exclude_each_other() -> None:
    assert validate.validate_txn(TxnRequest(success=[put(b"a")], failure=[put(b"a")])) is None


def test_the_budget_of_operations_counts_down_into_nested_txns() -> None:
    def reads(count: int) -> list[RequestOp]:
        return [read(b"a")] * count

    assert validate.validate_txn(TxnRequest(success=reads(4)), 4) is None
    assert validate.validate_txn(TxnRequest(success=reads(5)), 4) == TOO_MANY_OPS
    assert validate.validate_txn(TxnRequest(compare=[Compare()] * 5), 4) == TOO_MANY_OPS
    assert validate.validate_txn(TxnRequest(compare=[Compare()]), 4) == EMPTY_KEY
    assert validate.validate_txn(TxnRequest(success=[txn(reads(3))]), 4) is None
    assert validate.validate_txn(TxnRequest(success=[txn(reads(4))]), 4) == TOO_MANY_OPS
