"""One member of a group whose engine is measured: a process that does what it reads.

A node with a machine that only counts, so that the engine is what takes the time. Each line on
standard input is one JSON request, each line on standard output its answer: ``{"ask": "status"}``
tells whether this member leads; ``{"ask": "load", ...}`` proposes from this member. The end of the
input ends the process: it does not outlive whoever started it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import click
import structlog
import uvloop

from benchmarks.figures import LoadResult
from consensus.engine import Engine
from consensus.errors import ConsensusError
from consensus.node import Node
from consensus.statemachine import BytesSnapshot, StateMachine, StateSnapshot
from consensus.types import Entry, Role


@attrs.frozen(slots=True)
class EngineChoice:
    """An engine that can be measured: where its class is, and how many members a group has.

    An engine for one member is made of its name alone; others take a name, the addresses of all
    members, and a directory.
    """

    path: str
    members: int = 3

    def make(self, name: str, members: Mapping[str, str], directory: Path) -> Engine:
        """Return one member's engine, not yet started."""
        module, _, cls = self.path.partition(":")
        make: Any = getattr(importlib.import_module(module), cls)
        engine = make(name) if self.members == 1 else make(name, members, directory)
        assert isinstance(engine, Engine)
        return engine


ENGINES: Final = {
    "local": EngineChoice("consensus.engines.local:LocalEngine", members=1),
    "pysyncobj": EngineChoice("consensus.engines.pysyncobj:PySyncObjEngine"),
    "native": EngineChoice("consensus.engines.native:NativeEngine"),
}


class CountingMachine(StateMachine):
    """Counts commands: the least that a machine can do."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, entry: Entry) -> int:
        """Count one more."""
        self.count += 1
        return self.count

    def query(self, request: object) -> int:
        """Return the count."""
        return self.count

    def snapshot(self) -> StateSnapshot:
        """Freeze the count."""
        return BytesSnapshot(str(self.count).encode())

    def restore(self, data: bytes) -> None:
        """Take a count back."""
        self.count = int(data)


async def propose_all(
    node: Node, window: int, seconds: float, command: bytes
) -> tuple[list[float], list[str]]:
    """Keep ``window`` proposals under way for ``seconds``; return their times and the errors."""
    times: list[float] = []
    errors: list[str] = []
    deadline = time.perf_counter() + seconds

    async def caller() -> None:
        while (sent := time.perf_counter()) < deadline:
            try:
                await node.propose(command)
            except ConsensusError as error:
                errors.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0)  # a refusal can come without a turn of the loop
                continue
            times.append(time.perf_counter() - sent)

    async with asyncio.TaskGroup() as group:
        for _ in range(window):
            group.create_task(caller())
    return times, errors


async def load(node: Node, request: Mapping[str, Any]) -> dict[str, Any]:
    """Propose as asked and return a ``LoadResult`` as a dictionary."""
    command = b"v" * int(request["bytes"])
    window = int(request["window"])
    cpu, start = time.process_time(), time.perf_counter()
    times, errors = await propose_all(node, window, float(request["seconds"]), command)
    result = LoadResult.of(
        times,
        seconds=time.perf_counter() - start,
        client_cpu_s=time.process_time() - cpu,
        errors=len(errors),
        first_error=errors[0] if errors else "",
    )
    return attrs.asdict(result)


def status(node: Node) -> dict[str, Any]:
    """Return whether this member leads, and whether it knows who does."""
    engine = node.status().engine
    return {
        "leads": engine.role is Role.LEADER,
        "ready": engine.leader is not None and engine.has_quorum,
    }


async def lines() -> AsyncIterator[str]:
    """Yield standard input's lines as they come."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode()


async def serve(engine: Engine) -> None:
    """Run the node and answer requests until the input ends."""
    async with Node(CountingMachine(), engine) as node:
        async for line in lines():
            request = json.loads(line)
            answer = status(node) if request["ask"] == "status" else await load(node, request)
            print(json.dumps(answer), flush=True)


@click.command()
@click.argument("engine", type=click.Choice(list(ENGINES)))
@click.argument("name")
@click.argument("members")
@click.argument("directory", type=click.Path(path_type=Path))
def main(engine: str, name: str, members: str, directory: Path) -> None:
    """Run member NAME of MEMBERS ("a=host:port,b=host:port") on ENGINE in DIRECTORY."""
    # Answers have standard output for themselves.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    addresses = dict(item.split("=", 1) for item in members.split(","))
    uvloop.run(serve(ENGINES[engine].make(name, addresses, directory)))


if __name__ == "__main__":
    main()
