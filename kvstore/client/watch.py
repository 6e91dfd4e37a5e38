"""Watching keys: every change, in order, once, across lost connections.

A ``Watch`` remembers the next revision that it has not seen: after the events of a revision, or a
progress notice, the one behind it. When its stream breaks it opens another, on the next endpoint
that answers, from exactly there, so that no event is lost or repeated. If that part of the history
has been compacted meanwhile, ``Compacted`` says so: read the current state and watch from there.

The stream asks that its member has a leader; a member that is cut off ends it, and the watch moves
on to another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

import attrs
import grpc

from kvstore.client import rpcs
from kvstore.client.connection import BACKOFF_MAX_S, BACKOFF_S, Connection
from kvstore.client.errors import Compacted, WatchCanceled
from kvstore.client.records import Event, EventType, Header, Text, key_range
from kvstore.errors import Code, EtcdError
from kvstore.pb import etcdserverpb_pb2 as pb

REQUIRE_LEADER: Final = (("hasleader", "true"),)

_RECONNECT: Final = frozenset({Code.UNAVAILABLE, Code.INTERNAL, Code.CANCELED, Code.UNKNOWN})


@attrs.frozen(slots=True)
class WatchBatch:
    """One answer of a watch. Without events it is a progress notice.

    After a notice nothing at or below ``header.revision`` will come any more.
    """

    header: Header
    events: tuple[Event, ...]


class Watch:
    """A watch as an async iterator of events. Made by ``AsyncClient.watch``.

    Entering it as a context manager waits until the server has it, so that every later change is
    seen; leaving the block ends it. Iterating without the block opens it at the first step.
    """

    def __init__(
        self,
        connection: Connection,
        request: pb.WatchCreateRequest,
        reconnect_timeout_s: float | None = None,
    ) -> None:
        self._connection = connection
        self._request = request
        self._reconnect_timeout_s = reconnect_timeout_s
        self._next_revision = request.start_revision
        self._messages = self._receive()
        self._call: Any = None
        self._created = False
        self._on_stream = False
        self._closed = False
        self._pending: list[Event] = []

    @property
    def next_revision(self) -> int:
        """The first revision that this watch has not delivered yet; 0 before it is created."""
        return self._next_revision

    async def __aenter__(self) -> Self:
        while not self._created:
            await anext(self._messages)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._pending:
            message = await anext(self._messages)
            self._pending.extend(reversed([Event.of(event) for event in message.events]))
        return self._pending.pop()

    async def batches(self) -> AsyncIterator[WatchBatch]:
        """Iterate whole answers, progress notices too: all events of one revision together."""
        async for message in self.messages():
            if not message.created:
                yield WatchBatch(
                    Header.of(message.header), tuple(Event.of(event) for event in message.events)
                )

    async def messages(self) -> AsyncIterator[pb.WatchResponse]:
        """Iterate the server's own messages, the first of which says that the watch is created."""
        async for message in self._messages:
            yield message

    async def request_progress(self) -> None:
        """Ask for a progress notice; it comes as a batch without events.

        Nothing is asked while there is no stream, or the server has not created the watch on it
        yet: a notice about a stream without watches would be taken for progress of this one.
        """
        if self._call is not None and self._on_stream:
            await self._call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def close(self) -> None:
        """End the watch and what iterates it, normally. Closing twice is allowed."""
        self._closed = True
        self._pending.clear()
        if self._call is not None:
            self._call.cancel()
        with contextlib.suppress(RuntimeError):  # another task reads: it sees the call's end
            await self._messages.aclose()

    async def _receive(self) -> AsyncGenerator[pb.WatchResponse, None]:
        """Yield messages for ever, whatever happens to connections."""
        backoff_s = BACKOFF_S
        loop = asyncio.get_running_loop()
        lost_at: float | None = None
        while not self._closed:
            try:
                async with contextlib.aclosing(self._one_stream()) as messages:
                    async for message in messages:
                        backoff_s, lost_at = BACKOFF_S, None
                        yield message
            except EtcdError as error:
                if not self._may_reconnect(error):
                    raise
                lost_at = loop.time() if lost_at is None else lost_at
                limit_s = self._reconnect_timeout_s
                if limit_s is not None and loop.time() - lost_at > limit_s:
                    raise
            if not self._closed:
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    def _may_reconnect(self, error: EtcdError) -> bool:
        if isinstance(error, Compacted | WatchCanceled):
            return False
        return self._created and error.status.code in _RECONNECT

    async def _one_stream(self) -> AsyncGenerator[pb.WatchResponse, None]:
        """Yield the messages of one stream until it ends or breaks."""
        request = pb.WatchCreateRequest()
        request.CopyFrom(self._request)
        request.start_revision = self._next_revision
        try:
            async with self._connection.stream(rpcs.WATCH, metadata=REQUIRE_LEADER) as call:
                self._call = call
                if self._closed:
                    return
                await call.write(pb.WatchRequest(create_request=request))
                while (message := await call.read()) is not grpc.aio.EOF:
                    first = self._take(message)
                    if not message.created or first:
                        yield message
        except asyncio.CancelledError:
            if not self._closed:
                raise
        finally:
            self._call = None
            self._on_stream = False

    def _take(self, message: pb.WatchResponse) -> bool:
        """Move ``next_revision`` on. Returns True at the first answer of this watch."""
        if message.canceled:
            if message.compact_revision:
                raise Compacted(message.compact_revision)
            raise WatchCanceled(message.cancel_reason or "no reason given")
        first = message.created and not self._created
        if message.created:
            self._created = self._on_stream = True
            if self._next_revision == 0:
                self._next_revision = message.header.revision + 1
        elif message.events:
            behind = message.events[-1].kv.mod_revision + 1
            self._next_revision = max(self._next_revision, behind)
        else:
            self._next_revision = max(self._next_revision, message.header.revision + 1)
        return first


class WatchCalls:
    """The call of the Watch service."""

    connection: Connection

    def watch(
        self,
        key: Text,
        range_end: Text | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        start_revision: int = 0,
        prev_kv: bool = False,
        progress_notify: bool = False,
        skip: Sequence[EventType] = (),
        reconnect_timeout_s: float | None = None,
    ) -> Watch:
        """Watch ``key``, ``[key, range_end)``, a prefix, or everything from ``key`` on.

        Args:
            start_revision: the first revision to deliver; 0 is what comes from now on. Older
                revisions are delivered from history.
            prev_kv: events carry the key as it was before.
            progress_notify: quiet watches get a notice now and then (see ``Watch.batches``).
            skip: event types to leave out.
            reconnect_timeout_s: give up if no endpoint answers for so long; None never does.

        Iterating raises ``Compacted`` with ``compact_revision``, ``WatchCanceled``, or
        ``EndpointsUnavailable`` if it cannot even begin.

        >>> async with client.watch("/config/", prefix=True) as watch:
        ...     async for event in watch:
        ...         print(event.type.name, event.kv.key, event.kv.value)
        """
        start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
        request = pb.WatchCreateRequest(
            key=start,
            range_end=end,
            start_revision=start_revision,
            prev_kv=prev_kv,
            progress_notify=progress_notify,
            filters=[
                pb.WatchCreateRequest.NOPUT
                if each is EventType.PUT
                else pb.WatchCreateRequest.NODELETE
                for each in skip
            ],
        )
        return Watch(self.connection, request, reconnect_timeout_s)
