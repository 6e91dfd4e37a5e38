"""What a service is: a list of methods, each with its messages, its kind, and its handler.

The same registry serves gRPC (``grpc_asgi``) and the JSON gateway (``gateway``), so a method is
written once. A unary handler takes the request and the ``Call`` and returns the response. Every
streaming handler takes one ``Stream``: it iterates over requests, sends responses, and returns when
the call is over. A handler ends a call with an error by raising ``kvstore.errors.EtcdError``.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import attrs
from google.protobuf.message import Message

from kvstore.errors import Code, EtcdError, Status

RequestT_co = TypeVar("RequestT_co", bound=Message, covariant=True)

Metadata = Mapping[bytes, bytes]
"""Request headers by lower-case name, as bytes."""


class Kind(enum.Enum):
    """The four kinds of gRPC method; the values are the ``grpc_type`` label of etcd's metrics."""

    UNARY = "unary"
    CLIENT_STREAM = "client_stream"
    SERVER_STREAM = "server_stream"
    BIDI_STREAM = "bidi_stream"


class Call(Protocol):
    """What a unary handler may know of its call."""

    @property
    def metadata(self) -> Metadata:
        """The request's headers."""


class Stream(Protocol[RequestT_co]):
    """A streaming call in progress. One task may iterate while another sends."""

    @property
    def metadata(self) -> Metadata:
        """The request's headers."""

    def __aiter__(self) -> AsyncIterator[RequestT_co]:
        """Yield requests until the client half-closes."""

    async def send(self, response: Message | bytes) -> None:
        """Send one response; waits while the client does not take what was sent before.

        Args:
            response: a message, or one already serialized (encoded once for many streams).
        """

    async def send_all(self, responses: Sequence[bytes]) -> None:
        """Send serialized responses, in order and as one piece; waits as ``send`` does."""


class MethodStats:
    """Plain counters of one method; ``kvstore.metrics`` shows them under gRPC's usual names."""

    __slots__ = ("handled", "received", "sent", "started")

    def __init__(self) -> None:
        self.started = 0
        self.received = 0
        self.sent = 0
        self.handled: dict[Code, int] = {}

    def finish(self, code: Code) -> None:
        """Count one finished call."""
        self.handled[code] = self.handled.get(code, 0) + 1


UnaryHandler = Callable[[Any, Call], Awaitable[Message]]
StreamHandler = Callable[[Stream[Any]], Awaitable[None]]


@attrs.frozen(slots=True, eq=False)
class Method:
    """One remote procedure.

    Args:
        service: full service name, as in the request's path.
        name: the method's name.
        request, response: the message classes.
        kind: how many messages flow each way.
        handler: a ``UnaryHandler`` for UNARY, otherwise a ``StreamHandler``.
    """

    service: str
    name: str
    request: type[Message]
    response: type[Message]
    kind: Kind
    handler: Callable[..., Awaitable[Any]]
    stats: MethodStats = attrs.field(factory=MethodStats, init=False)

    @property
    def path(self) -> str:
        """The gRPC request path."""
        return f"/{self.service}/{self.name}"


class Registry:
    """All methods of a server, by gRPC path."""

    def __init__(self, methods: Iterable[Method] = ()) -> None:
        self.methods: dict[str, Method] = {}
        self.services: set[str] = set()
        for method in methods:
            self.add(method)

    def add(self, method: Method) -> None:
        """Register a method.

        Raises:
            ValueError: the path is taken.
        """
        if method.path in self.methods:
            raise ValueError(f"{method.path} is registered twice")
        self.methods[method.path] = method
        self.services.add(method.service)

    def missing(self, path: str) -> Status:
        """Return the status for a path without method, in grpc-go's words."""
        service, slash, name = path.removeprefix("/").rpartition("/")
        if not slash:
            return Status(Code.UNIMPLEMENTED, f'malformed method name: "{path}"')
        if service not in self.services:
            return Status(Code.UNIMPLEMENTED, f"unknown service {service}")
        return Status(Code.UNIMPLEMENTED, f"unknown method {name} for service {service}")


def unimplemented(
    service: str, name: str, request: type[Message], response: type[Message], kind: Kind, why: str
) -> Method:
    """Return a method that is known by name and always answers UNIMPLEMENTED with ``why``."""

    async def refuse(*_: Any) -> Any:
        raise EtcdError(Status(Code.UNIMPLEMENTED, why))

    return Method(service, name, request, response, kind, refuse)
