"""PySyncObjEngine with three members in one process: what the contract suite cannot ask."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from consensus import (
    BytesSnapshot,
    ConfigError,
    ConsensusError,
    Fault,
    Node,
    NotLeader,
    ProposalDropped,
    Role,
    StateSnapshot,
    StorageError,
)
from consensus.engines.pysyncobj import PySyncObjEngine
from consensus.testing import RecordingMachine
from tests.consensus.links import Link
from tests.interop import free_ports
from tests.waiting import wait_until

NAMES = ("ann", "bob", "cas")


class Trio:
    """Three members on loopback; each can be stopped and started."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        ports = free_ports(3)
        self.members = {name: f"127.0.0.1:{port}" for name, port in zip(NAMES, ports, strict=True)}
        self.directory = directory
        self.settings = {"election_timeout_ms": 600, "heartbeat_interval_ms": 50, **settings}
        self.nodes: dict[str, Node] = {}

    async def start(self, name: str, machine: RecordingMachine | None = None) -> Node:
        engine = PySyncObjEngine(name, self.members, self.directory / name, **self.settings)
        node = Node(machine or RecordingMachine(), engine)
        await node.start()
        self.nodes[name] = node
        return node

    async def leader(self) -> Node:
        def agreed() -> bool:
            found = {node.status().engine.leader for node in self.nodes.values()}
            return len(found) == 1 and found <= self.nodes.keys()

        await wait_until(agreed, 20.0, "one leader")
        name = next(iter(self.nodes.values())).status().engine.leader
        assert name is not None
        return self.nodes[name]

    async def follower(self) -> Node:
        leader = await self.leader()
        return next(node for node in self.nodes.values() if node is not leader)

    async def caught_up(self, index: int) -> None:
        await wait_until(
            lambda: all(node.status().applied_index >= index for node in self.nodes.values()), 30.0
        )


@asynccontextmanager
async def trio(directory: Path, start: bool = True, **settings: Any) -> AsyncIterator[Trio]:
    group = Trio(directory, **settings)
    try:
        if start:
            for name in NAMES:
                await group.start(name)
            await group.leader()
        yield group
    finally:
        for node in group.nodes.values():
            await node.stop()


def recording(node: Node) -> RecordingMachine:
    assert isinstance(node.machine, RecordingMachine)
    return node.machine


# -- speed and size -------------------------------------------------------------------------------


