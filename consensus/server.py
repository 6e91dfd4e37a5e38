"""Serving one node to clients over HTTP: a small ASGI application, and the process around it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import attrs
import structlog

from consensus.errors import ConfigError, ConsensusError
from consensus.http1 import Http1Server
from consensus.node import PROPOSE_TIMEOUT_S, Node
from consensus.types import Consistency, NodeStatus
from consensus.wire import (
    ANSWERED,
    APPLIED,
    REQUEST_BYTES_MAX,
    BadRequest,
    decode_command,
    encode_error,
    encode_result,
)

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S: Final = 2.0
TIMEOUT_S_MAX: Final = 60.0

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def describe(status: NodeStatus, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return a node's status as JSON can say it."""
    engine = status.engine
    return {
        "name": engine.node_id,
        "role": engine.role.value,
        "term": engine.term,
        "leader": engine.leader,
        "has_quorum": engine.has_quorum,
        "commit_index": engine.commit_index,
        "applied_index": status.applied_index,
        "pending_proposals": status.pending_proposals,
        "halted": status.halted,
        "members": [
            {**attrs.asdict(member), "context": encode_result(member.context)}
            for member in engine.members
        ],
        "engine": dict(engine.details),
        "notes": list(notes),
    }


class NodeApplication:
    """The ASGI application of one node (see ``consensus.wire`` for its forms)."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        route = (scope["method"], scope["path"])
        try:
            if route == ("GET", "/status"):
                notes = self._node.engine.capabilities.notes
                status, answer = HTTPStatus.OK, describe(self._node.status(), notes)
            elif route == ("GET", "/hash"):
                index, digest = self._node.state_hash()
                status = HTTPStatus.OK
                answer = {"applied_index": index, "hash": digest.hex()}
            elif route == ("POST", "/propose"):
                status, answer = HTTPStatus.OK, await self._propose(await _body(receive))
            elif route == ("POST", "/query"):
                status, answer = HTTPStatus.OK, await self._query(await _body(receive))
            else:
                status = HTTPStatus.NOT_FOUND
                _, answer = encode_error(
                    BadRequest("there is POST /propose, POST /query, GET /status and GET /hash")
                )
        except ConsensusError as error:
            status, answer = encode_error(error)
        except Exception as error:  # a query that the machine does not understand
            log.exception("request failed", path=scope["path"])
            status, answer = encode_error(BadRequest(f"{type(error).__name__}: {error}"))
        data = json.dumps(answer).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": data})

    async def _propose(self, request: Any) -> dict[str, Any]:
        applied = await self._node.propose(decode_command(request), _timeout_s(request))
        return {
            "outcome": APPLIED,
            "term": applied.term,
            "index": applied.index,
            "result": encode_result(applied.result),
        }

    async def _query(self, request: Any) -> dict[str, Any]:
        command = decode_command(request)
        try:
            consistency = Consistency(request.get("consistency", Consistency.LINEARIZABLE.value))
        except ValueError:
            names = ", ".join(known.value for known in Consistency)
            raise BadRequest(f"'consistency' must be one of: {names}") from None
        result = await self._node.query(command, consistency, _timeout_s(request))
        return {"outcome": ANSWERED, "result": encode_result(result)}


def _timeout_s(request: Any) -> float:
    timeout_s = request.get("timeout_s", PROPOSE_TIMEOUT_S)
    if not isinstance(timeout_s, int | float) or not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise BadRequest(f"'timeout_s' must be a number of seconds, at most {TIMEOUT_S_MAX:g}")
    return float(timeout_s)


async def _body(receive: Receive) -> Any:
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the client went away")
        data += message.get("body", b"")
        if len(data) > REQUEST_BYTES_MAX:
            raise BadRequest(f"a request may have {REQUEST_BYTES_MAX} bytes")
        if not message.get("more_body"):
            break
    try:
        return json.loads(bytes(data))
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None


class NodeServer:
    """Listens for clients and serves a node to them.

    Args:
        node: started by the caller.
        addresses: "host:port" to listen on; bound at once.

    Raises:
        ConfigError: an address cannot be bound.
    """

    def __init__(self, node: Node, addresses: Sequence[str]) -> None:
        self._sockets: list[socket.socket] = []
        for address in addresses:
            host, _, port = address.rpartition(":")
            try:
                bound = socket.create_server((host.strip("[]"), int(port)), backlog=1024)
            except OSError as error:
                self.close()
                raise ConfigError(
                    f"cannot listen for clients on {address}: {error.strerror or error}"
                ) from None
            self._sockets.append(bound)
        self._server = Http1Server(NodeApplication(node), self._sockets)

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            await self._server.start()
            await asyncio.Event().wait()
        finally:
            await self._server.stop(STOP_TIMEOUT_S)

    def close(self) -> None:
        """Close the listening sockets. Safe to call twice."""
        for bound in self._sockets:
            bound.close()


async def serve(node: Node, addresses: Sequence[str]) -> str:
    """Start ``node``, serve it until SIGTERM or SIGINT, stop it.

    Returns:
        an empty text, or why the node had to stop by itself.

    Raises:
        ConfigError, StorageError: it could not start.
    """
    server = NodeServer(node, addresses)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await node.start()
        log.info("ready", name=node.engine.node_id, clients=list(addresses))
        halted = asyncio.create_task(node.wait_halted())
        waiting = {
            halted,
            asyncio.create_task(server.run()),
            asyncio.create_task(stop.wait()),
        }
        done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        reason = halted.result() if halted in done else ""
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        return reason
    finally:
        server.close()
        await node.stop()
