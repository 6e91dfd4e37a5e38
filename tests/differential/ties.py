"""The order of keys that a sorted range holds equal.

etcd sorts with Go's unstable sort, whose order of equals changed with Go 1.19; it promises none.
Two answers to a sorted range are the same when they differ in that order alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import Message

from kvstore.pb import etcdserverpb_pb2 as pb

TARGETS: Final[dict[int, Callable[[Any], Any]]] = {
    pb.RangeRequest.VERSION: lambda kv: kv.version,
    pb.RangeRequest.CREATE: lambda kv: kv.create_revision,
    pb.RangeRequest.MOD: lambda kv: kv.mod_revision,
    pb.RangeRequest.VALUE: lambda kv: kv.value,
}
"""What a range is sorted by; keys are never equal."""


def _ordered(request: Any, response: Any) -> bool:
    """Whether the answer is in the order that was asked for, ties aside."""
    if request.sort_target == pb.RangeRequest.VALUE and request.keys_only:
        return True  # the values are not in the answer: nobody can tell
    target = TARGETS[request.sort_target]
    values = [target(kv) for kv in response.kvs]
    return values == sorted(values, reverse=request.sort_order == pb.RangeRequest.DESCEND)


def _settle(request: Any, response: Any) -> bool:
    """Bring the ties of one range answer into key order, in place; False: it is out of order.

    Where a limit cut the answer, the cut may run through a group of equals: which of them are in
    is as open as their order, so the last group keeps only what the sort looked at.
    """
    if request.sort_target not in TARGETS:
        return True
    if not _ordered(request, response):
        return False
    target = TARGETS[request.sort_target]
    hidden = request.sort_target == pb.RangeRequest.VALUE and request.keys_only
    kvs = sorted(response.kvs, key=lambda kv: (b"" if hidden else target(kv), kv.key))
    if response.more and kvs:
        last = target(response.kvs[-1])
        for kv in kvs:
            if hidden or target(kv) == last:
                _keep_only(kv, request.sort_target, hidden)
        kvs.sort(key=lambda kv: (b"" if hidden else target(kv), kv.key))
    copies = [type(kv).FromString(kv.SerializeToString()) for kv in kvs]
    del response.kvs[:]
    response.kvs.extend(copies)
    return True


def _keep_only(kv: Any, target: int, hidden: bool) -> None:
    names = {
        pb.RangeRequest.VERSION: "version",
        pb.RangeRequest.CREATE: "create_revision",
        pb.RangeRequest.MOD: "mod_revision",
        pb.RangeRequest.VALUE: "value",
    }
    for field, _ in kv.ListFields():
        if hidden or field.name != names[target]:
            kv.ClearField(field.name)


def _settle_txn(request: Any, response: Any) -> bool:
    branch = request.success if response.succeeded else request.failure
    if len(branch) != len(response.responses):
        return False
    for op, answer in zip(branch, response.responses, strict=True):
        kind = op.WhichOneof("request")
        if kind == "request_range" and not _settle(op.request_range, answer.response_range):
            return False
        if kind == "request_txn" and not _settle_txn(op.request_txn, answer.response_txn):
            return False
    return True


def without_ties(request: Message, response: Message) -> Message | None:
    """A copy of a Range or Txn answer with ties in key order; None: it is not in order at all."""
    copy = type(response).FromString(response.SerializeToString())
    settle = _settle if isinstance(request, pb.RangeRequest) else _settle_txn
    return copy if settle(request, copy) else None
