"""EngineContract: the text of ``consensus.engine`` as tests."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from consensus.engine import Engine
from consensus.errors import (
    ConsensusError,
    Halted,
    NotLeader,
    ProposalDropped,
    QueueFull,
    Unsupported,
)
from consensus.node import Node
from consensus.statemachine import StateMachine
from consensus.testing.machines import POISON, BreakableMachine, RecordingMachine
from consensus.types import Applied, Consistency, Position, RemoveMember, Role

WAIT_S: Final = 20.0
POLL_S: Final = 0.01


class EngineGroup(abc.ABC):
    """The members of one group, as the suite wants them: over storage that outlives an engine."""

    names: tuple[str, ...]

    @abc.abstractmethod
    def engine(self, name: str) -> Engine:
        """Return a new engine for a member; over what earlier ones of that name left behind."""

    def address(self, name: str) -> str:
        """Return where peers reach a member of any name, one of ``names`` or not."""
        raise Unsupported("the members of this group cannot change")

    def joining(self, name: str) -> Engine:
        """Return a new engine for a member that is none of ``names``: it begins with nothing."""
        raise Unsupported("the members of this group cannot change")


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], what: str, timeout_s: float = WAIT_S
) -> None:
    """Return once ``condition()`` holds; fail after ``timeout_s`` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        outcome = condition()
        if not isinstance(outcome, bool):
            outcome = await outcome
        if outcome:
            return
        assert loop.time() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(POLL_S)


async def propose(node: Node, command: bytes, timeout_s: float = WAIT_S) -> int:
    """Propose until applied, again only after a certain refusal; return the index."""
    return (await applied(node, command, timeout_s)).index


async def applied(node: Node, command: bytes, timeout_s: float = WAIT_S) -> Applied:
    """Propose until applied, again only after a certain refusal; return the outcome."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        try:
            return await node.propose(command)
        except ProposalDropped:
            assert loop.time() < deadline, f"{command!r} was refused for {timeout_s:g} s"
            await asyncio.sleep(POLL_S)


class Cluster:
    """Nodes of one group, with a way to stop and start each."""

    def __init__(self, group: EngineGroup) -> None:
        self.group = group
        self.nodes: dict[str, Node] = {}

    async def start(self, name: str, machine: StateMachine | None = None) -> Node:
        """Start a member, with a machine in memory when none is given.

        One that is not of the group's first members begins with nothing.
        """

        async def answer(request: bytes) -> bytes:
            return name.encode() + b" answers " + request

        founder = name in self.group.names
        engine = self.group.engine(name) if founder else self.group.joining(name)
        node = Node(machine or RecordingMachine(), engine, answer=answer)
        self.nodes[name] = node
        await node.start()
        return node

    async def start_all(self) -> list[Node]:
        """Start every member and wait for a leader that all agree on."""
        for name in self.group.names:
            await self.start(name)
        await self.agree()
        return list(self.nodes.values())

    async def agree(self) -> Node:
        """Wait until all running members name one leader, and return it."""

        def agreed() -> bool:
            leaders = {node.status().engine.leader for node in self.nodes.values()}
            return len(leaders) == 1 and leaders <= self.nodes.keys()

        await eventually(agreed, "one leader that all members name")
        return self.leader()

    def leader(self) -> Node:
        """The member that leads."""
        for node in self.nodes.values():
            if node.status().engine.role is Role.LEADER:
                return node
        raise AssertionError("no member leads")

    def follower(self) -> Node:
        """A member that does not lead."""
        return next(
            node for node in self.nodes.values() if node.status().engine.role is not Role.LEADER
        )

    async def stop(self, name: str) -> None:
        """Stop a member."""
        await self.nodes.pop(name).stop()

    async def caught_up(self, index: int) -> None:
        """Wait until every running member has applied ``index``."""
        await eventually(
            lambda: all(node.status().applied_index >= index for node in self.nodes.values()),
            f"index {index} applied everywhere: "
            f"{[(name, node.status().applied_index) for name, node in self.nodes.items()]}",
        )


@asynccontextmanager
async def running(group: EngineGroup) -> AsyncIterator[Cluster]:
    """A cluster whose members are all stopped in the end."""
    cluster = Cluster(group)
    try:
        yield cluster
    finally:
        for name in list(cluster.nodes):
            await cluster.stop(name)


def machine_of(node: Node) -> RecordingMachine:
    """The node's machine, which the suite gave it."""
    assert isinstance(node.machine, RecordingMachine)
    return node.machine


