"""The client's half of sessions: number each command, and send it again until its answer comes.

See ``statemachines.sessions`` for the idea and for the machine's half.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Final

from consensus import (
    Applied,
    ConsensusError,
    Consistency,
    Node,
    OutcomeUnknown,
    ProposalDropped,
    QueueFull,
    Refused,
)
from consensus.node import PROPOSE_TIMEOUT_S, READ_TIMEOUT_S
from statemachines.sessions import (
    ANSWERS_MAX,
    SESSION_TTL_MS,
    encode_close,
    encode_open,
    encode_run,
)

RETRY_S: Final = 0.05
"""Pause before a command is sent again, in seconds."""


class SessionEnded(ConsensusError):
    """The session is over (silent for too long, or closed). The command was certainly not applied.

    Open a new ``Session`` and send the command there.
    """


class Session:
    """A client's session with a node whose machine is a ``SessionMachine``.

    It has ``propose`` and ``query`` as a node has, so a ``Handle`` works on it, but ``propose``
    sends a command again, under its own number, until the outcome is known.

    Args:
        node: the node.
        ttl_ms: how long the session outlives its last command, in milliseconds.
    """

    def __init__(self, node: Node, ttl_ms: int = SESSION_TTL_MS) -> None:
        self._node = node
        self._ttl_ms = ttl_ms
        self._id = 0
        self._sequence = 0
        self._unanswered: dict[int, None] = {}

    async def __aenter__(self) -> Session:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self, timeout_s: float = PROPOSE_TIMEOUT_S) -> None:
        """Open the session. One whose opening stayed unknown ends by itself: trying again is safe.

        Raises:
            ProposalDropped, OutcomeUnknown: no answer in ``timeout_s`` seconds.
            Refused: too many sessions are open, or ``ttl_ms`` is out of range.
        """
        applied, _ = await self._send(encode_open(self._ttl_ms), time.monotonic() + timeout_s)
        if "refused" in applied.result:
            raise Refused(applied.result["refused"])
        self._id = applied.result["session"]

    async def close(self, timeout_s: float = PROPOSE_TIMEOUT_S) -> None:
        """Close the session, so that its place is free at once; otherwise it ends by itself.

        Raises:
            ProposalDropped, OutcomeUnknown: no answer in ``timeout_s`` seconds.
        """
        if self._id:
            session, self._id = self._id, 0
            await self._send(encode_close(session), time.monotonic() + timeout_s)

    async def propose(self, command: bytes, timeout_s: float = PROPOSE_TIMEOUT_S) -> Applied:
        """Run ``command`` exactly once and return what applying it returned.

        Raises:
            SessionEnded: the session is over; the command was certainly not applied.
            OutcomeUnknown: no answer in ``timeout_s`` seconds, or the session ended meanwhile.
            ProposalDropped: it could not be sent in time; certainly not applied.
            QueueFull: too many commands of this session, or bytes of answers, are under way.
        """
        if not self._id:
            raise SessionEnded("the session is not open")
        if len(self._unanswered) >= ANSWERS_MAX:
            raise QueueFull(f"{ANSWERS_MAX} commands of this session are under way")
        self._sequence += 1
        sequence = self._sequence
        self._unanswered[sequence] = None
        message = encode_run(self._id, sequence, next(iter(self._unanswered)), command)
        try:
            applied, uncertain = await self._send(message, time.monotonic() + timeout_s)
        finally:
            del self._unanswered[sequence]
        result = applied.result
        if "answer" in result:
            return applied._replace(result=result["answer"])
        if uncertain:  # a copy sent before this one may have been applied, or may yet be
            raise OutcomeUnknown(f"the last copy was turned away ({result}); others were lost")
        if "session_ended" in result:
            raise SessionEnded(f"session {self._id} has ended; open another")
        raise QueueFull(result["refused"])

    async def query(
        self,
        request: Any,
        consistency: Consistency = Consistency.LINEARIZABLE,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """Ask the node, as ``Node.query`` does."""
        return await self._node.query(request, consistency, timeout_s)

    async def _send(self, message: bytes, deadline: float) -> tuple[Applied, bool]:
        """Propose ``message`` until an answer comes; say also if a copy's fate is unknown."""
        uncertain: OutcomeUnknown | None = None
        while True:
            left_s = deadline - time.monotonic()
            try:
                # Each try gets a part of the time, so that a lost copy leaves time for another.
                applied = await self._node.propose(message, max(left_s / 2, RETRY_S))
            except OutcomeUnknown as error:
                uncertain = error
                failure: OutcomeUnknown | ProposalDropped = error
            except ProposalDropped as error:
                failure = uncertain or error
            else:
                return applied, uncertain is not None
            if time.monotonic() + RETRY_S >= deadline:
                raise failure
            await asyncio.sleep(RETRY_S)
