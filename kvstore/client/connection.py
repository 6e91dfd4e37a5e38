"""Calls over several endpoints: failover, deadlines, authentication, and honest errors.

All calls go to one endpoint, the current one, until it fails; then the next that works becomes
current. What may be tried again follows from what is known:

=============================================  ==============================================
no connection could be opened                  not sent: try the next endpoint, writes too
connected, then ``Unavailable``, repeatable    try the next endpoint, round after round, until
                                               the deadline
connected, then no clear answer to a write     ``OutcomeUnknown``: never sent again
the server answered with another status        ``EtcdError``: nothing was applied
=============================================  ==============================================
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from kvstore.client.endpoints import DEFAULT_ENDPOINT, Dialer, Endpoint, Tls, Unreachable
from kvstore.client.errors import EndpointsUnavailable, OutcomeUnknown
from kvstore.client.rpcs import AUTHENTICATE, Request, Response, Rpc
from kvstore.errors import (
    INVALID_AUTH_TOKEN,
    NO_LEADER,
    REVISION_OF_AUTH_STORE_IS_OLD,
    Code,
    EtcdError,
    Status,
)
from kvstore.pb import etcdserverpb_pb2 as pb

BACKOFF_S: Final = 0.05
BACKOFF_MAX_S: Final = 0.5

_UNKNOWN_OUTCOMES: Final = frozenset(
    {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.UNKNOWN, Code.INTERNAL, Code.CANCELED}
)
"""The codes with which a server, or the network, may end a write that is applied all the same."""

_STALE_TOKEN: Final = frozenset({INVALID_AUTH_TOKEN, REVISION_OF_AUTH_STORE_IS_OLD})


class Connection:
    """A cluster as its clients see it: calls go in, and come back as answers or by-name errors.

    Args:
        endpoints: one or more addresses (see ``Endpoint.parse``); a comma-separated ``str`` works.
        timeout_s: the default deadline of a call, failover included.
        dial_timeout_s: how long opening a connection may take; an attempt has a quarter of it.
        tls: certificates; also makes endpoints without a scheme secure.
        user, password: for a cluster with authentication.

    Raises ``ValueError`` if an endpoint cannot be read.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] = DEFAULT_ENDPOINT,
        *,
        timeout_s: float = 5.0,
        dial_timeout_s: float = 2.0,
        tls: Tls | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        texts = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
        self.endpoints = tuple(Endpoint.parse(text, tls is not None) for text in texts)
        if not self.endpoints:
            raise ValueError("no endpoints: give at least one, for example 127.0.0.1:2379")
        self.timeout_s = timeout_s
        self.dial_timeout_s = dial_timeout_s
        self._dialer = Dialer(tls, dial_timeout_s)
        self._current = 0
        self._user = user
        self._password = password or ""
        self._token: str | None = None

    async def close(self) -> None:
        """Close the connections. Calls in flight end as cancelled."""
        await self._dialer.close()

    async def call(
        self,
        rpc: Rpc[Request, Response],
        request: Request,
        *,
        timeout_s: float | None = None,
        repeatable: bool | None = None,
        endpoint: str | None = None,
    ) -> Response:
        """Make one call with one answer.

        Args:
            timeout_s: deadline of the whole call; the client's default if None.
            repeatable: overrides the call's own answer to "may it be sent twice?".
            endpoint: only this one is asked; one of the client's, or any other address.

        Raises ``EndpointsUnavailable``, ``OutcomeUnknown`` or ``EtcdError`` (module docstring).
        """
        again = rpc.repeatable if repeatable is None else repeatable
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        deadline = _now() + limit_s
        backoff_s = BACKOFF_S
        while True:
            failures: dict[str, str] = {}
            refusal: EtcdError | None = None
            for candidate in self._candidates(endpoint):
                try:
                    return await self._once(rpc, request, candidate, again, deadline, limit_s)
                except Unreachable as error:
                    failures[candidate.text] = str(error)
                except EtcdError as error:
                    if not again or error.status.code is not Code.UNAVAILABLE:
                        raise
                    failures[candidate.text] = error.status.message
                    refusal = error
            if refusal is None:
                raise EndpointsUnavailable(failures)
            if _now() + backoff_s > deadline:
                raise refusal if _said_by_etcd(refusal.status) else EndpointsUnavailable(failures)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    async def _once(
        self,
        rpc: Rpc[Request, Response],
        request: Request,
        endpoint: Endpoint,
        repeatable: bool,
        deadline: float,
        limit_s: float,
    ) -> Response:
        """Call ``endpoint`` once; a second time with a new token, which nothing was done under."""
        for last in (False, True):
            channel = await self._dialer.connect(endpoint, max(deadline - _now(), 0.0))
            metadata = await self._metadata(channel, deadline)
            try:
                answer = await _ask(channel, rpc, request, max(deadline - _now(), 0.001), metadata)
            except grpc.aio.AioRpcError as error:
                status = status_of(error)
                if status in _STALE_TOKEN and self._user is not None and not last:
                    self._token = None
                    continue
                raise call_error(status, endpoint, repeatable, limit_s) from None
            self._note_current(endpoint)
            return answer
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def stream(
        self,
        rpc: Rpc[Request, Response],
        *,
        metadata: Sequence[tuple[str, str]] = (),
        endpoint: str | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Any]:
        """Open a stream both ways on the first endpoint that can be reached.

        Yields grpc's own call object (``write``, ``read``); it ends when the block is left. Its
        failures pass through ``stream_error``. Raises ``EndpointsUnavailable``.
        """
        deadline = _now() + (self.timeout_s if timeout_s is None else timeout_s)
        channel, chosen = await self._first_reachable(endpoint, deadline)
        call = channel.stream_stream(
            rpc.path,
            request_serializer=rpc.request.SerializeToString,
            response_deserializer=rpc.response.FromString,
        )(metadata=(*await self._metadata(channel, deadline), *metadata), timeout=timeout_s)
        try:
            yield call
        except grpc.aio.AioRpcError as error:
            status = status_of(error)
            if status in _STALE_TOKEN:
                self._token = None
            if status.code is Code.UNAVAILABLE:
                self._leave(chosen)
            raise call_error(status, chosen, True, timeout_s or 0.0) from None
        finally:
            call.cancel()

    async def download(
        self, rpc: Rpc[Request, Response], request: Request, *, endpoint: str | None = None
    ) -> AsyncIterator[Response]:
        """Make a call that is answered by a stream. No deadline: it lasts as long as it flows."""
        channel, chosen = await self._first_reachable(endpoint, _now() + self.timeout_s)
        call = channel.unary_stream(
            rpc.path,
            request_serializer=rpc.request.SerializeToString,
            response_deserializer=rpc.response.FromString,
        )(request, metadata=await self._metadata(channel, _now() + self.timeout_s))
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise call_error(status_of(error), chosen, True, 0.0) from None
        finally:
            call.cancel()

    async def _first_reachable(
        self, endpoint: str | None, deadline: float
    ) -> tuple[grpc.aio.Channel, Endpoint]:
        failures: dict[str, str] = {}
        for candidate in self._candidates(endpoint):
            try:
                channel = await self._dialer.connect(candidate, max(deadline - _now(), 0.0))
            except Unreachable as error:
                failures[candidate.text] = str(error)
            else:
                self._note_current(candidate)
                return channel, candidate
        raise EndpointsUnavailable(failures)

    def _candidates(self, endpoint: str | None) -> list[Endpoint]:
        if endpoint is None:
            return [*self.endpoints[self._current :], *self.endpoints[: self._current]]
        known = [each for each in self.endpoints if each.text == endpoint]
        return known or [Endpoint.parse(endpoint, self.endpoints[0].secure)]

    def _note_current(self, endpoint: Endpoint) -> None:
        if endpoint in self.endpoints:
            self._current = self.endpoints.index(endpoint)

    def _leave(self, endpoint: Endpoint) -> None:
        if endpoint == self.endpoints[self._current]:
            self._current = (self._current + 1) % len(self.endpoints)

    async def _metadata(
        self, channel: grpc.aio.Channel, deadline: float
    ) -> tuple[tuple[str, str], ...]:
        if self._user is None:
            return ()
        if self._token is None:
            request = pb.AuthenticateRequest(name=self._user, password=self._password)
            try:
                answer = await _ask(
                    channel, AUTHENTICATE, request, max(deadline - _now(), 0.001), ()
                )
            except grpc.aio.AioRpcError as error:
                raise EtcdError(status_of(error)) from None
            self._token = answer.token
        return (("token", self._token),)


