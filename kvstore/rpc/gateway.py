"""The JSON gateway: the same methods as gRPC, for anything that can POST.

Forms are those of etcd's gateway: field names as in the .proto files, 64-bit numbers as strings,
bytes in base64, zero fields left out, unknown fields ignored. A stream is one JSON object a line.
Errors carry the keys of both generations of gateways: ``error``, ``message`` and ``code``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import attrs
import structlog
from google.protobuf import json_format
from google.protobuf.message import Message

from kvstore.errors import SERVER_STOPPED, Code, EtcdError, Status
from kvstore.rpc.framing import too_large
from kvstore.rpc.grpc_asgi import INTERNAL_ERROR, OVERHEAD_BYTES, StatusOf
from kvstore.rpc.http import JSON, NOSNIFF, TEXT, Receive, Send, answer
from kvstore.rpc.registry import Kind, Metadata, Method, Registry

log = structlog.get_logger(__name__)

ExtraHeaders = tuple[tuple[bytes, bytes], ...]

KV: Final = "/etcdserverpb.KV/"
LEASE: Final = "/etcdserverpb.Lease/"
CLUSTER: Final = "/etcdserverpb.Cluster/"
MAINTENANCE: Final = "/etcdserverpb.Maintenance/"
AUTH: Final = "/etcdserverpb.Auth/"
LOCK: Final = "/v3lockpb.Lock/"
ELECTION: Final = "/v3electionpb.Election/"

ROUTES: Final[dict[str, str]] = {
    "kv/range": KV + "Range",
    "kv/put": KV + "Put",
    "kv/deleterange": KV + "DeleteRange",
    "kv/txn": KV + "Txn",
    "kv/compaction": KV + "Compact",
    "watch": "/etcdserverpb.Watch/Watch",
    "lease/grant": LEASE + "LeaseGrant",
    "lease/revoke": LEASE + "LeaseRevoke",
    "kv/lease/revoke": LEASE + "LeaseRevoke",
    "lease/keepalive": LEASE + "LeaseKeepAlive",
    "lease/timetolive": LEASE + "LeaseTimeToLive",
    "kv/lease/timetolive": LEASE + "LeaseTimeToLive",
    "lease/leases": LEASE + "LeaseLeases",
    "kv/lease/leases": LEASE + "LeaseLeases",
    "cluster/member/add": CLUSTER + "MemberAdd",
    "cluster/member/remove": CLUSTER + "MemberRemove",
    "cluster/member/update": CLUSTER + "MemberUpdate",
    "cluster/member/list": CLUSTER + "MemberList",
    "cluster/member/promote": CLUSTER + "MemberPromote",
    "maintenance/alarm": MAINTENANCE + "Alarm",
    "maintenance/status": MAINTENANCE + "Status",
    "maintenance/defragment": MAINTENANCE + "Defragment",
    "maintenance/hash": MAINTENANCE + "Hash",
    "maintenance/hashkv": MAINTENANCE + "HashKV",
    "maintenance/snapshot": MAINTENANCE + "Snapshot",
    "maintenance/transfer-leadership": MAINTENANCE + "MoveLeader",
    "maintenance/downgrade": MAINTENANCE + "Downgrade",
    "auth/enable": AUTH + "AuthEnable",
    "auth/disable": AUTH + "AuthDisable",
    "auth/status": AUTH + "AuthStatus",
    "auth/authenticate": AUTH + "Authenticate",
    "auth/user/add": AUTH + "UserAdd",
    "auth/user/get": AUTH + "UserGet",
    "auth/user/list": AUTH + "UserList",
    "auth/user/delete": AUTH + "UserDelete",
    "auth/user/changepw": AUTH + "UserChangePassword",
    "auth/user/grant": AUTH + "UserGrantRole",
    "auth/user/revoke": AUTH + "UserRevokeRole",
    "auth/role/add": AUTH + "RoleAdd",
    "auth/role/get": AUTH + "RoleGet",
    "auth/role/list": AUTH + "RoleList",
    "auth/role/delete": AUTH + "RoleDelete",
    "auth/role/grant": AUTH + "RoleGrantPermission",
    "auth/role/revoke": AUTH + "RoleRevokePermission",
    "lock/lock": LOCK + "Lock",
    "lock/unlock": LOCK + "Unlock",
    "election/campaign": ELECTION + "Campaign",
    "election/proclaim": ELECTION + "Proclaim",
    "election/leader": ELECTION + "Leader",
    "election/observe": ELECTION + "Observe",
    "election/resign": ELECTION + "Resign",
}

STAYS_OPEN: Final = frozenset({"/etcdserverpb.Watch/Watch"})
"""Streams that go on after the request's body ended: until the client goes away."""

