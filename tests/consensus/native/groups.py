"""Three nodes on native engines in one process: started, stopped, damaged one by one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from consensus.engines.native import NativeEngine
from consensus.errors import OutcomeUnknown
from consensus.node import Node
from consensus.statemachine import StateMachine
from consensus.testing.engines import propose
from consensus.testing.machines import RecordingMachine
from tests.interop import free_ports
from tests.waiting import wait_until

NAMES = ("ann", "bob", "cas")
PATIENCE_S = 30.0


class Group:
    """Members by name, on loopback.

    Args:
        directory: where each has its data.
        machine: makes a member's state machine.
        settings: further arguments of each engine.
    """

    def __init__(
        self,
        directory: Path,
        machine: Callable[[str], StateMachine] = lambda name: RecordingMachine(),
        **settings: Any,
    ) -> None:
        self.directory = directory
        self.machine = machine
        self.settings = settings
        ports = free_ports(len(NAMES))
        self.addresses = {
            name: f"127.0.0.1:{port}" for name, port in zip(NAMES, ports, strict=True)
        }
        self.nodes: dict[str, Node] = {}
        self.proposed = 0

    def engine(self, name: str) -> NativeEngine:
        """The engine of a running member."""
        engine = self.nodes[name].engine
        assert isinstance(engine, NativeEngine)
        return engine

    async def start(self, name: str) -> None:
        """Start a member."""
        settings = {"election_timeout_ms": 300, "heartbeat_interval_ms": 50, **self.settings}
        engine = NativeEngine(name, self.addresses, self.directory / name, **settings)
        node = Node(self.machine(name), engine)
        await node.start()
        self.nodes[name] = node

    async def stop(self, name: str) -> None:
        """Stop a member."""
        node = self.nodes.pop(name, None)
        if node is not None:
            await node.stop()

    def leader(self) -> str:
        """Who leads, if every running member says so; empty otherwise."""
        seen = {node.status().engine.leader for node in self.nodes.values()}
        leader = seen.pop() if len(seen) == 1 else None
        return leader if leader in self.nodes else ""

    async def led(self) -> str:
        """Wait until every running member sees one leader among them, and return it."""
        await wait_until(lambda: bool(self.leader()), PATIENCE_S, "a leader that all see")
        return self.leader()

    async def follower(self) -> str:
        """Return a member that does not lead."""
        leader = await self.led()
        return next(name for name in self.nodes if name != leader)

    async def propose(self, count: int, size: int = 0) -> None:
        """Have commands applied through the leader, at least once each, one after the other."""
        for _ in range(count):
            self.proposed += 1
            command = f"c{self.proposed}".ljust(size, ".").encode()
            while True:
                leader = await self.led()
                with contextlib.suppress(OutcomeUnknown):
                    await propose(self.nodes[leader], command)
                    break

    async def caught_up(self) -> None:
        """Wait until every running member has applied the same, in the same state."""

        def alike() -> bool:
            applied = {node.status().applied_index for node in self.nodes.values()}
            return len(applied) == 1

        await wait_until(alike, PATIENCE_S, "all have applied the same")
        assert len({node.machine.state_hash() for node in self.nodes.values()}) == 1


@asynccontextmanager
async def group(directory: Path, **settings: Any) -> AsyncIterator[Group]:
    """Three members with a leader."""
    async with started(Group(directory, **settings)) as running:
        yield running


@asynccontextmanager
async def started(running: Group) -> AsyncIterator[Group]:
    """Start every member of a group, wait for a leader, and stop them all in the end."""
    try:
        for name in NAMES:
            await running.start(name)
        await running.led()
        yield running
    finally:
        for name in list(running.nodes):
            await running.stop(name)
