"""The space quota: what a request costs, as etcd counts it, and whether that still fits.

The rpc layer asks before it proposes. Over the quota it proposes a NOSPACE alarm instead; from then
on ``apply`` refuses whatever costs space, on every member alike, until the alarm is disarmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvstore.pb.etcdserverpb_pb2 import PutRequest, RequestOp, TxnRequest

DEFAULT_QUOTA_BYTES: Final = 2 * 2**30
"""What ``--quota-backend-bytes=0`` means."""

PUT_OVERHEAD_BYTES: Final = 256
LEASE_BYTES: Final = 64


def effective_quota(quota_bytes: int) -> int | None:
    """Return the quota that ``--quota-backend-bytes`` sets: 0 is the default, below 0 is none."""
    if quota_bytes < 0:
        return None
    return quota_bytes or DEFAULT_QUOTA_BYTES


def put_cost(request: PutRequest) -> int:
    """Return what a Put costs, in bytes."""
    return PUT_OVERHEAD_BYTES + len(request.key) + len(request.value)


def txn_cost(request: TxnRequest) -> int:
    """Return what the costlier branch of a Txn costs, in bytes; 0 where nothing is put."""
    return max(_branch_cost(request.success), _branch_cost(request.failure))


def _branch_cost(operations: Sequence[RequestOp]) -> int:
    cost = 0
    for operation in operations:
        kind = operation.WhichOneof("request")
        if kind == "request_put":
            cost += put_cost(operation.request_put)
        elif kind == "request_txn":
            cost += txn_cost(operation.request_txn)
    return cost