class EngineContract(abc.ABC):
    """Run against an engine by subclassing and saying how to make a group of three members."""

    @abc.abstractmethod
    def make_group(self, directory: Path) -> EngineGroup:
        """Return a new group of three members whose files may go into ``directory``."""

    # -- applying -----------------------------------------------------------------------------

    def test_commands_are_applied_everywhere_in_one_order(self, tmp_path: Path) -> None:
        """Every member applies the same commands with the same indexes, one by one."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                nodes = await cluster.start_all()
                for number in range(30):
                    await propose(nodes[number % 3], b"%d" % number)
                await cluster.caught_up(30)
                for node in nodes:
                    entries = machine_of(node).entries
                    assert [entry.index for entry in entries] == list(range(1, 31))
                    assert entries == machine_of(nodes[0]).entries
                    assert {entry.command for entry in entries} == {b"%d" % n for n in range(30)}

        asyncio.run(run())

    def test_results_resolve_on_the_member_that_proposed(self, tmp_path: Path) -> None:
        """Whichever member a caller is on, it gets the result of its own command."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                nodes = await cluster.start_all()
                for node in nodes:
                    await propose(node, b"warm")
                outcomes = await asyncio.gather(
                    *(applied(node, b"%d" % number) for number in range(20) for node in nodes)
                )
                for outcome in outcomes:
                    assert outcome.result == outcome.index  # one command, one index, one result
                    assert outcome.term >= 1
                assert len({outcome.index for outcome in outcomes}) == 60

        asyncio.run(run())

    def test_the_clock_never_runs_backwards(self, tmp_path: Path) -> None:
        """Entries carry clocks that only grow, whoever proposed them."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                nodes = await cluster.start_all()
                for number in range(20):
                    await propose(nodes[number % 3], b"tick")
                clocks = [entry.clock_ms for entry in machine_of(cluster.leader()).entries]
                assert clocks == sorted(clocks)
                assert clocks[0] > 1_600_000_000_000  # milliseconds since the epoch

        asyncio.run(run())

    # -- reading ------------------------------------------------------------------------------

    def test_a_read_sees_what_was_acknowledged_anywhere(self, tmp_path: Path) -> None:
        """A linearizable query on any member sees every write acknowledged before it began."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                nodes = await cluster.start_all()
                for number in range(15):
                    await propose(nodes[number % 3], b"%d" % number)
                    for node in nodes:
                        assert len(await node.query(None)) == number + 1

        asyncio.run(run())

    def test_a_serializable_read_needs_nobody(self, tmp_path: Path) -> None:
        """It is answered from local state, also by a member that is alone."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                node = await cluster.start(cluster.group.names[0])
                assert await node.query(None, Consistency.SERIALIZABLE) == []

        asyncio.run(run())

    # -- leadership ---------------------------------------------------------------------------

    def test_status_names_one_leader(self, tmp_path: Path) -> None:
        """All members name the same leader, in the same term, and know each other."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                nodes = await cluster.start_all()
                found = [node.status().engine for node in nodes]
                assert len({status.leader for status in found}) == 1
                assert len({status.term for status in found}) == 1
                assert sum(status.role is Role.LEADER for status in found) == 1
                for status in found:
                    assert {member.id for member in status.members} == set(cluster.group.names)
                    assert status.has_quorum

        asyncio.run(run())

    def test_a_lost_leader_is_replaced_and_seen(self, tmp_path: Path) -> None:
        """The others elect a leader of a later term, ``watch_status`` tells, and work goes on."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                await cluster.start_all()
                leader = cluster.leader()
                survivor = cluster.follower()
                term = leader.status().engine.term
                index = await propose(leader, b"before")
                await cluster.caught_up(index)

                async def successor() -> None:
                    async for status in survivor.watch_status():
                        if status.leader not in (None, leader.engine.node_id):
                            assert status.term > term
                            return

                watching = asyncio.create_task(successor())
                await cluster.stop(leader.engine.node_id)
                async with asyncio.timeout(WAIT_S):
                    await watching
                assert await propose(survivor, b"after") == index + 1
                assert machine_of(survivor).commands == [b"before", b"after"]

        asyncio.run(run())

    def test_the_leader_answers(self, tmp_path: Path) -> None:
        """``ask_leader`` reaches the leader's host from every member."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                nodes = await cluster.start_all()
                leader = cluster.leader().engine.node_id.encode()
                for node in nodes:
                    assert await node.ask_leader(b"who") == leader + b" answers who"
                answers = await asyncio.gather(
                    *(node.ask_leader(b"%d" % number) for number in range(30) for node in nodes)
                )
                assert len(answers) == 90

        asyncio.run(run())

    def test_without_a_majority_nothing_is_acknowledged(self, tmp_path: Path) -> None:
        """A member alone acknowledges no write and no linearizable read, and says so by name."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                await cluster.start_all()
                lone = cluster.leader()
                if not lone.engine.capabilities.replicated:
                    pytest.skip("this engine does not need a majority")
                await propose(lone, b"together")
                for name in cluster.group.names:
                    if name != lone.engine.node_id:
                        await cluster.stop(name)
                with pytest.raises(ConsensusError) as caught:
                    await lone.propose(b"alone", timeout_s=0.5)
                assert not isinstance(caught.value, QueueFull | Halted)
                with pytest.raises(ConsensusError):
                    await lone.query(None, timeout_s=0.5)
                assert machine_of(lone).commands == [b"together"]

        asyncio.run(run())

    # -- restarting ---------------------------------------------------------------------------

    def test_a_restarted_member_has_everything(self, tmp_path: Path) -> None:
        """A machine in memory is rebuilt from the log, and what it missed comes too."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                await cluster.start_all()
                for number in range(10):
                    await propose(cluster.leader(), b"%d" % number)
                name = cluster.follower().engine.node_id
                await cluster.stop(name)
                for number in range(10, 20):
                    await propose(await cluster.agree(), b"%d" % number)
                node = await cluster.start(name)
                await cluster.caught_up(20)
                assert machine_of(node).commands == [b"%d" % number for number in range(20)]

        asyncio.run(run())

    def test_the_whole_group_restarts(self, tmp_path: Path) -> None:
        """After all members were stopped, everything acknowledged is there."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                await cluster.start_all()
                if not cluster.leader().engine.capabilities.persistent:
                    pytest.skip("this engine keeps nothing")
                for number in range(12):
                    await propose(cluster.leader(), b"%d" % number)
                for name in cluster.group.names:
                    await cluster.stop(name)
                nodes = await cluster.start_all()
                assert await propose(nodes[0], b"next") == 13
                await cluster.caught_up(13)
                expected = [b"%d" % number for number in range(12)] + [b"next"]
                for node in nodes:
                    assert machine_of(node).commands == expected

        asyncio.run(run())

    def test_a_durable_machine_goes_on_where_it_stood(self, tmp_path: Path) -> None:
        """What it has is not applied to it again."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                await cluster.start_all()
                name = cluster.follower().engine.node_id
                await cluster.stop(name)
                await cluster.start(name, RecordingMachine(tmp_path))
                await cluster.agree()
                for number in range(10):
                    await propose(cluster.leader(), b"%d" % number)
                await cluster.caught_up(10)
                await cluster.stop(name)
                for number in range(10, 15):
                    await propose(await cluster.agree(), b"%d" % number)
                machine = RecordingMachine(tmp_path)
                assert machine.position().index == 10
                await cluster.start(name, machine)
                await cluster.caught_up(15)
                assert machine.commands == [b"%d" % number for number in range(15)]
                indexes = [entry.index for entry in machine.entries]
                assert indexes == list(range(16 - len(indexes), 16))
                assert min(indexes, default=11) > 10, "it was applied again"
                assert machine.restored or len(indexes) == 5  # a snapshot may stand for some
                assert machine.discarded == 0

        asyncio.run(run())

    @pytest.mark.parametrize("case", ["another term", "a shorter log", "another group"])
    def test_a_machine_of_another_log_is_discarded(self, tmp_path: Path, case: str) -> None:
        """A position is an identity: only the same term at that index, in that group, counts."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                await cluster.start_all()
                name = cluster.follower().engine.node_id
                await cluster.stop(name)
                await cluster.start(name, RecordingMachine(tmp_path))
                await cluster.agree()
                for number in range(8):
                    await propose(cluster.leader(), b"%d" % number)
                await cluster.caught_up(8)
                await cluster.stop(name)
                machine = RecordingMachine(tmp_path)
                machine.commands = [b"of another log"]
                at = machine.position()
                places = {
                    "another term": Position(at.index, at.term + 5, at.clock_ms),
                    "a shorter log": Position(at.index + 1_000, at.term, at.clock_ms),
                    "another group": Position(at.index, at.term, at.clock_ms, 7),
                }
                machine.place(places[case])
                await cluster.start(name, machine)
                await propose(await cluster.agree(), b"next")
                await cluster.caught_up(9)
                assert machine.discarded == 1
                assert machine.commands == [b"%d" % number for number in range(8)] + [b"next"]

        asyncio.run(run())

    def test_a_member_far_behind_catches_up(self, tmp_path: Path) -> None:
        """Also when the log was compacted meanwhile: then by a snapshot."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                await cluster.start_all()
                name = cluster.follower().engine.node_id
                await propose(cluster.leader(), b"first")
                await cluster.caught_up(1)
                await cluster.stop(name)
                leader = await cluster.agree()
                for number in range(60):
                    await propose(leader, b"%d" % number)
                for node in cluster.nodes.values():
                    node.engine.compact()
                for number in range(60, 80):
                    await propose(leader, b"%d" % number)
                node = await cluster.start(name)
                await cluster.caught_up(81)
                expected = [b"first"] + [b"%d" % number for number in range(80)]
                assert machine_of(node).commands == expected
                assert await node.query(None) == expected

        asyncio.run(run())

    # -- members ------------------------------------------------------------------------------

    def test_members_change_only_where_it_says_so(self, tmp_path: Path) -> None:
        """An engine without the capability refuses by name, and at once."""
        group = self.make_group(tmp_path)
        engine = group.engine(group.names[0])
        if engine.capabilities.membership_change:
            assert engine.capabilities.learners and engine.capabilities.joint_consensus
            return
        with pytest.raises(Unsupported):
            asyncio.run(engine.change_membership([RemoveMember(group.names[1])], WAIT_S))

    # -- failing machines ---------------------------------------------------------------------

    def test_a_machine_that_raises_halts_its_node_there(self, tmp_path: Path) -> None:
        """Nothing later is applied; the others go on; repaired, it goes on at that index."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                await cluster.start_all()
                name = cluster.follower().engine.node_id
                await cluster.stop(name)
                machine = BreakableMachine(tmp_path)
                broken = await cluster.start(name, machine)
                leader = await cluster.agree()
                for command in (b"a", b"b"):
                    await propose(leader, command)
                await cluster.caught_up(2)  # a batch that began before it would be named instead
                for command in (POISON, b"c"):  # so few that no log is shortened beyond index 2
                    await propose(leader, command)
                async with asyncio.timeout(WAIT_S):
                    reason = await broken.wait_halted()
                assert "index 3" in reason and "this machine has a bug" in reason
                assert machine.commands == [b"a", b"b"]
                assert broken.status().applied_index == 2
                with pytest.raises(Halted):
                    await broken.propose(b"e")
                await cluster.stop(name)
                await propose(await cluster.agree(), b"e")
                repaired = BreakableMachine(tmp_path, repaired=True)
                await cluster.start(name, repaired)
                await cluster.caught_up(5)
                assert repaired.commands == [b"a", b"b", POISON, b"c", b"e"]
                assert [entry.index for entry in repaired.entries] == [3, 4, 5]

        asyncio.run(run())

    # -- ending -------------------------------------------------------------------------------

    def test_stopping_twice_is_harmless(self, tmp_path: Path) -> None:
        """And a stopped node says that it is stopped."""

        async def run() -> None:
            async with running(self.make_group(tmp_path)) as cluster:
                node = await cluster.start(cluster.group.names[0])
                await node.stop()
                await node.engine.stop()
                await node.stop()
                with pytest.raises(ConsensusError):
                    await node.propose(b"late")
                with pytest.raises((ConsensusError, NotLeader)):
                    await node.ask_leader(b"late", timeout_s=0.5)

        asyncio.run(run())
