"""Calling an etcd v3 server with grpcio and nothing else: raw requests, raw responses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc

from kvstore.pb import etcdserverpb_pb2 as pb

Metadata = tuple[tuple[str, str], ...]


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


class Api:
    """One connection to one member. ``channel`` of its own, so that tests can have many."""

    def __init__(self, endpoint: str) -> None:
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self.channel = grpc.aio.insecure_channel(endpoint, options=options)

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.channel.close()

    async def call(self, name: str, request: Any, response: Any, timeout_s: float = 10) -> Any:
        method = self.channel.unary_unary(
            f"/etcdserverpb.{name}",
            request_serializer=_serialize,
            response_deserializer=response.FromString,
        )
        return await method(request, timeout=timeout_s, wait_for_ready=True)

    async def put(self, key: bytes, value: bytes = b"v", lease: int = 0) -> int:
        """Put a key and return the revision."""
        request = pb.PutRequest(key=key, value=value, lease=lease)
        revision: int = (await self.call("KV/Put", request, pb.PutResponse)).header.revision
        return revision

    async def txn(self, *requests: pb.PutRequest | pb.DeleteRangeRequest) -> int:
        """Do puts and deletes in one revision and return it."""
        txn = pb.TxnRequest()
        for request in requests:
            operation = txn.success.add()
            if isinstance(request, pb.PutRequest):
                operation.request_put.CopyFrom(request)
            else:
                operation.request_delete_range.CopyFrom(request)
        revision: int = (await self.call("KV/Txn", txn, pb.TxnResponse)).header.revision
        return revision

    async def count(self, key: bytes, range_end: bytes = b"") -> int:
        """Count keys, linearizably."""
        request = pb.RangeRequest(key=key, range_end=range_end, count_only=True)
        count: int = (await self.call("KV/Range", request, pb.RangeResponse)).count
        return count

    async def compact(self, revision: int) -> None:
        await self.call(
            "KV/Compact", pb.CompactionRequest(revision=revision), pb.CompactionResponse
        )

    async def grant(self, ttl_s: int, lease_id: int = 0) -> pb.LeaseGrantResponse:
        request = pb.LeaseGrantRequest(TTL=ttl_s, ID=lease_id)
        response: pb.LeaseGrantResponse = await self.call(
            "Lease/LeaseGrant", request, pb.LeaseGrantResponse
        )
        return response

    async def time_to_live(self, lease_id: int, keys: bool = False) -> pb.LeaseTimeToLiveResponse:
        request = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        response: pb.LeaseTimeToLiveResponse = await self.call(
            "Lease/LeaseTimeToLive", request, pb.LeaseTimeToLiveResponse, 20
        )
        return response

    async def member_status(self) -> pb.StatusResponse:
        response: pb.StatusResponse = await self.call(
            "Maintenance/Status", pb.StatusRequest(), pb.StatusResponse
        )
        return response

    def watch(self, metadata: Metadata = ()) -> WatchCall:
        """Open a watch stream."""
        method = self.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=_serialize,
            response_deserializer=pb.WatchResponse.FromString,
        )
        return WatchCall(method(metadata=metadata, wait_for_ready=True))

    def keep_alive(self, metadata: Metadata = ()) -> Any:
        """Open a keepalive stream."""
        method = self.channel.stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=_serialize,
            response_deserializer=pb.LeaseKeepAliveResponse.FromString,
        )
        return method(metadata=metadata, wait_for_ready=True)


class WatchCall:
    """One open watch stream."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def create(self, key: bytes, range_end: bytes = b"", **fields: Any) -> None:
        request = pb.WatchCreateRequest(key=key, range_end=range_end, **fields)
        await self.call.write(pb.WatchRequest(create_request=request))

    async def cancel(self, watch_id: int) -> None:
        request = pb.WatchCancelRequest(watch_id=watch_id)
        await self.call.write(pb.WatchRequest(cancel_request=request))

    async def progress(self) -> None:
        await self.call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def read(self, timeout_s: float = 10) -> pb.WatchResponse:
        """Return the next response."""
        async with asyncio.timeout(timeout_s):
            response = await self.call.read()
        assert isinstance(response, pb.WatchResponse), "the stream ended"
        return response

    async def until(
        self, done: Callable[[list[pb.WatchResponse]], bool], timeout_s: float = 20
    ) -> list[pb.WatchResponse]:
        """Read responses until ``done`` is true of all that were read."""
        responses: list[pb.WatchResponse] = []
        async with asyncio.timeout(timeout_s):
            while not done(responses):
                responses.append(await self.read(timeout_s))
        return responses

    async def end(self, timeout_s: float = 10) -> tuple[grpc.StatusCode, str]:
        """Read to the end of the stream and return its status."""
        async with asyncio.timeout(timeout_s):
            try:
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError:
                pass
            return await self.call.code(), await self.call.details()
