"""What is sent and what comes back: operations, answers, and the table of methods."""

from __future__ import annotations

import enum
from typing import Any, Final

import attrs
from google.protobuf import message_factory, text_format
from google.protobuf.message import Message

from kvstore.pb import etcdserverpb_pb2

SERVICES: Final = ("KV", "Watch", "Lease", "Maintenance", "Cluster")
WATCH: Final = "Watch.Watch"
KEEPALIVE: Final = "Lease.LeaseKeepAlive"
CLOSE: Final = "Watch.close"
"""The one operation that is no request: the client ends a watch stream."""

CHOSEN_LEASE: Final = 1 << 50
"""Lease ids from here on stand for "the n-th lease whose id the server chose itself"."""

REPORT_CHARS_MAX: Final = 3000


@attrs.frozen(slots=True)
class Method:
    """One RPC: its path and the classes of its request and answer."""

    path: str
    request: type[Message]
    response: type[Message]


def _methods() -> dict[str, Method]:
    table: dict[str, Method] = {}
    for service in SERVICES:
        descriptor = etcdserverpb_pb2.DESCRIPTOR.services_by_name[service]
        for method in descriptor.methods:
            table[f"{service}.{method.name}"] = Method(
                f"/etcdserverpb.{service}/{method.name}",
                message_factory.GetMessageClass(method.input_type),
                message_factory.GetMessageClass(method.output_type),
            )
    return table


METHODS: Final = _methods()


class Order(enum.Enum):
    """Whether an operation may run beside others."""

    ALONE = "alone"
    """It may change the store, or what it sees depends on when exactly it runs."""
    TOGETHER = "together"
    """It changes nothing: any number of such may be in flight at once."""


@attrs.frozen(slots=True)
class Operation:
    """One step of the sequence.

    Args:
        number: place in the sequence, from 0.
        method: key of ``METHODS``, or ``CLOSE``.
        request: the message; ``WatchRequest`` for watches, None for ``CLOSE``.
        member: which member of a cluster it goes to.
        order: whether it may run beside others.
        local: the member answers from its own state, so it must have caught up first.
        revision: the store's revision before it.
        stream: which watch stream it is for.
        drains: "" none, "stream" or "all": whose watchers must have every event before it is sent.
    """

    number: int
    method: str
    request: Any
    member: int
    order: Order
    local: bool
    revision: int
    stream: int = -1
    drains: str = ""

    def text(self) -> str:
        """One line for a report."""
        where = f" stream {self.stream}" if self.stream >= 0 else ""
        return f"#{self.number} {self.method}{where} at member {self.member}: {show(self.request)}"


@attrs.frozen(slots=True)
class Answer:
    """How a call ended: gRPC status and text, and the message if there was one."""

    code: str
    details: str = ""
    message: Any = None

    def text(self) -> str:
        """One line for a report."""
        if self.code != "OK":
            return f"{self.code}: {self.details}"
        return f"OK {show(self.message)}"


def show(message: Message | None) -> str:
    """A message as one line, cut at ``REPORT_CHARS_MAX``."""
    if message is None:
        return "(no message)"
    line = text_format.MessageToString(message, as_one_line=True)
    if len(line) > REPORT_CHARS_MAX:
        return f"{line[:REPORT_CHARS_MAX]}... ({len(line)} characters)"
    return f"{{{line}}}"