async def _ask(
    channel: grpc.aio.Channel,
    rpc: Rpc[Request, Response],
    request: Request,
    timeout_s: float,
    metadata: Sequence[tuple[str, str]],
) -> Response:
    """Send one request, return its answer. Raises ``grpc.aio.AioRpcError``."""
    codecs = {
        "request_serializer": rpc.request.SerializeToString,
        "response_deserializer": rpc.response.FromString,
    }
    answer: Response
    if not rpc.streaming:
        answer = await channel.unary_unary(rpc.path, **codecs)(
            request, timeout=timeout_s, metadata=metadata
        )
        return answer
    call = channel.stream_stream(rpc.path, **codecs)(timeout=timeout_s, metadata=metadata)
    try:
        await call.write(request)
        await call.done_writing()
        answer = await call.read()
        if answer is grpc.aio.EOF:
            raise EtcdError(Status(Code.UNAVAILABLE, "the stream ended without an answer"))
        return answer
    finally:
        call.cancel()


def status_of(error: grpc.aio.AioRpcError) -> Status:
    """Return the status that ended a call."""
    return Status(Code(error.code().value[0]), error.details() or error.code().name)


def call_error(status: Status, endpoint: Endpoint, repeatable: bool, limit_s: float) -> EtcdError:
    """Return the error that a call which ended with ``status`` raises."""
    if not _said_by_etcd(status):
        if status.code is Code.DEADLINE_EXCEEDED:
            message = f"no answer from {endpoint.text} within {limit_s:.3g} s"
        elif status.code is Code.UNIMPLEMENTED:
            message = f"{endpoint.text} does not offer this call: {status.message}"
        else:
            message = f"{endpoint.text}: {status.message}"
        status = Status(status.code, message)
    if repeatable or status.code not in _UNKNOWN_OUTCOMES or status == NO_LEADER:
        return EtcdError(status)
    return OutcomeUnknown(status)


def _said_by_etcd(status: Status) -> bool:
    return status.message.startswith(("etcdserver: ", "auth: ", "election: "))


def _now() -> float:
    return asyncio.get_running_loop().time()
