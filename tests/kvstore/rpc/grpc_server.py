"""A real listener around the gRPC layer, with a small echo service for tests."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs

from kvstore.listeners import Listeners
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc.grpc_asgi import GrpcApp
from kvstore.rpc.registry import Kind, Method, Registry

SERVICE = "test.Echo"


@attrs.define
class Served:
    """A running server: where it is, and the application behind it."""

    address: str
    app: GrpcApp
    listeners: Listeners


def echo_method(name: str, kind: Kind, handler: Callable[..., Any]) -> Method:
    """A method of the test service: PutRequest in, RangeResponse out."""
    return Method(SERVICE, name, pb.PutRequest, pb.RangeResponse, kind, handler)


@contextlib.asynccontextmanager
async def serve(
    *methods: Method,
    max_request_bytes: int = 1_572_864,
    **options: Any,
) -> AsyncIterator[Served]:
    """Serve ``methods`` on a free loopback port until the block ends."""
    app = GrpcApp(Registry(methods), max_request_bytes, **options)
    bound = socket.create_server(("127.0.0.1", 0))
    listeners = Listeners(app, [bound])
    await listeners.start()
    try:
        yield Served(f"127.0.0.1:{bound.getsockname()[1]}", app, listeners)
    finally:
        app.close()
        await listeners.stop()
