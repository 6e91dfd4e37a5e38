"""Links cut and members restarted at random, with snapshots on the way: every answer is checked.

What was acknowledged stays, at its index; what was said to be dropped never appears; no
linearizable read misses an acknowledged write; in the end all members are equal.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from consensus import ConsensusError, Node, ProposalDropped
from consensus.engines.pysyncobj import PySyncObjEngine
from consensus.testing import RecordingMachine
from tests.consensus.links import Link
from tests.interop import free_ports
from tests.waiting import wait_until

NAMES = ("ann", "bob", "cas")
FAULTS = 12


class Trial:
    """Three members behind links that can be cut, and clients that remember every answer."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.random = random.Random(seed)
        self.directory = directory
        ports = free_ports(3)
        self.members = {name: f"127.0.0.1:{port}" for name, port in zip(NAMES, ports, strict=True)}
        self.links: dict[frozenset[str], Link] = {}
        self.nodes: dict[str, Node] = {}
        self.applied: dict[bytes, int] = {}
        self.dropped: set[bytes] = set()
        self.newest = 0
        self.reads = 0
        self.done = asyncio.Event()

    async def link_all(self, stack: AsyncExitStack) -> None:
        for one in NAMES:
            for other in NAMES:
                if self.members[one] > self.members[other]:  # this one dials
                    link = await stack.enter_async_context(Link(self.members[other]))
                    self.links[frozenset((one, other))] = link

    async def start(self, name: str) -> None:
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        others = [other for other in NAMES if other != name]
        engine = PySyncObjEngine(
            name,
            self.members,
            directory,
            dial={
                self.members[other]: self.links[frozenset((name, other))].address
                for other in others
            },
            election_timeout_ms=250,
            heartbeat_interval_ms=40,
            snapshot_entries=self.random.choice([5, 50, 10_000]),
        )
        node = Node(RecordingMachine(directory if name == "cas" else None), engine)
        await node.start()
        self.nodes[name] = node

    async def write(self, writer: int) -> None:
        count = 0
        while not self.done.is_set():
            count += 1
            command = b"%d-%d" % (writer, count)
            node = self.random.choice(list(self.nodes.values()))
            try:
                applied = await node.propose(command, timeout_s=1.5)
                self.applied[command] = applied.index
                self.newest = max(self.newest, applied.index)
            except ProposalDropped:
                self.dropped.add(command)
                await asyncio.sleep(0.01)
            except ConsensusError:
                await asyncio.sleep(0.01)

    async def read(self) -> None:
        while not self.done.is_set():
            newest = self.newest
            node = self.random.choice(list(self.nodes.values()))
            try:
                seen = len(await node.query(None, timeout_s=1.0))
            except ConsensusError:
                await asyncio.sleep(0.01)
                continue
            assert seen >= newest, f"a read saw {seen} writes; {newest} were acknowledged before it"
            self.reads += 1

    async def fault(self) -> None:
        kind = self.random.choice(["cut", "cut", "heal", "restart", "restart"])
        if kind == "cut":
            await self.random.choice(list(self.links.values())).cut()
        elif kind == "heal":
            await self.heal()
        else:
            name = self.random.choice(NAMES)
            node = self.nodes.pop(name)
            await node.stop()
            await self.start(name)

    async def heal(self) -> None:
        for link in self.links.values():
            await link.heal()

    def check(self, log: list[bytes]) -> None:
        assert len(set(log)) == len(log), "a command was applied twice"
        for command, index in self.applied.items():
            assert log[index - 1] == command, f"{command!r} was acknowledged at {index}"
        assert not self.dropped & set(log)


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_acknowledged_is_lost(tmp_path: Path, seed: int) -> None:
    trial = Trial(seed, tmp_path)
    async with AsyncExitStack() as stack:
        await trial.link_all(stack)
        for name in NAMES:
            await trial.start(name)
        try:
            async with asyncio.TaskGroup() as clients:
                for writer in range(4):
                    clients.create_task(trial.write(writer))
                clients.create_task(trial.read())
                for _ in range(FAULTS):
                    await asyncio.sleep(trial.random.uniform(0.05, 0.6))  # the fault's duration
                    await trial.fault()
                await trial.heal()
                newest = trial.newest
                await wait_until(
                    lambda: trial.newest > max(newest, 100) and trial.reads > 10,
                    40.0,
                    "writes after the faults, and enough in all to tell anything",
                )
                trial.done.set()

            def equal() -> bool:
                logs = [node.machine.query(None) for node in trial.nodes.values()]
                return logs[0] == logs[1] == logs[2] and len(logs[0]) >= trial.newest

            await wait_until(equal, 20.0, "all members equal")
            assert not any(node.status().halted for node in trial.nodes.values())
            trial.check(next(iter(trial.nodes.values())).machine.query(None))
        finally:
            for node in trial.nodes.values():
                await node.stop()
