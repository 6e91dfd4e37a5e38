"""The KV service: Range, Put, DeleteRange, Txn, Compact."""

from __future__ import annotations

import asyncio
from typing import Final

from consensus.types import Consistency
from kvstore.errors import NO_SPACE, EtcdError, Status
from kvstore.mvcc.commands import is_read_only
from kvstore.mvcc.validate import (
    validate_delete_range,
    validate_put,
    validate_range,
    validate_txn,
)
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command
from kvstore.quota import put_cost, txn_cost
from kvstore.rpc.context import ServerContext
from kvstore.rpc.registry import Call, Kind, Method

SERVICE: Final = "etcdserverpb.KV"
PHYSICAL_POLL_S: Final = 0.01
"""How often a Compact that waits for its physical end looks."""


class KVService:
    """KV on one member."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def methods(self) -> list[Method]:
        """The service's methods, for a registry."""
        unary = Kind.UNARY
        return [
            Method(SERVICE, "Range", pb.RangeRequest, pb.RangeResponse, unary, self.range),
            Method(SERVICE, "Put", pb.PutRequest, pb.PutResponse, unary, self.put),
            Method(
                SERVICE,
                "DeleteRange",
                pb.DeleteRangeRequest,
                pb.DeleteRangeResponse,
                unary,
                self.delete_range,
            ),
            Method(SERVICE, "Txn", pb.TxnRequest, pb.TxnResponse, unary, self.txn),
            Method(
                SERVICE,
                "Compact",
                pb.CompactionRequest,
                pb.CompactionResponse,
                unary,
                self.compact,
            ),
        ]

    async def range(self, request: pb.RangeRequest, _: Call) -> pb.RangeResponse:
        """Read keys, now or at an older revision."""
        check(validate_range(request))
        response: pb.RangeResponse = await self._context.read(
            request, Consistency.SERIALIZABLE if request.serializable else Consistency.LINEARIZABLE
        )
        return response

    async def put(self, request: pb.PutRequest, _: Call) -> pb.PutResponse:
        """Write one key."""
        check(validate_put(request))
        cost = put_cost(request)
        if not self._context.machine.has_space(cost):
            await ensure_space(self._context, cost)
        command = Command()
        command.put.CopyFrom(request)  # in less time than naming it in the call
        response: pb.PutResponse = await self._context.propose(command)
        return response

    async def delete_range(self, request: pb.DeleteRangeRequest, _: Call) -> pb.DeleteRangeResponse:
        """Delete keys."""
        check(validate_delete_range(request))
        response: pb.DeleteRangeResponse = await self._context.propose(
            Command(delete_range=request)
        )
        return response

    async def txn(self, request: pb.TxnRequest, _: Call) -> pb.TxnResponse:
        """Compare, and run one of two branches; without writes it is a read."""
        check(validate_txn(request, self._context.max_txn_ops))
        response: pb.TxnResponse
        if is_read_only(request):
            consistency = (
                Consistency.SERIALIZABLE if is_serializable(request) else Consistency.LINEARIZABLE
            )
            response = await self._context.read(request, consistency)
            return response
        cost = txn_cost(request)
        if cost:
            await ensure_space(self._context, cost)
        response = await self._context.propose(Command(txn=request))
        return response

    async def compact(self, request: pb.CompactionRequest, _: Call) -> pb.CompactionResponse:
        """Forget history; with ``physical``, answer when this member has removed it from disk."""
        response: pb.CompactionResponse = await self._context.propose(Command(compaction=request))
        if request.physical:
            while self._context.machine.compacting:  # noqa: ASYNC110 - the machine has no events
                await asyncio.sleep(PHYSICAL_POLL_S)
        return response


def check(refusal: Status | None) -> None:
    """Raise the refusal, if there is one.

    Raises:
        EtcdError: ``refusal``.
    """
    if refusal is not None:
        raise EtcdError(refusal)


def is_serializable(request: pb.TxnRequest) -> bool:
    """Whether every read of a txn takes what this member has (etcd: then the txn does too)."""
    return all(
        operation.WhichOneof("request") == "request_range" and operation.request_range.serializable
        for operation in (*request.success, *request.failure)
    )


async def ensure_space(context: ServerContext, cost_bytes: int) -> None:
    """Raise the NOSPACE alarm and refuse where ``cost_bytes`` do not fit the quota.

    Raises:
        EtcdError: NO_SPACE.
        ConsensusError: the alarm could not be replicated.
    """
    if context.machine.has_space(cost_bytes):
        return
    alarm = pb.AlarmRequest(
        action=pb.AlarmRequest.ACTIVATE,
        memberID=context.identity.member_id,
        alarm=pb.NOSPACE,
    )
    await context.propose(Command(alarm=alarm))
    raise EtcdError(NO_SPACE)