HTTP_CODES: Final = {
    Code.CANCELED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
GRPC_METADATA: Final = (b"grpc-metadata-content-type", b"application/grpc")


class ClientGone(Exception):
    """The client closed its connection."""


@attrs.frozen(slots=True)
class GatewayCall:
    """What a handler sees of a call through the gateway."""

    metadata: Metadata


def to_json(message: Message) -> Any:
    """Return a message as etcd's gateway shows it."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def dump(value: Any) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def error_body(status: Status) -> dict[str, Any]:
    """Return an error in the keys of both generations of gateways."""
    return {"error": status.message, "message": status.message, "code": int(status.code)}


class JsonStream:
    """A streaming call through the gateway: JSON objects in, lines of JSON out."""

    def __init__(self, method: Method, metadata: Metadata, body: Body, send: Send) -> None:
        self.metadata = metadata
        self.started = False
        self._method = method
        self._body = body
        self._send = send
        self._headers: ExtraHeaders = ()

    def with_headers(self, headers: ExtraHeaders) -> JsonStream:
        """Add response headers."""
        self._headers = headers
        return self

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Yield the request's JSON objects as messages."""
        one = self._method.kind is Kind.SERVER_STREAM
        async for value in self._body.objects(always_one=one):
            self._method.stats.received += 1
            yield to_message(self._method, value)
            if one:
                return
        if self._method.path in STAYS_OPEN:
            await self._body.wait_gone()

    async def send(self, response: Message | bytes) -> None:
        """Send one response as a line."""
        if isinstance(response, bytes):
            response = self._method.response.FromString(response)
        self._method.stats.sent += 1
        await self.line({"result": to_json(response)})

    async def send_all(self, responses: Sequence[bytes]) -> None:
        """Send each response as a line."""
        for response in responses:
            await self.send(response)

    async def line(self, value: Any) -> None:
        """Send one line, the headers first where they are still to come."""
        if not self.started:
            self.started = True
            fields = [(b"content-type", JSON), GRPC_METADATA, *self._headers]
            await self._send({"type": "http.response.start", "status": 200, "headers": fields})
        await self._send(
            {"type": "http.response.body", "body": dump(value) + b"\n", "more_body": True}
        )

    async def finish(self) -> None:
        """End the response."""
        if not self.started:
            fields = [(b"content-type", JSON), GRPC_METADATA, *self._headers]
            await self._send({"type": "http.response.start", "status": 200, "headers": fields})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class Body:
    """A request's body, read as a sequence of JSON objects.

    Args:
        receive: ASGI's receive.
        limit: greatest object, in bytes.
    """

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._buffer = b""
        self._ended = False

    async def _more(self) -> bool:
        """Read the next piece; False at the end."""
        if self._ended:
            return False
        event = await self._receive()
        if event["type"] != "http.request":
            raise ClientGone
        self._buffer += event.get("body", b"")
        self._ended = not event.get("more_body", False)
        if len(self._buffer) > self._limit:
            raise too_large(len(self._buffer), self._limit)
        return True

    async def whole(self) -> Any:
        """Return the body as one JSON value; an empty body is an empty object.

        Raises:
            EtcdError: it is too large, or not JSON.
            ClientGone: the client is.
        """
        while await self._more():
            pass
        text = self._buffer.strip()
        if not text:
            return {}
        try:
            return json.loads(text)
        except ValueError as error:
            raise bad_request(f"the request's body is not JSON: {error}") from None

    async def objects(self, always_one: bool = False) -> AsyncIterator[Any]:
        """Yield one JSON value after another, each as soon as it is whole."""
        decoder = json.JSONDecoder()
        count = 0
        while True:
            try:
                text = self._buffer.decode().lstrip()
                value, end = decoder.raw_decode(text) if text else (None, 0)
            except ValueError as error:
                if self._ended:
                    raise bad_request(f"the request's body is not JSON: {error}") from None
            else:
                if text:
                    self._buffer = text[end:].encode()
                    count += 1
                    yield value
                    continue
            if not await self._more():
                break
        if always_one and not count:
            yield {}

    async def wait_gone(self) -> None:
        """Wait until the client closes its side of the conversation altogether."""
        event = await self._receive()
        while event["type"] == "http.request":
            event = await self._receive()
        raise ClientGone


def bad_request(text: str) -> EtcdError:
    """Return the error for a request that is not understood."""
    return EtcdError(Status(Code.INVALID_ARGUMENT, text))


def to_message(method: Method, value: Any) -> Message:
    """Return a JSON value as the method's request.

    Raises:
        EtcdError: INVALID_ARGUMENT.
    """
    if not isinstance(value, dict):
        raise bad_request(f"expected a JSON object, got {type(value).__name__}")
    try:
        return json_format.ParseDict(value, method.request(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError) as error:
        raise bad_request(str(error)) from None


class Gateway:
    """Serves a registry as JSON.

    Args:
        registry: the methods.
        max_request_bytes: as for gRPC; JSON may be four thirds of that for its base64.
        status_of: maps a handler's exception to a status; None where it is a bug.
    """

    def __init__(self, registry: Registry, max_request_bytes: int, status_of: StatusOf) -> None:
        self._methods = {
            path: registry.methods[target]
            for path, target in ROUTES.items()
            if target in registry.methods
        }
        self._limit = (max_request_bytes + OVERHEAD_BYTES) * 4 // 3
        self._status_of = status_of
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    def close(self) -> None:
        """End every call, and refuse new ones."""
        self._closing = True
        for task in tuple(self._tasks):
            task.cancel()

    async def __call__(
        self, scope: dict[str, Any], receive: Receive, send: Send, headers: ExtraHeaders = ()
    ) -> None:
        """Serve one request."""
        path = scope["path"].removeprefix("/v3beta/").removeprefix("/v3/")
        method = self._methods.get(path)
        if method is None:
            await answer(send, 404, b"Not Found\n", TEXT, (NOSNIFF, *headers))
            return
        if scope["method"] != "POST":
            await answer(send, 405, b"Method Not Allowed\n", TEXT, (NOSNIFF, *headers))
            return
        if self._closing:
            await self._error(send, SERVER_STOPPED, headers)
            return
        metadata: Metadata = dict(scope["headers"])
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        method.stats.started += 1
        try:
            if method.kind is Kind.UNARY:
                await self._unary(method, metadata, receive, send, headers)
            else:
                await self._stream(method, metadata, receive, send, headers)
        except ClientGone:
            method.stats.finish(Code.CANCELED)
        finally:
            self._tasks.discard(task)

    async def _unary(
        self,
        method: Method,
        metadata: Metadata,
        receive: Receive,
        send: Send,
        headers: ExtraHeaders,
    ) -> None:
        try:
            request = to_message(method, await Body(receive, self._limit).whole())
            method.stats.received += 1
            response = await method.handler(request, GatewayCall(metadata))
        except ClientGone:
            raise
        except (Exception, asyncio.CancelledError) as error:
            status = self._status(method, error)
            method.stats.finish(status.code)
            await self._error(send, status, headers)
            return
        method.stats.sent += 1
        method.stats.finish(Code.OK)
        await answer(send, 200, dump(to_json(response)), JSON, (GRPC_METADATA, *headers))

    async def _stream(
        self,
        method: Method,
        metadata: Metadata,
        receive: Receive,
        send: Send,
        headers: ExtraHeaders,
    ) -> None:
        body = Body(receive, self._limit)
        stream = JsonStream(method, metadata, body, send).with_headers(headers)
        try:
            await method.handler(stream)
        except ClientGone:
            raise
        except (Exception, asyncio.CancelledError) as error:
            status = self._status(method, error)
            method.stats.finish(status.code)
            if not stream.started:
                await self._error(send, status, headers)
                return
            await stream.line({"error": {**error_body(status), "grpc_code": int(status.code)}})
        else:
            method.stats.finish(Code.OK)
        await stream.finish()

    def _status(self, method: Method, error: BaseException) -> Status:
        if isinstance(error, EtcdError):
            return error.status
        if isinstance(error, asyncio.CancelledError):
            if self._closing:
                return SERVER_STOPPED
            raise error
        status = self._status_of(error)
        if status is None:
            log.error("a call failed on an unforeseen error", call=method.path, exc_info=error)
            return INTERNAL_ERROR
        return status

    async def _error(self, send: Send, status: Status, headers: ExtraHeaders) -> None:
        code = HTTP_CODES.get(status.code, 500)
        await answer(send, code, dump(error_body(status)), JSON, headers)
