"""What a learner answers: serializable reads, Status and Snapshot, and nothing else (as etcd's).

A learner takes part in no decision. It serves whoever wants to see how far it is; everything that
needs the cluster's agreement belongs to a member that votes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import attrs

from kvstore.errors import RPC_NOT_SUPPORTED_FOR_LEARNER, EtcdError
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc.registry import Kind, Method

SERVED_STREAM: Final = "/etcdserverpb.Maintenance/Snapshot"


def refusing_learners(
    methods: Iterable[Method], is_learner: Callable[[], bool]
) -> Iterator[Method]:
    """Yield the methods, refused by name while this member is a learner and must not serve them.

    Args:
        methods: of every service.
        is_learner: whether this member is one now; asked at each call.
    """
    for method in methods:
        yield attrs.evolve(method, handler=_guarded(method, is_learner))


def _guarded(method: Method, is_learner: Callable[[], bool]) -> Callable[..., Any]:
    handler, stream = method.handler, method.kind is not Kind.UNARY

    # Not a coroutine function: it costs a call and no further frame for each await.
    def call(first: Any, *rest: Any) -> Any:
        if is_learner():
            served = method.path == SERVED_STREAM if stream else _serves(first)
            if not served:
                raise EtcdError(RPC_NOT_SUPPORTED_FOR_LEARNER)
        return handler(first, *rest)

    return call


def _serves(request: Any) -> bool:
    if isinstance(request, pb.RangeRequest):
        return bool(request.serializable)
    return isinstance(request, pb.StatusRequest)