async def test_alone_it_is_ready_at_once(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    engine = PySyncObjEngine("one", {"one": f"127.0.0.1:{port}"}, tmp_path)
    began = time.monotonic()
    async with Node(RecordingMachine(), engine) as node:
        await node.read_index()
        assert time.monotonic() - began < 1.0
        assert (await node.propose(b"x")).index == 1
        status = node.status().engine
        assert (status.role, status.leader, status.has_quorum) == (Role.LEADER, "one", True)


async def test_three_elect_within_about_one_timeout(tmp_path: Path) -> None:
    async with trio(
        tmp_path, start=False, election_timeout_ms=1000, heartbeat_interval_ms=100
    ) as group:
        for name in NAMES:
            await group.start(name)
        began = time.monotonic()
        await group.leader()
        assert time.monotonic() - began < 2.0


async def test_large_commands_and_a_silent_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """PySyncObj's own way of cutting large commands fills the log with tracebacks."""
    caplog.set_level(logging.DEBUG)
    async with trio(tmp_path, election_timeout_ms=3000) as group:
        leader, follower = await group.leader(), await group.follower()
        values = [os.urandom(1_500_000) for _ in range(4)]
        values += [os.urandom(size) for size in (65_400, 65_536, 131_000, 262_144, 262_100)]
        for number, value in enumerate(values):
            await (leader, follower)[number % 2].propose(value)
        await group.caught_up(len(values))
        for node in group.nodes.values():
            assert recording(node).commands == values
    assert [record for record in caplog.records if record.name.startswith("pysyncobj")] == []


async def test_many_at_once(tmp_path: Path) -> None:
    async with trio(tmp_path, election_timeout_ms=3000) as group:
        nodes = list(group.nodes.values())
        outcomes = await asyncio.gather(
            *(nodes[number % 3].propose(b"%d" % number) for number in range(3000))
        )
        assert sorted(outcome.index for outcome in outcomes) == list(range(1, 3001))
        await group.caught_up(3000)
        logs = [recording(node).commands for node in nodes]
        assert logs[0] == logs[1] == logs[2]


async def test_it_rests_when_nothing_happens(tmp_path: Path) -> None:
    async with trio(tmp_path, election_timeout_ms=1000, heartbeat_interval_ms=100):
        used, began = time.process_time(), time.monotonic()
        await asyncio.sleep(1.0)  # the time that is measured, not a wait for something
        share = (time.process_time() - used) / (time.monotonic() - began)
        assert share < 0.25, f"three idle members use {share:.0%} of a processor"


# -- outcomes -------------------------------------------------------------------------------------


async def test_without_a_leader_a_proposal_is_refused_at_once(tmp_path: Path) -> None:
    async with trio(tmp_path, start=False) as group:
        node = await group.start("ann")
        began = time.monotonic()
        with pytest.raises(NotLeader):
            await node.propose(b"x")
        assert time.monotonic() - began < 1.0


async def test_a_command_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    engine = PySyncObjEngine("one", {"one": f"127.0.0.1:{port}"}, tmp_path)
    async with Node(RecordingMachine(), engine) as node:
        await node.read_index()
        with pytest.raises(ProposalDropped, match="16777216 are allowed"):
            await node.propose(bytes(16 * 1024 * 1024 + 1))
        assert (await node.propose(b"x")).index == 1


async def test_an_isolated_leader_steps_down_and_its_proposals_are_dropped_by_name(
    tmp_path: Path,
) -> None:
    """They are certainly not applied once an entry of a later term is."""
    async with trio(tmp_path, start=False) as group, AsyncExitStack() as stack:
        links = {}
        for one in NAMES:
            for other in NAMES:
                if group.members[one] > group.members[other]:  # this one dials
                    link = await stack.enter_async_context(Link(group.members[other]))
                    links[frozenset((one, other))] = link
        for name in NAMES:
            dial = {
                group.members[other]: links[frozenset((name, other))].address
                for other in NAMES
                if other != name
            }
            group.settings["dial"] = dial
            await group.start(name)
        old = await group.leader()
        name = old.engine.node_id
        assert (await old.propose(b"first")).index == 1
        for pair, link in links.items():
            if name in pair:
                await link.cut()
        lost = asyncio.create_task(old.propose(b"lost", timeout_s=30.0))
        with pytest.raises(ConsensusError):
            await old.query(None, timeout_s=0.3)  # it may be deposed already: no stale answers
        await wait_until(lambda: old.status().engine.leader is None, 10.0, "it steps down")
        assert not old.status().engine.has_quorum
        with pytest.raises(NotLeader):
            await old.propose(b"refused")
        assert not lost.done()
        del group.nodes[name]
        successor = await group.leader()
        assert successor is not old
        assert (await successor.propose(b"second")).index == 2
        group.nodes[name] = old
        for link in links.values():
            await link.heal()
        with pytest.raises(ProposalDropped, match=r"leader changed|took its place"):
            await asyncio.wait_for(lost, 10.0)
        await group.caught_up(2)
        for node in group.nodes.values():
            assert recording(node).commands == [b"first", b"second"]


async def test_every_proposal_has_one_true_outcome(tmp_path: Path) -> None:
    """While leaders are stopped again and again: applied once, or by name not, or unknown."""
    async with trio(tmp_path) as group:
        outcomes: dict[bytes, str] = {}
        done = asyncio.Event()

        async def writer(number: int) -> None:
            count = 0
            while not done.is_set():
                count += 1
                command = b"%d-%d" % (number, count)
                nodes = list(group.nodes.values())
                try:
                    await nodes[count % len(nodes)].propose(command, timeout_s=2.0)
                    outcomes[command] = "applied"
                except ProposalDropped:
                    outcomes[command] = "dropped"
                    await asyncio.sleep(0.005)
                except ConsensusError:
                    outcomes[command] = "unknown"

        writers = [asyncio.create_task(writer(number)) for number in range(6)]
        for _ in range(3):
            leader = await group.leader()
            name = leader.engine.node_id
            await wait_until(lambda node=leader: node.status().applied_index > 0)
            del group.nodes[name]
            await leader.stop()
            await group.leader()
            await group.start(name)
        await group.leader()
        done.set()
        await asyncio.gather(*writers)
        survivor = await group.leader()
        applied = await survivor.query(None)
        assert len(applied) == len(set(applied))
        found = set(applied)
        for command, outcome in outcomes.items():
            if outcome == "applied":
                assert command in found, f"{command!r} was acknowledged and is lost"
            elif outcome == "dropped":
                assert command not in found, f"{command!r} was said to be dropped"
        assert sum(outcome == "applied" for outcome in outcomes.values()) > 5


# -- snapshots ------------------------------------------------------------------------------------


class Heavy(RecordingMachine):
    """Its snapshot has many chunks, each of which takes its time."""

    def __init__(self, chunks: int) -> None:
        super().__init__()
        self.chunks = chunks
        self.released = 0

    def snapshot(self) -> StateSnapshot:
        machine, inner = self, super().snapshot()

        class Slow(BytesSnapshot):
            def chunks(self) -> Iterator[bytes]:
                yield from inner.chunks()
                for _ in range(machine.chunks):
                    time.sleep(0.001)
                    yield b" " * 100_000

            def release(self) -> None:
                machine.released += 1

        return Slow(b"")


async def test_a_slow_dump_does_not_hold_the_loop(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    engine = PySyncObjEngine("one", {"one": f"127.0.0.1:{port}"}, tmp_path)
    machine = Heavy(chunks=400)
    async with Node(machine, engine) as node:
        await node.read_index()
        for number in range(5):
            await node.propose(b"%d" % number)
        gaps, applied_meanwhile = [], 0
        engine.compact()
        while not machine.released:
            began = time.perf_counter()
            await node.propose(b"meanwhile")
            applied_meanwhile += 1
            gaps.append(time.perf_counter() - began)
        assert (tmp_path / "snapshot.dump").stat().st_size > 40_000_000
        assert applied_meanwhile > 20
        assert sorted(gaps)[len(gaps) // 2] < 0.1
    again = Node(RecordingMachine(), PySyncObjEngine("one", {"one": f"127.0.0.1:{port}"}, tmp_path))
    async with again:
        await again.read_index()
        assert len(recording(again).commands) == 5 + applied_meanwhile


async def test_a_large_snapshot_reaches_a_member_far_behind(tmp_path: Path) -> None:
    async with trio(tmp_path, start=False, snapshot_entries=20) as group:
        await group.start("ann", Heavy(chunks=100))
        await group.start("bob", Heavy(chunks=100))
        leader = await group.leader()
        for number in range(100):
            await leader.propose(b"%d" % number)
        for node in group.nodes.values():
            node.engine.compact()  # by themselves they would wait until the log has 10 MB too
        await wait_until(
            lambda: leader.status().engine.details["snapshot_index"] > 60, 20.0, "a snapshot"
        )
        machine = RecordingMachine()
        late = await group.start("cas", machine)
        term = leader.status().engine.term
        await group.caught_up(100)
        assert machine.restored == 1 and len(machine.entries) < 100
        assert machine.commands == [b"%d" % number for number in range(100)]
        await late.propose(b"more")
        await group.caught_up(101)
        assert leader.status().engine.term == term, "the transfer cost an election"


async def test_a_failed_dump_is_only_a_longer_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from consensus.engines.pysyncobj import snapshots

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (port,) = free_ports(1)
    engine = PySyncObjEngine("one", {"one": f"127.0.0.1:{port}"}, tmp_path)
    async with Node(RecordingMachine(), engine) as node:
        await node.read_index()
        with monkeypatch.context() as patch:
            patch.setattr(snapshots.DumpWriter, "finish", full_disk)
            for number in range(5):
                await node.propose(b"%d" % number)
            engine.compact()
            await node.propose(b"after")
            driver = engine._driver
            assert driver is not None
            await wait_until(lambda: driver.snapshots._not_before > 0)
        assert (await node.propose(b"still")).index == 7
        assert not any(name.startswith("snapshot.") for name in os.listdir(tmp_path))


# -- files ----------------------------------------------------------------------------------------


async def fill(tmp_path: Path, port: int, compact: bool) -> None:
    engine = PySyncObjEngine("one", {"one": f"127.0.0.1:{port}"}, tmp_path, snapshot_entries=2)
    async with Node(RecordingMachine(), engine) as node:
        await node.read_index()
        for number in range(10):
            await node.propose(b"%d" % number)
        if compact:
            await wait_until(lambda: (tmp_path / "snapshot.dump").exists())


def damage(directory: Path, pattern: str) -> str:
    """Change a byte in the first file that fits; return its name."""
    path = sorted(directory.glob(pattern))[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return path.name


@pytest.mark.parametrize("file", ["snapshot.dump", "log-*.seg", "identity.json", "term.json"])
async def test_a_damaged_file_refuses_to_start_and_is_named(tmp_path: Path, file: str) -> None:
    (port,) = free_ports(1)
    await fill(tmp_path, port, compact=True)
    name = damage(tmp_path, file)
    machine = RecordingMachine()
    node = Node(machine, PySyncObjEngine("one", {"one": f"127.0.0.1:{port}"}, tmp_path))
    with pytest.raises(StorageError) as caught:
        await node.start()
    await node.stop()
    assert name in str(caught.value)
    assert machine.commands == []
    with socket.create_server(("127.0.0.1", port)):
        pass  # the failed start left nothing behind


async def test_a_missing_dump_refuses_to_start(tmp_path: Path) -> None:
    """PySyncObj itself would start, and say nothing, with most of the state gone."""
    (port,) = free_ports(1)
    engine = PySyncObjEngine("one", {"one": f"127.0.0.1:{port}"}, tmp_path, snapshot_entries=2)
    async with Node(RecordingMachine(), engine) as node:
        await node.read_index()
        for number in range(40):
            await node.propose(b"%d" % number * 400_000)
        await wait_until(lambda: not (tmp_path / f"log-{1:020d}.seg").exists())
    os.unlink(tmp_path / "snapshot.dump")
    node = Node(RecordingMachine(), PySyncObjEngine("one", engine_members(port), tmp_path))
    with pytest.raises(StorageError, match=r"snapshot\.dump is missing"):
        await node.start()
    await node.stop()


def engine_members(port: int) -> dict[str, str]:
    return {"one": f"127.0.0.1:{port}"}


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    ports = free_ports(2)
    async with Node(RecordingMachine(), PySyncObjEngine("one", engine_members(ports[0]), tmp_path)):
        second = Node(
            RecordingMachine(), PySyncObjEngine("one", engine_members(ports[1]), tmp_path)
        )
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
            await second.start()
        await second.stop()


async def test_a_full_disk_stops_the_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    engine = PySyncObjEngine("one", engine_members(port), tmp_path)
    machine = RecordingMachine()
    async with Node(machine, engine) as node:
        await node.read_index()
        await node.propose(b"fits")
        write = os.write

        def full(fd: int, data: bytes) -> int:
            if len(data) > 60:
                raise OSError(28, "No space left on device")
            return write(fd, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(ConsensusError):
                await node.propose(b"does not fit")
            reason = await asyncio.wait_for(node.wait_halted(), 10.0)
        assert "No space left" in reason
        assert machine.commands == [b"fits"]
        assert node.status().engine.role is Role.FOLLOWER


# -- settings -------------------------------------------------------------------------------------


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = Node(RecordingMachine(), PySyncObjEngine("one", engine_members(port), tmp_path))
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: Address already in use"):
            await node.start()
        await node.stop()


async def test_it_listens_where_it_is_told_and_nowhere_else(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    members = {"one": f"127.0.0.2:{port}"}
    async with Node(RecordingMachine(), PySyncObjEngine("one", members, tmp_path)):
        with socket.create_connection(("127.0.0.2", port), 1.0):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1.0)


@pytest.mark.parametrize(
    ("members", "settings", "said"),
    [
        ({"two": "127.0.0.1:1"}, {}, "'one' is not one of the cluster's members: two"),
        ({"one": "127.0.0.1"}, {}, "'127.0.0.1' is not host:port"),
        ({"one": "127.0.0.1:0"}, {}, "is not host:port"),
        ({"one": "127.0.0.1:1", "two": "127.0.0.1:1"}, {}, "same peer address"),
        ({"one": "192.0.2.1:1"}, {}, "messages are pickles.*--peer-password-file"),
        ({"one": "127.0.0.1:1"}, {"listen": "0.0.0.0:1"}, "0.0.0.0:1 is not on the loopback"),
        ({"one": "127.0.0.1:1", "two": "peer.example:1"}, {}, "peer.example:1 is not on"),
        ({"one": "127.0.0.1:1"}, {"password": ""}, "password is empty"),
        ({"one": "127.0.0.1:1"}, {"election_timeout_ms": 300}, "more than 4 times the heartbeat"),
        ({"one": "127.0.0.1:1"}, {"snapshot_entries": 1}, "must be at least 2"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, members: dict[str, str], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        PySyncObjEngine("one", members, tmp_path, **settings)


def test_with_a_password_other_addresses_are_allowed(tmp_path: Path) -> None:
    PySyncObjEngine("one", {"one": "192.0.2.1:1"}, tmp_path, password="secret")


def test_it_says_what_it_does_not_survive(tmp_path: Path) -> None:
    capabilities = PySyncObjEngine("one", {"one": "127.0.0.1:1"}, tmp_path).capabilities
    assert Fault.POWER_LOSS not in capabilities.survives
    assert Fault.PROCESS_CRASH_MINORITY in capabilities.survives
    assert not capabilities.read_index
    assert any("power loss" in note for note in capabilities.notes)


# -- peers ----------------------------------------------------------------------------------------


async def test_a_password_that_differs_keeps_members_apart(tmp_path: Path) -> None:
    async with trio(tmp_path, start=False, password="right") as group:
        await group.start("ann")
        await group.start("bob")
        leader = await group.leader()
        assert (await leader.propose(b"in secret")).index == 1
        group.settings["password"] = "wrong"
        stranger = await group.start("cas")
        del group.nodes["cas"]
        await leader.propose(b"without it")
        assert stranger.status().engine.leader is None
        assert recording(stranger).commands == []
        await stranger.stop()


async def test_a_member_of_another_cluster_is_refused(tmp_path: Path) -> None:
    async with trio(tmp_path, start=False) as group:
        await group.start("ann")
        await group.start("bob")
        leader = await group.leader()
        await leader.propose(b"ours")
        others = {**group.members, "dan": "127.0.0.1:9"}
        engine = PySyncObjEngine("cas", others, tmp_path / "other", election_timeout_ms=500)
        async with Node(RecordingMachine(), engine) as stranger:
            for _ in range(5):
                await leader.propose(b"ours")
            assert stranger.status().engine.details["linked_peers"] == 0
            assert recording(stranger).commands == []


async def test_strangers_on_the_peer_port_are_cut_off(tmp_path: Path) -> None:
    """PySyncObj takes commands from anyone who says that he is an administrator."""
    import pickle
    import struct
    import zlib

    (port,) = free_ports(1)
    engine = PySyncObjEngine("one", engine_members(port), tmp_path)
    async with Node(RecordingMachine(), engine) as node:
        await node.read_index()
        for said in (["status"], ["add", "127.0.0.1:5"], "readonly", "127.0.0.1:7"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = zlib.compress(pickle.dumps(said, 2))
            writer.write(struct.pack("i", len(data)) + data)
            assert await asyncio.wait_for(reader.read(), 5.0) == b""
            writer.close()
        assert (await node.propose(b"x")).index == 1


async def test_leadership_can_be_handed_over(tmp_path: Path) -> None:
    async with trio(tmp_path) as group:
        leader, target = await group.leader(), await group.follower()
        (third,) = set(NAMES) - {leader.engine.node_id, target.engine.node_id}
        await leader.propose(b"before")
        await leader.engine.transfer_leadership(target.engine.node_id, 10.0)
        assert await group.leader() is target
        assert (await leader.propose(b"after")).index == 2
        with pytest.raises(NotLeader):
            await leader.engine.transfer_leadership(third, 0.2)
