"""The forms of the client API: what ``consensus.server`` and ``consensus.client`` say in JSON.

``POST /propose`` and ``POST /query`` take ``{"command": <base64>}``, or for machines whose methods
are called ``{"method": "add", "args": {"amount": 5}}``. Every answer has ``outcome``, by name;
``applied`` also has ``term``, ``index``, ``result``; ``answered`` has ``result``; all others have
``message``. ``GET /status`` describes the member, ``GET /hash`` hashes its state (for tests).
"""

from __future__ import annotations

import base64
import binascii
import json
from http import HTTPStatus
from typing import Any, Final

from consensus.errors import (
    ConsensusError,
    Halted,
    NotLeader,
    OutcomeUnknown,
    ProposalDropped,
    QueueFull,
    ReadFailed,
    Stopped,
)
from consensus.methods import encode_call

REQUEST_BYTES_MAX: Final = 24 * 1024 * 1024
"""Largest request body; base64 makes the engine's largest command a third larger."""

APPLIED: Final = "applied"
ANSWERED: Final = "answered"
BAD_REQUEST: Final = "bad_request"

_ERRORS: Final[tuple[tuple[type[ConsensusError], str, HTTPStatus], ...]] = (
    (NotLeader, "not_leader", HTTPStatus.SERVICE_UNAVAILABLE),
    (QueueFull, "queue_full", HTTPStatus.TOO_MANY_REQUESTS),
    (ProposalDropped, "dropped", HTTPStatus.SERVICE_UNAVAILABLE),
    (OutcomeUnknown, "unknown", HTTPStatus.GATEWAY_TIMEOUT),
    (ReadFailed, "read_failed", HTTPStatus.SERVICE_UNAVAILABLE),
    (Halted, "halted", HTTPStatus.SERVICE_UNAVAILABLE),
    (Stopped, "stopped", HTTPStatus.SERVICE_UNAVAILABLE),
)


class BadRequest(ConsensusError):
    """A request that no server will ever take. The text says what is wrong with it."""


def encode_error(error: ConsensusError) -> tuple[HTTPStatus, dict[str, Any]]:
    """Return the answer that stands for an error."""
    for kind, name, status in _ERRORS:
        if isinstance(error, kind):
            answer: dict[str, Any] = {"outcome": name, "message": str(error)}
            if isinstance(error, NotLeader):
                answer["leader"] = error.leader
            return status, answer
    return HTTPStatus.BAD_REQUEST, {"outcome": BAD_REQUEST, "message": str(error)}


def decode_error(answer: dict[str, Any]) -> ConsensusError:
    """Return the error that an answer stands for; an outcome nobody knows is unknown."""
    name, message = str(answer.get("outcome")), str(answer.get("message", ""))
    if name == "not_leader":
        return NotLeader(answer.get("leader"), message)
    for kind, known, _ in _ERRORS:
        if name == known:
            return kind(message)
    if name == BAD_REQUEST:
        return BadRequest(message)
    return OutcomeUnknown(f"the server answered {answer!r}")


def encode_result(result: Any) -> Any:
    """Return a result as JSON can say it: bytes as ``{"base64": ...}``, other objects as text."""
    if isinstance(result, bytes | bytearray):
        return {"base64": base64.b64encode(result).decode()}
    try:
        json.dumps(result)
    except (TypeError, ValueError):
        return {"text": repr(result)}
    return result


def decode_result(result: Any) -> Any:
    """Return what ``encode_result`` was given, where JSON can say it."""
    if isinstance(result, dict) and result.keys() == {"base64"}:
        return base64.b64decode(result["base64"])
    return result


def encode_command(command: bytes) -> dict[str, Any]:
    """Return the request that carries a command or query of bytes."""
    return {"command": base64.b64encode(command).decode()}


def decode_command(request: Any) -> bytes:
    """Return the command's bytes, from either form.

    Raises:
        BadRequest: the request has neither form.
    """
    if not isinstance(request, dict):
        raise BadRequest("the body must be a JSON object")
    if isinstance(request.get("command"), str):
        try:
            return base64.b64decode(request["command"], validate=True)
        except binascii.Error as error:
            raise BadRequest(f"'command' is not base64: {error}") from None
    method, arguments = request.get("method"), request.get("args", {})
    if isinstance(method, str) and isinstance(arguments, dict):
        return encode_call(method, arguments)
    raise BadRequest("the body must have 'command' (base64), or 'method' and 'args'")
