"""What etcd refuses at the front, before anything is proposed: pure functions of the request.

Order of checks and texts are etcd's (api/v3rpc, release 3.6). Each returns the refusal or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

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
from kvstore.pb.etcdserverpb_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

MAX_TXN_OPS: Final = 128
"""etcd's default of ``--max-txn-ops``."""

_SORT_ORDERS: Final = frozenset(RangeRequest.SortOrder.values())
_SORT_TARGETS: Final = frozenset(RangeRequest.SortTarget.values())


def validate_range(request: RangeRequest) -> Status | None:
    """Refuse a Range without key or with an unknown sort option."""
    if not request.key:
        return EMPTY_KEY
    if request.sort_order not in _SORT_ORDERS or request.sort_target not in _SORT_TARGETS:
        return INVALID_SORT_OPTION
    return None


def validate_put(request: PutRequest) -> Status | None:
    """Refuse a Put without key, or with what it says it ignores."""
    if not request.key:
        return EMPTY_KEY
    if request.ignore_value and request.value:
        return VALUE_PROVIDED
    if request.ignore_lease and request.lease:
        return LEASE_PROVIDED
    return None


def validate_delete_range(request: DeleteRangeRequest) -> Status | None:
    """Refuse a DeleteRange without key."""
    return None if request.key else EMPTY_KEY


def validate_txn(request: TxnRequest, max_txn_ops: int = MAX_TXN_OPS) -> Status | None:
    """Refuse a Txn with too many or malformed operations, or one branch that writes a key twice.

    Args:
        max_txn_ops: most compares, or operations in one branch, counted down into nested txns.
    """
    refusal = _validate_operations(request, max_txn_ops)
    if refusal is not None:
        return refusal
    for branch in (request.success, request.failure):
        if _writes_of(branch) is None:
            return DUPLICATE_KEY
    return None


def _validate_operations(request: TxnRequest, budget: int) -> Status | None:
    size = max(len(request.compare), len(request.success), len(request.failure))
    if size > budget:
        return TOO_MANY_OPS
    if any(not compare.key for compare in request.compare):
        return EMPTY_KEY
    for operation in (*request.success, *request.failure):
        refusal = _validate_operation(operation, budget - size)
        if refusal is not None:
            return refusal
    return None


def _validate_operation(operation: RequestOp, budget: int) -> Status | None:
    match operation.WhichOneof("request"):
        case "request_range":
            return validate_range(operation.request_range)
        case "request_put":
            return validate_put(operation.request_put)
        case "request_delete_range":
            return validate_delete_range(operation.request_delete_range)
        case "request_txn":
            return _validate_operations(operation.request_txn, budget)
    return KEY_NOT_FOUND


Interval = tuple[bytes, bytes]
"""Keys from the first up to before the second; an empty second means the first key alone."""


def _writes_of(
    operations: Sequence[RequestOp],
) -> tuple[set[bytes], list[Interval]] | None:
    """Return what one branch puts and deletes, or None where it writes a key twice.

    A branch's own deletes count against every put in it. Deletes of nested txns count against this
    level's puts, and those of later nested txns. The two branches of one nested txn exclude each
    other. As in etcd, a delete "from key" counts against nothing.
    """
    deletes = [
        (operation.request_delete_range.key, operation.request_delete_range.range_end)
        for operation in operations
        if operation.HasField("request_delete_range")
    ]
    puts: set[bytes] = set()
    for operation in operations:
        if not operation.HasField("request_txn"):
            continue
        nested = operation.request_txn
        success, failure = _writes_of(nested.success), _writes_of(nested.failure)
        if success is None or failure is None:
            return None
        for key in success[0] | failure[0]:
            if key in puts or _covered(key, deletes):
                return None
        puts |= success[0] | failure[0]
        deletes += success[1] + failure[1]
    for operation in operations:
        if not operation.HasField("request_put"):
            continue
        key = operation.request_put.key
        if key in puts or _covered(key, deletes):
            return None
        puts.add(key)
    return puts, deletes


def _covered(key: bytes, intervals: list[Interval]) -> bool:
    return any(start <= key < end if end else start == key for start, end in intervals)
