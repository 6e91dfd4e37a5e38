"""Toxiproxy's HTTP API as an ASGI application.

Paths, fields, status codes and the form of errors (``{"error": text, "status": code}``) are those
of Toxiproxy 2.12. Stricter than it: an unknown attribute of a toxic, a negative number and a
toxicity outside 0..1 are refused. Added: ``POST /partition`` gives many proxies a state at one
instant, ``GET /effects`` counts what toxics and cuts did, by proxy, and byte counters stand under
``GET /metrics`` without a switch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from chaos.toxid.proxy import Proxy
from chaos.toxid.registry import ApiError, LinkState, Registry

VERSION: Final = "2.12.0"
"""The version of Toxiproxy whose API this is."""

IMPLEMENTATION: Final = "toxid"
BODY_BYTES_MAX: Final = 1024 * 1024

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@attrs.frozen(slots=True)
class Answer:
    """An HTTP answer: a status and a JSON value, text, or nothing."""

    status: int
    body: Any = None


Handler = Callable[[Registry, Any, dict[str, str]], Awaitable[Answer]]
_routes: list[tuple[tuple[str, ...], re.Pattern[str], Handler]] = []


def _route(methods: str, path: str) -> Callable[[Handler], Handler]:
    pattern = re.compile("^" + re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path) + "$")

    def register(handler: Handler) -> Handler:
        _routes.append((tuple(methods.split()), pattern, handler))
        return handler

    return register


def application(registry: Registry) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return the ASGI application that serves ``registry``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = await _answer(registry, scope, receive)
        except ApiError as error:
            answer = Answer(error.status, {"error": error.message, "status": error.status})
        await _send(send, answer)

    return app


async def _answer(registry: Registry, scope: Scope, receive: Receive) -> Answer:
    headers = {name.lower(): value for name, value in scope["headers"]}
    if headers.get(b"user-agent", b"").startswith(b"Mozilla/"):
        raise ApiError(403, "User agent not allowed")
    path_known = False
    for methods, pattern, handler in _routes:
        match = pattern.match(scope["path"])
        if match is None:
            continue
        path_known = True
        if scope["method"] in methods:
            body = await _read(receive) if scope["method"] in ("POST", "PATCH") else b""
            return await handler(registry, _parse(body), match.groupdict())
    if path_known:
        raise ApiError(405, "method not allowed")
    raise ApiError(404, "page not found")


async def _read(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "bad request body: the client went away")
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_BYTES_MAX:
            raise ApiError(413, f"bad request body: more than {BODY_BYTES_MAX} bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _parse(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError as error:
        raise ApiError(400, f"bad request body: {error}") from error


async def _send(send: Send, answer: Answer) -> None:
    kind, content = b"application/json", b""
    if isinstance(answer.body, str):
        kind, content = b"text/plain; version=0.0.4", answer.body.encode()
    elif answer.status != 204:
        content = json.dumps(answer.body).encode()
    headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    if answer.status == 204:
        headers = []
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


# Fields of requests.


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ApiError(400, "bad request body: it should be a JSON object")
    return body


def _field(body: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    raise ApiError(400, f"bad request body: {name} should be of type {kind.__name__}")


def _required(body: dict[str, Any], name: str, where: str = "") -> str:
    value: str = _field(body, name, str, "")
    if not value:
        raise ApiError(400, f"missing required field: {name}{where}")
    return value


def _toxicity(body: dict[str, Any], default: float | None) -> float | None:
    value: float | None = _field(body, "toxicity", float, default)
    if value is not None and not 0.0 <= value <= 1.0:
        raise ApiError(400, "bad request body: toxicity should be between 0 and 1")
    return value


# Handlers.


@_route("GET", "/version")
async def _version(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    return Answer(200, {"version": VERSION, "implementation": IMPLEMENTATION})


@_route("GET", "/metrics")
async def _metrics(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    lines = []
    for metric, field in (
        ("toxiproxy_proxy_received_bytes_total", "received_bytes"),
        ("toxiproxy_proxy_sent_bytes_total", "sent_bytes"),
    ):
        lines.append(f"# TYPE {metric} counter")
        for proxy in registry.proxies.values():
            for stream, traffic in proxy.traffic.items():
                labels = (
                    f'direction="{stream}",proxy="{proxy.name}",'
                    f'listener="{proxy.listen}",upstream="{proxy.upstream}"'
                )
                lines.append(f"{metric}{{{labels}}} {getattr(traffic, field)}")
    return Answer(200, "\n".join(lines) + "\n")


@_route("POST", "/reset")
async def _reset(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    await registry.reset()
    return Answer(204)


@_route("POST", "/partition")
async def _partition(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    links = _field(_object(body), "links", dict, {})
    known = {state.value: state for state in LinkState}
    for name, state in links.items():
        if not isinstance(state, str) or state not in known:
            raise ApiError(
                400, f"bad request body: {name}: {state!r} should be one of {', '.join(known)}"
            )
    instant_ns = await registry.partition({name: known[state] for name, state in links.items()})
    return Answer(200, {"links": links, "monotonic_ns": instant_ns})


@_route("GET", "/effects")
async def _effects(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    return Answer(200, {name: dict(proxy.effects) for name, proxy in registry.proxies.items()})


@_route("GET", "/proxies")
async def _proxies(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    return Answer(200, {name: proxy.as_json() for name, proxy in registry.proxies.items()})


@_route("POST", "/proxies")
async def _create(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    fields = _object(body)
    proxy = await registry.create(
        _required(fields, "name"),
        _field(fields, "listen", str, ""),
        _required(fields, "upstream"),
        _field(fields, "enabled", bool, True),
    )
    return Answer(201, proxy.as_json())


@_route("POST", "/populate")
async def _populate(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    if not isinstance(body, list):
        raise ApiError(400, "bad request body: it should be a JSON list of proxies")
    wanted = []
    for number, item in enumerate(body, start=1):
        fields = _object(item)
        wanted.append(
            (
                _required(fields, "name", f" at proxy {number}"),
                _field(fields, "listen", str, ""),
                _required(fields, "upstream", f" at proxy {number}"),
                _field(fields, "enabled", bool, True),
            )
        )
    proxies = await registry.populate(wanted)
    return Answer(201, {"proxies": [proxy.as_json() for proxy in proxies]})


@_route("GET", "/proxies/{proxy}")
async def _show(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    return Answer(200, registry.proxy(names["proxy"]).as_json())


@_route("POST PATCH", "/proxies/{proxy}")
async def _update(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    proxy: Proxy = registry.proxy(names["proxy"])
    fields = _object(body)
    await registry.update(
        proxy,
        _field(fields, "listen", str, proxy.listen),
        _field(fields, "upstream", str, proxy.upstream),
        _field(fields, "enabled", bool, proxy.enabled),
    )
    return Answer(200, proxy.as_json())


@_route("DELETE", "/proxies/{proxy}")
async def _delete(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    registry.delete(names["proxy"])
    return Answer(204)


@_route("GET", "/proxies/{proxy}/toxics")
async def _toxics(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    return Answer(200, registry.proxy(names["proxy"]).as_json()["toxics"])


@_route("POST", "/proxies/{proxy}/toxics")
async def _add_toxic(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    proxy = registry.proxy(names["proxy"])
    fields = _object(body)
    toxic = registry.add_toxic(
        proxy,
        _field(fields, "type", str, ""),
        _field(fields, "name", str, ""),
        _field(fields, "stream", str, "downstream"),
        _toxicity(fields, 1.0) or 0.0,
        _field(fields, "attributes", dict, {}),
    )
    return Answer(200, toxic.as_json())


@_route("GET", "/proxies/{proxy}/toxics/{toxic}")
async def _show_toxic(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    proxy = registry.proxy(names["proxy"])
    return Answer(200, registry.toxic(proxy, names["toxic"]).as_json())


@_route("POST PATCH", "/proxies/{proxy}/toxics/{toxic}")
async def _update_toxic(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    proxy = registry.proxy(names["proxy"])
    fields = _object(body)
    toxic = registry.update_toxic(
        proxy, names["toxic"], _toxicity(fields, None), _field(fields, "attributes", dict, {})
    )
    return Answer(200, toxic.as_json())


@_route("DELETE", "/proxies/{proxy}/toxics/{toxic}")
async def _delete_toxic(registry: Registry, body: Any, names: dict[str, str]) -> Answer:
    registry.remove_toxic(registry.proxy(names["proxy"]), names["toxic"])
    return Answer(204)
