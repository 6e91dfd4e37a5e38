"""What the examples share: three members of one group, for as long as a story takes.

They live in one process here, to keep the stories short; what each does with its own node is what
it would do on a machine of its own. ``--engine native`` (the default) and ``--engine pysyncobj``
replicate over real sockets on loopback with a log on disk; ``--engine local`` commits in memory at
once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog

from consensus import ConsensusError, Engine, Node, Refused, StateMachine
from consensus.engines.local import LocalEngine, LocalLog
from consensus.engines.native import NativeEngine
from consensus.engines.pysyncobj import PySyncObjEngine
from statemachines import TimedMachine, tick_while_leading

NAMES = ("n1", "n2", "n3")


def make_engines(kind: str, directory: Path) -> list[Engine]:
    """Return three engines of one group."""
    if kind == "local":
        shared = LocalLog()
        return [LocalEngine(name, shared) for name in NAMES]
    with contextlib.ExitStack() as stack:  # three ports that are free now
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in NAMES]
        ports = [each.getsockname()[1] for each in sockets]
    members = {name: f"127.0.0.1:{port}" for name, port in zip(NAMES, ports, strict=True)}
    make = NativeEngine if kind == "native" else PySyncObjEngine
    return [make(name, members, directory / name) for name in NAMES]


@contextlib.asynccontextmanager
async def three_nodes(machine: type[StateMachine], kind: str) -> AsyncIterator[list[Node]]:
    """Start three nodes, each with a machine of its own, and stop them in the end."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nodes = [Node(machine(), engine) for engine in make_engines(kind, directory)]
        for node in nodes:
            await stack.enter_async_context(node)
        tickers = [
            asyncio.create_task(tick_while_leading(node, machine))
            for node in nodes
            if issubclass(machine, TimedMachine)
        ]
        try:
            yield nodes
        finally:
            for ticker in tickers:
                ticker.cancel()
            await asyncio.gather(*tickers, return_exceptions=True)


def run(machine: type[StateMachine], story: Callable[[list[Node]], Awaitable[None]]) -> None:
    """Tell ``story`` with three nodes; ``--engine`` says how they replicate."""
    parser = argparse.ArgumentParser(description=story.__doc__)
    parser.add_argument("--engine", choices=("native", "pysyncobj", "local"), default="native")
    kind = parser.parse_args().engine
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

    async def told() -> None:
        async with three_nodes(machine, kind) as nodes:
            await story(nodes)

    try:
        asyncio.run(told())
    except (ConsensusError, Refused) as error:
        sys.exit(f"{parser.prog}: {error}")
