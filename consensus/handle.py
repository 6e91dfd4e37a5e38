"""Calling a replicated ``MethodMachine`` as if it were an object at hand.

A handle turns ``await handle.add(amount=5)`` into a proposal and ``await handle.read()`` into a
query, by what the class says each method is, and gives back the result. What the machine refused is
raised; a command that was certainly not applied (no leader yet, queue full) is sent again until its
time is up; one whose outcome is unknown is never sent again.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from consensus.errors import ProposalDropped
from consensus.methods import MethodMachine, Refused
from consensus.node import PROPOSE_TIMEOUT_S
from consensus.types import Applied, Consistency

RETRY_S: Final = 0.02
"""Pause before a command that was certainly not applied is sent again, in seconds."""


class Caller(Protocol):
    """What a handle calls: a ``Node``, or something around one, such as a session."""

    async def propose(self, command: bytes, timeout_s: float = ...) -> Applied:
        """Replicate a command."""

    async def query(
        self, request: Any, consistency: Consistency = ..., timeout_s: float = ...
    ) -> Any:
        """Answer a read-only request."""


class Handle:
    """The methods of a machine, to be awaited.

    Example::

        counter = Handle(node, Counter)
        await counter.add(amount=5)
        await counter.read()

    Args:
        caller: a node (or session) whose machine is a ``machine``.
        machine: the machine's class.
        consistency: what queries may see.
        timeout_s: how long one call may take, tries included, in seconds.

    Every method raises what ``Node.propose`` or ``Node.query`` raises, and besides:

    Raises:
        AttributeError: the machine has no such command or query.
        TypeError: the arguments do not fit the method, or JSON cannot say them.
        Refused: the machine refused; the text says why.
    """

    def __init__(
        self,
        caller: Caller,
        machine: type[MethodMachine],
        *,
        consistency: Consistency = Consistency.LINEARIZABLE,
        timeout_s: float = PROPOSE_TIMEOUT_S,
    ) -> None:
        self._caller = caller
        self._machine = machine
        self._consistency = consistency
        self._timeout_s = timeout_s

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        kind = self._machine.kind(method)
        if kind is None:
            raise AttributeError(f"{self._machine.__name__} has no command or query {method!r}")
        return functools.partial(self._query if kind == "query" else self._propose, method)

    async def _query(self, method: str, /, **arguments: Any) -> Any:
        request = self._machine.encode(method, **arguments)
        return _accepted(await self._caller.query(request, self._consistency, self._timeout_s))

    async def _propose(self, method: str, /, **arguments: Any) -> Any:
        command = self._machine.encode(method, **arguments)
        deadline = time.monotonic() + self._timeout_s
        left_s = self._timeout_s
        while True:
            try:
                return _accepted((await self._caller.propose(command, left_s)).result)
            except ProposalDropped:
                left_s = deadline - time.monotonic() - RETRY_S
                if left_s <= 0:
                    raise
            await asyncio.sleep(RETRY_S)


def _accepted(result: Any) -> Any:
    if isinstance(result, dict) and result.keys() == {"refused"}:
        raise Refused(result["refused"])
    return result
