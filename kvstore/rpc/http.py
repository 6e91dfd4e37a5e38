"""Plain HTTP beside gRPC: health, version, metrics, and what etcd says to everything else.

Forms follow etcd 3.6 (and real answers of 3.4.23): ``/health`` is JSON under text/plain, the probes
``/livez`` and ``/readyz`` speak the Kubernetes dialect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from consensus.errors import ConsensusError
from consensus.types import Consistency
from kvstore.errors import EtcdError
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc.context import ServerContext
from kvstore.version import CLUSTER_VERSION, ETCD_VERSION, STORAGE_VERSION

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Check = Callable[[], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

TEXT: Final = b"text/plain; charset=utf-8"
JSON: Final = b"application/json"
NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
PROBE_TIMEOUT_S: Final = 2.0
CORS_HEADERS: Final = (
    (b"access-control-allow-methods", b"POST, GET, OPTIONS, PUT, DELETE"),
    (b"access-control-allow-headers", b"accept, content-type, authorization"),
)
HEALTH_CHECK_KEY: Final = b"health"
ALARMS: Final = {"NOSPACE": pb.NOSPACE, "CORRUPT": pb.CORRUPT}


class CheckFailed(Exception):
    """A health check failed; the text says why."""


async def answer(
    send: Send,
    code: int,
    body: bytes,
    content_type: bytes = TEXT,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Send one whole response."""
    fields: Headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        *headers,
    ]
    await send({"type": "http.response.start", "status": code, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def not_found(send: Send, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Answer a path that nothing serves, as Go's HTTP server does."""
    await answer(send, 404, b"404 page not found\n", TEXT, (NOSNIFF, *headers))


class HttpEndpoints:
    """/health, /livez, /readyz, /version, /metrics.

    Args:
        context: the member, or None while it is starting: then it is alive and not ready.
        metrics: returns the metrics page and its content type.
    """

    def __init__(self, context: ServerContext, metrics: Callable[[], tuple[bytes, bytes]]) -> None:
        self._context = context
        self._metrics = metrics
        self._live: Mapping[str, Check] = {"serializable_read": self._serializable_read}
        self._ready: Mapping[str, Check] = {
            "data_corruption": self._data_corruption,
            "serializable_read": self._serializable_read,
            "linearizable_read": self._linearizable_read,
            "non_learner": self._non_learner,
        }

    async def __call__(self, scope: dict[str, Any], send: Send, headers: Any = ()) -> None:
        """Answer one request."""
        path, method = scope["path"], scope["method"]
        query = parse_qs(scope["query_string"].decode("ascii", "replace"), keep_blank_values=True)
        root = path.split("/")[1] if path.startswith("/") else ""
        known = path in ("/health", "/version", "/metrics") or root in ("livez", "readyz")
        if not known:
            await not_found(send, headers)
        elif method not in ("GET", "HEAD"):
            await answer(
                send, 405, b"Method Not Allowed\n", TEXT, ((b"allow", b"GET"), NOSNIFF, *headers)
            )
        elif path == "/health":
            await self._health(send, query, headers)
        elif path == "/version":
            await answer(send, 200, version_json(), JSON, headers)
        elif path == "/metrics":
            page, content_type = self._metrics()
            await answer(send, 200, page, content_type, headers)
        else:
            await self._probe(send, path, query, headers)

    async def _health(self, send: Send, query: Mapping[str, list[str]], headers: Any) -> None:
        excluded = set(query.get("exclude", []))
        consistency = (
            Consistency.SERIALIZABLE
            if query.get("serializable", [""])[0] == "true"
            else Consistency.LINEARIZABLE
        )
        reason = await self._unhealthy(excluded, consistency)
        body = json.dumps(
            {"health": "false" if reason else "true", "reason": reason}, separators=(",", ":")
        )
        await answer(send, 503 if reason else 200, body.encode(), TEXT, headers)

    async def _unhealthy(self, excluded: set[str], consistency: Consistency) -> str:
        machine, node = self._context.machine, self._context.node
        raised = {alarm.alarm for alarm in machine.alarms.get()}
        for name, kind in ALARMS.items():
            if kind in raised and name not in excluded:
                return f"ALARM {name}"
        if consistency is Consistency.LINEARIZABLE and node.status().engine.leader is None:
            return "RAFT NO LEADER"
        try:
            await self._read(consistency)
        except CheckFailed as error:
            return f"RANGE ERROR:{error}"
        return ""

    async def _probe(
        self, send: Send, path: str, query: Mapping[str, list[str]], headers: Any
    ) -> None:
        _, name, *rest = path.split("/")
        checks = self._live if name == "livez" else self._ready
        if rest and rest != [""]:
            only = rest[0]
            if len(rest) > 1 or only not in checks:
                await not_found(send, headers)
                return
            checks = {only: checks[only]}
        excluded = {part for value in query.get("exclude", []) for part in value.split(",")}
        lines, failed = [], False
        for each, check in checks.items():
            if each in excluded:
                lines.append(f"[+]{each} excluded: ok")
                continue
            try:
                await check()
            except CheckFailed as error:
                failed = True
                lines.append(f"[-]{each} failed: {error}")
            else:
                lines.append(f"[+]{each} ok")
        text = "\n".join(lines)
        if failed:
            body, code = f"{text}\n{name} check failed\n", 503
        elif "verbose" in query:
            body, code = f"{text}\n{name} check passed\n", 200
        else:
            body, code = "ok\n", 200
        await answer(send, code, body.encode(), TEXT, (NOSNIFF, *headers))

    async def _read(self, consistency: Consistency) -> None:
        request = pb.RangeRequest(key=HEALTH_CHECK_KEY, count_only=True)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._context.read(request, consistency)
        except TimeoutError:
            raise CheckFailed(f"no answer from a quorum in {PROBE_TIMEOUT_S:g} s") from None
        except (ConsensusError, EtcdError) as error:
            raise CheckFailed(str(error)) from None

    async def _serializable_read(self) -> None:
        await self._read(Consistency.SERIALIZABLE)

    async def _linearizable_read(self) -> None:
        await self._read(Consistency.LINEARIZABLE)

    async def _data_corruption(self) -> None:
        if self._context.machine.alarms.corrupt:
            raise CheckFailed("alarm activated: CORRUPT")

    async def _non_learner(self) -> None:
        if self._context.is_learner:
            raise CheckFailed("the member is a learner")


def version_json() -> bytes:
    """Return the body of /version."""
    versions = {
        "etcdserver": ETCD_VERSION,
        "etcdcluster": CLUSTER_VERSION,
        "storage": STORAGE_VERSION,
    }
    return json.dumps(versions, separators=(",", ":")).encode()
