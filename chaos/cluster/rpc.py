"""Plain gRPC calls on etcd's v3 messages: one request, one answer, never a silent retry.

A workload must know exactly what it sent. So this is not a friendly client: no failover, no retry,
a deadline on each call, and each failure is reported as it came. ``outcome_of`` says what a failure
means for a write; what is not certain is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Final

import attrs
import grpc
import grpc.aio

from chaos.history.format import Outcome, WatchEvent
from kvstore.errors import NO_LEADER, TOO_MANY_REQUESTS
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
)

_NEVER_SENT: Final = "failed to connect to all addresses"
"""gRPC's text for a call that found no connection: it was not sent."""

_REFUSED_BEFORE_PROPOSING: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
_REFUSED_TEXTS: Final = frozenset({NO_LEADER.message, TOO_MANY_REQUESTS.message})


PROBE_KEY: Final = "chaos/probe"
"""Read to see whether a member serves; nobody writes it."""


class CallFailed(Exception):
    """A call had no answer, or was refused.

    Args:
        code: gRPC's status code.
        details: the status's text.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details


def outcome_of(error: CallFailed) -> Outcome:
    """What a failed call means for a write: FAIL only if it was certainly not applied."""
    if error.code in _REFUSED_BEFORE_PROPOSING and error.details.startswith("etcdserver:"):
        return Outcome.FAIL
    if error.details in _REFUSED_TEXTS:
        return Outcome.FAIL
    if error.code is grpc.StatusCode.UNAVAILABLE and error.details.startswith(_NEVER_SENT):
        return Outcome.FAIL
    return Outcome.UNKNOWN


def _as_text(value: bytes) -> str:
    return value.decode(errors="replace")


@attrs.frozen(slots=True)
class MemberStatus:
    """What a member says about itself: ids are etcd's 64-bit member ids, 0 for no leader."""

    member_id: int
    leader_id: int
    term: int
    revision: int

    @property
    def leads(self) -> bool:
        """True if it takes itself for the leader."""
        return self.leader_id != 0 and self.leader_id == self.member_id


