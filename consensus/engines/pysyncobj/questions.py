"""Asking the leader: request and answer over PySyncObj's own links.

The leader confirms that it leads before it answers: a barrier commits in its term. All questions
that arrive while one barrier is under way share the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from consensus.engines.pysyncobj.raft import PeerNode
from consensus.errors import ConsensusError, NotLeader, ReadFailed

ASK: Final = "raftyard_ask"
ANSWER: Final = "raftyard_answer"

QUESTIONS_MAX: Final = 10_000
"""Questions of this member that wait for an answer, and questions of others that it works on."""

Message = dict[str, Any]


class Links(Protocol):
    """What the questions need from the engine."""

    def leader(self) -> PeerNode | None:
        """Who leads, as far as known."""

    def leads(self) -> bool:
        """Whether this member leads."""

    def term(self) -> int:
        """The current term."""

    def send(self, node: PeerNode, message: Message) -> bool:
        """Send to a peer; False when the link is down."""

    async def barrier(self, timeout_s: float) -> int:
        """Commit a barrier and wait until it has been delivered here."""


class Questions:
    """Both sides of ``ask_leader``.

    Args:
        links: the engine's side.
        answer: the host's answer, once leadership is confirmed.
        confirm_timeout_s: how long, in seconds, a leader tries to confirm that it leads.
    """

    def __init__(
        self,
        links: Links,
        answer: Callable[[bytes], Awaitable[bytes]],
        confirm_timeout_s: float,
    ) -> None:
        self._links = links
        self._answer = answer
        self._confirm_timeout_s = confirm_timeout_s
        self._number = 0
        self._waiting: dict[int, tuple[PeerNode, asyncio.Future[bytes]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_confirmation: asyncio.Future[None] | None = None
        self._confirming: asyncio.Task[None] | None = None

    async def ask(self, request: bytes, timeout_s: float) -> bytes:
        """Return the leader's answer.

        Raises:
            NotLeader: no leader is known, or the one asked no longer leads.
            ReadFailed: no answer in ``timeout_s`` seconds, or the link was lost.
        """
        leader = self._links.leader()
        if leader is None:
            raise NotLeader(None)
        try:
            async with asyncio.timeout(timeout_s):
                if self._links.leads():
                    return await self._answer_as_leader(request)
                return await self._ask_peer(leader, request)
        except TimeoutError:
            raise ReadFailed(f"the leader did not answer in {timeout_s:g} s") from None

    def message(self, node: PeerNode, message: Message) -> None:
        """Take a peer's question or answer."""
        if message["type"] == ASK:
            if len(self._tasks) >= QUESTIONS_MAX:
                self._reply(node, message["number"], "read_failed", b"too many questions")
                return
            task = asyncio.get_running_loop().create_task(self._serve(node, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        waiting = self._waiting.get(message["number"])
        if waiting is None or waiting[1].done():
            return
        outcome, data = message["outcome"], message["data"]
        if outcome == "answer":
            waiting[1].set_result(data)
        elif outcome == "not_leader":
            waiting[1].set_exception(NotLeader(None, data.decode()))
        else:
            waiting[1].set_exception(ReadFailed(data.decode()))

    def link_down(self, node: PeerNode) -> None:
        """Answers from ``node`` will not come any more."""
        for asked, future in self._waiting.values():
            if asked == node and not future.done():
                future.set_exception(ReadFailed("the link to the leader was lost"))

    async def close(self) -> None:
        """End every task."""
        tasks = [*self._tasks]
        if self._confirming is not None:
            tasks.append(self._confirming)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(ReadFailed("the engine was stopped"))

    # -- inside -------------------------------------------------------------------------------

    async def _ask_peer(self, leader: PeerNode, request: bytes) -> bytes:
        if len(self._waiting) >= QUESTIONS_MAX:
            raise ReadFailed(f"{QUESTIONS_MAX} questions to the leader are under way")
        self._number += 1
        number = self._number
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (leader, future)
        try:
            if not self._links.send(leader, {"type": ASK, "number": number, "data": request}):
                raise NotLeader(None, f"no link to the leader {leader.name}")
            return await future
        finally:
            del self._waiting[number]
            if future.done() and not future.cancelled():
                future.exception()

    async def _serve(self, node: PeerNode, message: Message) -> None:
        outcome, data = "answer", b""
        try:
            data = await self._answer_as_leader(message["data"])
        except NotLeader as error:
            outcome, data = "not_leader", str(error).encode()
        except ConsensusError as error:
            outcome, data = "read_failed", str(error).encode()
        self._reply(node, message["number"], outcome, data)

    def _reply(self, node: PeerNode, number: int, outcome: str, data: bytes) -> None:
        self._links.send(node, {"type": ANSWER, "number": number, "outcome": outcome, "data": data})

    async def _answer_as_leader(self, request: bytes) -> bytes:
        await self._confirm()
        return await self._answer(request)

    async def _confirm(self) -> None:
        """Return once this member has proved that it leads, in a proof begun after the call."""
        if not self._links.leads():
            leader = self._links.leader()
            raise NotLeader(leader.name if leader else None)
        loop = asyncio.get_running_loop()
        if self._next_confirmation is None:
            self._next_confirmation = loop.create_future()
            if self._confirming is None:
                self._confirming = loop.create_task(self._run_confirmations())
        await asyncio.shield(self._next_confirmation)

    async def _run_confirmations(self) -> None:
        try:
            while (batch := self._next_confirmation) is not None:
                self._next_confirmation = None
                term = self._links.term()
                try:
                    await self._links.barrier(self._confirm_timeout_s)
                    if not self._links.leads() or self._links.term() != term:
                        raise NotLeader(None)
                except ConsensusError as error:
                    if not batch.done():
                        batch.set_exception(error)
                        batch.exception()  # seen: all who asked may have given up
                else:
                    if not batch.done():
                        batch.set_result(None)
        finally:
            self._confirming = None
            if (left := self._next_confirmation) is not None and not left.done():
                self._next_confirmation = None
                left.set_exception(ReadFailed("the engine was stopped"))
                left.exception()
