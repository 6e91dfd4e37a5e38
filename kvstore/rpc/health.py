"""The standard gRPC health service, as etcd answers it: service "" is served, others unknown."""

from __future__ import annotations

import asyncio
from typing import Final

from kvstore.errors import Code, EtcdError, Status
from kvstore.pb import health_pb2 as pb
from kvstore.rpc.registry import Call, Kind, Method, Stream

SERVICE: Final = "grpc.health.v1.Health"
SERVING: Final = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)


class HealthService:
    """Health of one member's client port."""

    def methods(self) -> list[Method]:
        """The service's methods, for a registry."""
        request, response = pb.HealthCheckRequest, pb.HealthCheckResponse
        return [
            Method(SERVICE, "Check", request, response, Kind.UNARY, self.check),
            Method(SERVICE, "Watch", request, response, Kind.SERVER_STREAM, self.watch),
        ]

    async def check(self, request: pb.HealthCheckRequest, _: Call) -> pb.HealthCheckResponse:
        """Say whether a service is served."""
        if request.service:
            raise EtcdError(Status(Code.NOT_FOUND, "unknown service"))
        return SERVING

    async def watch(self, stream: Stream[pb.HealthCheckRequest]) -> None:
        """Say whether a service is served, and keep the stream open until the server stops."""
        async for request in stream:
            if request.service:
                await stream.send(
                    pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
                )
            else:
                await stream.send(SERVING)
            await asyncio.Event().wait()