class MemberClient:
    """Calls to one member at one address. For one event loop.

    Args:
        address: "host:port".
        timeout_s: deadline of each call.
    """

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._put = self._unary("KV/Put", pb.PutResponse)
        self._range = self._unary("KV/Range", pb.RangeResponse)
        self._txn = self._unary("KV/Txn", pb.TxnResponse)
        self._status = self._unary("Maintenance/Status", pb.StatusResponse)
        self._compact = self._unary("KV/Compact", pb.CompactionResponse)
        self._defragment = self._unary("Maintenance/Defragment", pb.DefragmentResponse)
        self._member_list = self._unary("Cluster/MemberList", pb.MemberListResponse)
        self._member_add = self._unary("Cluster/MemberAdd", pb.MemberAddResponse)
        self._member_promote = self._unary("Cluster/MemberPromote", pb.MemberPromoteResponse)
        self._member_remove = self._unary("Cluster/MemberRemove", pb.MemberRemoveResponse)
        self._move_leader = self._unary("Maintenance/MoveLeader", pb.MoveLeaderResponse)

    async def put(self, key: str, value: str) -> pb.PutResponse:
        """Put one key."""
        request = pb.PutRequest(key=key.encode(), value=value.encode())
        answer: pb.PutResponse = await self._call(self._put, request)
        return answer

    async def get(self, key: str, timeout_s: float | None = None) -> pb.RangeResponse:
        """Read one key, linearizably."""
        request = pb.RangeRequest(key=key.encode())
        answer: pb.RangeResponse = await self._call(self._range, request, timeout_s)
        return answer

    async def probe(self, timeout_s: float | None = None) -> None:
        """Make a linearizable read, to see whether the member serves."""
        await self.get(PROBE_KEY, timeout_s)

    async def compare_and_set(self, key: str, modified: int, value: str) -> pb.TxnResponse:
        """Put one key if its modification revision is ``modified``, else read it."""
        name = key.encode()
        request = pb.TxnRequest(
            compare=[
                pb.Compare(
                    result=pb.Compare.EQUAL,
                    target=pb.Compare.MOD,
                    key=name,
                    mod_revision=modified,
                )
            ],
            success=[pb.RequestOp(request_put=pb.PutRequest(key=name, value=value.encode()))],
            failure=[pb.RequestOp(request_range=pb.RangeRequest(key=name))],
        )
        answer: pb.TxnResponse = await self._call(self._txn, request)
        return answer

    async def status(self) -> MemberStatus:
        """Ask the member about itself."""
        answer: pb.StatusResponse = await self._call(self._status, pb.StatusRequest())
        return MemberStatus(
            answer.header.member_id, answer.leader, answer.raftTerm, answer.header.revision
        )

    async def compact(self, revision: int) -> None:
        """Forget the history before a revision."""
        await self._call(self._compact, pb.CompactionRequest(revision=revision))

    async def defragment(self) -> None:
        """Give back the space that compaction freed."""
        await self._call(self._defragment, pb.DefragmentRequest())

    async def move_leader(self, member_id: int) -> None:
        """Hand leadership to another member; to be asked of the leader."""
        await self._call(self._move_leader, pb.MoveLeaderRequest(targetID=member_id))

    async def member_list(self) -> list[pb.Member]:
        """Who is in the group, as this member knows it."""
        answer: pb.MemberListResponse = await self._call(
            self._member_list, pb.MemberListRequest(linearizable=False)
        )
        return list(answer.members)

    async def member_add(self, peer_url: str) -> None:
        """Add a learner."""
        await self._call(self._member_add, pb.MemberAddRequest(peerURLs=[peer_url], isLearner=True))

    async def member_promote(self, member_id: int) -> None:
        """Let a learner vote."""
        await self._call(self._member_promote, pb.MemberPromoteRequest(ID=member_id))

    async def member_remove(self, member_id: int) -> None:
        """Take a member out of the group."""
        await self._call(self._member_remove, pb.MemberRemoveRequest(ID=member_id))

    async def snapshot_bytes(self) -> int:
        """Download the member's whole state; return how many bytes it has."""
        stream = self._channel.unary_stream(
            "/etcdserverpb.Maintenance/Snapshot",
            request_serializer=pb.SnapshotRequest.SerializeToString,
            response_deserializer=pb.SnapshotResponse.FromString,
        )
        size = 0
        try:
            async for part in stream(pb.SnapshotRequest(), timeout=self.timeout_s):
                size += len(part.blob)
        except grpc.aio.AioRpcError as error:
            raise CallFailed(error.code(), error.details() or "") from error
        return size

    async def events(
        self, first: int, last: int, decode: Callable[[bytes], str] = _as_text
    ) -> AsyncIterator[WatchEvent]:
        """Yield every event of every key from revision ``first`` to ``last``, then end.

        ``decode`` says what the history has for a stored value.

        Raises:
            CallFailed: the watch ended early, was cancelled, or brought nothing for ``timeout_s``
                seconds.
        """
        if last < first:
            return
        watch = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )()
        create = pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=first)
        try:
            await watch.write(pb.WatchRequest(create_request=create))
            reached = first - 1
            while reached < last:
                async with asyncio.timeout(self.timeout_s):
                    answer = await watch.read()
                if answer is grpc.aio.EOF or answer.canceled:
                    reason = getattr(answer, "cancel_reason", "") or "the stream ended"
                    raise CallFailed(grpc.StatusCode.ABORTED, f"watch: {reason}")
                for event in answer.events:
                    reached = event.kv.mod_revision
                    if reached > last:
                        break
                    deleted = event.type == mvccpb_pb2.Event.DELETE
                    value = None if deleted else decode(event.kv.value)
                    yield WatchEvent(reached, event.kv.key.decode(errors="replace"), value)
        except grpc.aio.AioRpcError as error:
            raise CallFailed(error.code(), error.details() or "") from error
        except TimeoutError as error:
            raise CallFailed(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"watch: nothing for {self.timeout_s:g} s, at revision {reached} of {last}",
            ) from error
        finally:
            watch.cancel()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)

    async def __aenter__(self) -> MemberClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _unary(self, method: str, answer: Any) -> Any:
        return self._channel.unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )

    async def _call(self, method: Any, request: Any, timeout_s: float | None = None) -> Any:
        try:
            return await method(request, timeout=timeout_s or self.timeout_s)
        except grpc.aio.AioRpcError as error:
            raise CallFailed(error.code(), error.details() or "") from error
