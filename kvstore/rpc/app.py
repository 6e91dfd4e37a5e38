"""One ASGI application for one port: gRPC by content type, the JSON gateway, and plain HTTP."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from kvstore.rpc.gateway import Gateway
from kvstore.rpc.grpc_asgi import GrpcApp
from kvstore.rpc.http import CORS_HEADERS, NOSNIFF, TEXT, HttpEndpoints, Receive, Send, answer

GRPC: Final = b"application/grpc"
GATEWAY_PREFIXES: Final = ("/v3/", "/v3beta/")


class FrontApp:
    """Sends each request where it belongs.

    Args:
        grpc: gRPC; None on a port for metrics only.
        gateway: the JSON gateway; None where it is switched off.
        http: the other paths.
        cors: origins that browsers may call from, or "*".
        hosts: host names that HTTP answers to, or "*".
    """

    def __init__(
        self,
        grpc: GrpcApp | None,
        gateway: Gateway | None,
        http: HttpEndpoints,
        *,
        cors: frozenset[str] = frozenset("*"),
        hosts: frozenset[str] = frozenset("*"),
    ) -> None:
        self._grpc = grpc
        self._gateway = gateway
        self._http = http
        self._cors = cors
        self._hosts = hosts

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request (an ASGI application)."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        headers = scope["headers"]
        if self._grpc is not None:
            for name, value in headers:
                if name == b"content-type" and value.startswith(GRPC):
                    await self._grpc(scope, receive, send)
                    return
        fields = dict(headers)
        if (host := self._refused_host(fields)) is not None:
            text = (
                f"421 Misdirected Request: host {host!r} is not in --host-whitelist, which guards "
                "against DNS rebinding\n"
            )
            await answer(send, 421, text.encode(), TEXT, (NOSNIFF,))
            return
        extra = self._cors_headers(fields)
        if scope["method"] == "OPTIONS":
            await answer(send, 200, b"", TEXT, extra)
        elif self._gateway is not None and scope["path"].startswith(GATEWAY_PREFIXES):
            await self._gateway(scope, receive, send, extra)
        else:
            await self._http(scope, send, extra)

    def _refused_host(self, fields: dict[bytes, bytes]) -> str | None:
        """Return the request's host where it is not one of ours."""
        if "*" in self._hosts:
            return None
        host = urlsplit("//" + fields.get(b"host", b"").decode("ascii", "replace")).hostname or ""
        return None if host in self._hosts else host

    def _cors_headers(self, fields: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
        origin = fields.get(b"origin", b"")
        if "*" in self._cors:
            allowed = b"*"
        elif origin and origin.decode("latin-1") in self._cors:
            allowed = origin
        else:
            return ()
        return ((b"access-control-allow-origin", allowed), *CORS_HEADERS)
