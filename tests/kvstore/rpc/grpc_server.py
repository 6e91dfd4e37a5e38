"""A real h2corn server around the gRPC layer, with a small echo service for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import h2corn

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc.grpc_asgi import GrpcApp
from kvstore.rpc.listener import h2corn_config, silence_banner
from kvstore.rpc.registry import Kind, Method, Registry

SERVICE = "test.Echo"


@attrs.define
class Served:
    """A running server: where it is, and the application behind it."""

    address: str
    app: GrpcApp
    server: h2corn.Server
    task: asyncio.Task[None]


def echo_method(name: str, kind: Kind, handler: Callable[..., Any]) -> Method:
    """A method of the test service: PutRequest in, RangeResponse out."""
    return Method(SERVICE, name, pb.PutRequest, pb.RangeResponse, kind, handler)


@contextlib.asynccontextmanager
async def serve(
    *methods: Method, max_request_bytes: int = 1_572_864, **options: Any
) -> AsyncIterator[Served]:
    """Serve ``methods`` on a free loopback port until the block ends."""
    app = GrpcApp(Registry(methods), max_request_bytes, **options)
    silence_banner()
    server = h2corn.Server(app, h2corn_config(("127.0.0.1:0",)))
    task = asyncio.create_task(server.serve())
    await server.wait_started()
    try:
        yield Served(server.addresses[0], app, server, task)
    finally:
        app.close()
        server.shutdown()
        await task
