"""Nodes for plain scripts: the same calls, blocking.

The node and its engine run on an event loop in a thread of their own; each call is handed to that
loop and waited for. A busy script slows the node (Python runs one thread at a time): a server
should use ``Node`` itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar

from consensus.engine import Engine
from consensus.errors import Stopped
from consensus.node import PROPOSE_TIMEOUT_S, READ_TIMEOUT_S, Node
from consensus.statemachine import StateMachine
from consensus.types import Applied, Consistency, NodeStatus

Result = TypeVar("Result")

JOIN_TIMEOUT_S: Final = 10.0


class LoopThread:
    """An event loop in a thread, until ``close``."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the loop and return what it returns, or raise what it raises."""
        if self._loop.is_closed():
            work.close()
            raise Stopped("it was closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End loop and thread. Safe to call twice."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(JOIN_TIMEOUT_S)
        self._loop.close()


class SyncNode:
    """A ``Node`` with blocking calls::

        with SyncNode(Counter(), engine) as node:
            node.propose(Counter.encode("add", amount=5))
            print(node.query(Counter.encode("read")))

    Args:
        machine: the state machine; from now on only the node calls it.
        engine: the engine; started and stopped by the node.
    """

    def __init__(self, machine: StateMachine, engine: Engine) -> None:
        self._thread = LoopThread(f"node {engine.node_id}")
        self._node = Node(machine, engine)

    def start(self) -> None:
        """Start the node.

        Raises:
            StorageError: the data directory cannot be used.
            ConfigError: an address or setting is wrong.
        """
        try:
            self._thread.run(self._node.start())
        except BaseException:
            self._thread.close()
            raise

    def stop(self) -> None:
        """Stop the node and its thread. Safe to call twice."""
        try:
            self._thread.run(self._node.stop())
        except Stopped:
            return
        self._thread.close()

    def __enter__(self) -> SyncNode:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def propose(self, command: bytes, timeout_s: float = PROPOSE_TIMEOUT_S) -> Applied:
        """Replicate a command; see ``Node.propose`` for what it raises."""
        return self._thread.run(self._node.propose(command, timeout_s))

    def query(
        self,
        request: Any,
        consistency: Consistency = Consistency.LINEARIZABLE,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """Answer a read-only request; see ``Node.query`` for what it raises."""
        return self._thread.run(self._node.query(request, consistency, timeout_s))

    def status(self) -> NodeStatus:
        """Return what the node knows about itself and its group."""

        async def ask() -> NodeStatus:
            return self._node.status()

        return self._thread.run(ask())

    def wait_leader(self, timeout_s: float = READ_TIMEOUT_S) -> str:
        """Return the leader's name as soon as one is known.

        Raises:
            TimeoutError: none is known after ``timeout_s`` seconds.
        """

        async def wait() -> str:
            async with asyncio.timeout(timeout_s):
                async for status in self._node.watch_status():
                    if status.leader is not None:
                        return status.leader
            raise Stopped("the node was stopped")

        return self._thread.run(wait())
