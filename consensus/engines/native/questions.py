"""Questions to the leader's own program: ``Engine.ask_leader`` over the members' connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from consensus.errors import ConsensusError, NotLeader, ReadFailed, Stopped
from consensus.transport import wire_pb2 as wire
from consensus.transport.tcp import TcpTransport
from consensus.types import NodeId

ASKS_PENDING_MAX: Final = 10_000
"""Questions to the leader under way at once. More are refused with ``ReadFailed``."""

AnswerHere = Callable[[bytes, float], Awaitable[bytes]]
"""Answers a question (in so many seconds) as the leader, or raises ``NotLeader``."""


class Questions:
    """Questions that this member asks, and those that it is asked.

    Args:
        transport: this member's connections.
        answer_here: answers as the leader.
    """

    def __init__(self, transport: TcpTransport, answer_here: AnswerHere) -> None:
        self._transport = transport
        self._answer_here = answer_here
        self._asked: dict[int, tuple[NodeId, asyncio.Future[bytes]]] = {}
        self._number = 0

    async def ask(self, leader: NodeId, request: bytes) -> bytes:
        """Ask another member, which is believed to lead.

        Raises:
            NotLeader: it does not lead.
            ReadFailed: it could not answer, or too much is being asked.
        """
        if len(self._asked) >= ASKS_PENDING_MAX:
            raise ReadFailed(f"{ASKS_PENDING_MAX} questions to the leader are under way")
        self._number += 1
        number = self._number
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = (leader, future)
        try:
            ask = wire.Ask(number=number, request=request)
            self._transport.send(leader, wire.Envelope(ask=ask))
            self._transport.flush()
            return await future
        finally:
            del self._asked[number]

    async def asked(self, sender: NodeId, ask: wire.Ask, timeout_s: float) -> None:
        """Answer another member."""
        answer = wire.Answer(number=ask.number)
        try:
            answer.response = await self._answer_here(ask.request, timeout_s)
        except NotLeader:
            answer.not_leader = True
        except ConsensusError as error:
            answer.failure = str(error)
        self._transport.send(sender, wire.Envelope(answer=answer))
        self._transport.flush()

    def answered(self, answer: wire.Answer) -> None:
        """The member that was asked has answered."""
        _, future = self._asked.get(answer.number, ("", None))
        if future is None or future.done():
            return
        if answer.not_leader:
            future.set_exception(NotLeader(None))
        elif answer.failure:
            future.set_exception(ReadFailed(answer.failure))
        else:
            future.set_result(answer.response)

    def stop(self) -> None:
        """Nobody is going to answer any more."""
        for _, future in self._asked.values():
            if not future.done():
                future.set_exception(Stopped("the engine was stopped"))

    def leads(self, leader: NodeId | None) -> None:
        """This one leads now, as far as is known: nobody waits for the word of another."""
        for asked, future in self._asked.values():
            if asked != leader and not future.done():
                future.set_exception(NotLeader(leader))
