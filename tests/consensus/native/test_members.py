"""Members that change, on real engines on loopback: what the contract suite cannot show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consensus.engines.native import NativeEngine
from consensus.errors import FeatureUnavailable, GroupUnhealthy, OutcomeUnknown, ProposalDropped
from consensus.node import Node
from consensus.testing import RecordingMachine
from consensus.types import AddMember, MemberChange, RemoveMember, Role
from tests.interop import free_ports
from tests.waiting import wait_until

WAIT_S = 30.0
FOUNDERS = ("a1", "b2", "c3")


class Members:
    """Nodes on loopback. A founder starts with all founders' addresses, others with their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.addresses: dict[str, str] = {}
        self.nodes: dict[str, Node] = {}

    def address(self, name: str) -> str:
        if name not in self.addresses:
            (port,) = free_ports(1)
            self.addresses[name] = f"127.0.0.1:{port}"
        return self.addresses[name]

    async def start(self, name: str, **settings: object) -> Node:
        known = FOUNDERS if name in FOUNDERS else (name,)
        engine = NativeEngine(
            name,
            {each: self.address(each) for each in known},
            self.directory / name,
            join=name not in FOUNDERS,
            heartbeat_interval_ms=100,
            election_timeout_ms=1000,
            **settings,  # type: ignore[arg-type]
        )
        node = self.nodes[name] = Node(RecordingMachine(), engine)
        await node.start()
        return node

    async def stop(self, *names: str) -> None:
        for name in names:
            await self.nodes.pop(name).stop()

    @property
    def leader(self) -> Node | None:
        leading = [
            node
            for node in self.nodes.values()
            if node.status().engine.role is Role.LEADER and not node.status().halted
        ]
        return max(leading, key=lambda node: node.status().engine.term, default=None)


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[Members]:
    group = Members(tmp_path)
    try:
        yield group
    finally:
        await group.stop(*list(group.nodes))


def commands_of(node: Node) -> list[bytes]:
    assert isinstance(node.machine, RecordingMachine)
    return node.machine.commands


def ids_of(node: Node) -> set[str]:
    return {member.id for member in node.status().engine.members}


async def propose(group: Members, command: bytes) -> None:
    """Have it applied, by whichever member can; again only after a certain refusal."""

    async def tried() -> bool:
        for node in list(group.nodes.values()):
            if node.status().halted:
                continue
            try:
                await node.propose(command, timeout_s=WAIT_S)
            except ProposalDropped:
                continue
            return True
        return False

    await wait_until(tried, WAIT_S)


async def change(node: Node, *changes: MemberChange) -> None:
    """Change the members; again while one is thought to be away, on a busy machine."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await node.change_membership(changes, timeout_s=WAIT_S)
                return
            except GroupUnhealthy:
                await asyncio.sleep(0.05)


async def test_a_member_that_joins_late_gets_a_snapshot_and_the_members(members: Members) -> None:
    for name in FOUNDERS:
        await members.start(name, snapshot_entries=2)
    for number in range(10):
        await propose(members, b"%d" % number)
    for node in members.nodes.values():
        node.engine.compact()
    asked = members.nodes["a1"]
    await change(asked, AddMember("d4", members.address("d4"), learner=True, context=b"fourth"))
    joined = await members.start("d4", snapshot_entries=2)
    await wait_until(lambda: len(commands_of(joined)) == 10, WAIT_S)
    await wait_until(lambda: ids_of(joined) == {*FOUNDERS, "d4"}, WAIT_S)
    assert joined.status().engine.members == asked.status().engine.members


async def test_a_hand_over_that_fails_says_so_before_its_time_is_up(members: Members) -> None:
    """Whoever asked with much patience does not wait for a successor that will not come."""
    for name in FOUNDERS:
        await members.start(name)
    await wait_until(lambda: members.leader is not None, WAIT_S)
    leader = members.leader
    assert leader is not None
    gone = next(name for name in FOUNDERS if members.nodes[name] is not leader)
    await members.stop(gone)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(ProposalDropped, match=f"{gone} did not take over.*not elected in time"):
            await leader.transfer_leadership(gone, timeout_s=20 * WAIT_S)
    await propose(members, b"goes on")


async def test_the_last_member_goes_on_alone_with_all_that_its_log_has(members: Members) -> None:
    """``force_new_cluster``: also what was appended when nobody was left to commit it."""
    for name in FOUNDERS:
        await members.start(name)
    await propose(members, b"committed")
    await wait_until(lambda: all(len(commands_of(n)) == 1 for n in members.nodes.values()), WAIT_S)
    await wait_until(lambda: members.leader is not None, WAIT_S)
    assert members.leader is not None
    last = members.leader.engine.node_id
    others = [name for name in FOUNDERS if name != last]
    await members.stop(*others)
    try:  # leads still or has noticed: either way nobody hears that it was applied
        await members.nodes[last].propose(b"in doubt", timeout_s=0.5)
    except (OutcomeUnknown, ProposalDropped):
        pass
    else:
        raise AssertionError("one of three has acknowledged a command")
    await members.stop(last)
    alone = await members.start(last, force_new_cluster=True)
    await propose(members, b"after")
    assert ids_of(alone) == {last}
    assert commands_of(alone) in ([b"committed", b"in doubt", b"after"], [b"committed", b"after"])
    await members.stop(last)
    again = await members.start(last, force_new_cluster=True)
    await propose(members, b"again")
    assert commands_of(again)[-2:] == [b"after", b"again"]
    # The others were removed: they are told so when they come back.
    late = await members.start(others[0])
    async with asyncio.timeout(WAIT_S):
        assert "removed" in await late.wait_halted()
    # The group grows again, with new members.
    await members.start("d4")
    await change(again, AddMember("d4", members.address("d4")))
    await wait_until(lambda: commands_of(members.nodes["d4"]) == commands_of(again), WAIT_S)


async def test_a_new_kind_of_command_waits_until_every_member_knows_it(members: Members) -> None:
    for name in FOUNDERS:
        await members.start(name, feature_level=2 if name != "c3" else 1)
    await propose(members, b"x")
    node = members.nodes["a1"]
    await wait_until(lambda: node.status().engine.feature_level == 1, WAIT_S)
    with pytest.raises(FeatureUnavailable, match="level 2"):
        await node.propose(b"new", feature_level=2)
    await members.stop("c3")
    await members.start("c3", feature_level=2)
    await wait_until(lambda: node.status().engine.feature_level == 2, WAIT_S)
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await node.propose(b"new", WAIT_S, feature_level=2)
                break
            except ProposalDropped:
                await asyncio.sleep(0.01)
    assert commands_of(node) == [b"x", b"new"]


async def test_a_group_grows_to_five_and_shrinks_to_three_under_load(members: Members) -> None:
    """The leader goes too. Whatever is refused succeeds on retry; nothing is lost or doubled."""
    for name in FOUNDERS:
        await members.start(name)
    await propose(members, b"first")
    stopping = asyncio.Event()
    acknowledged: list[bytes] = []
    unknown: list[bytes] = []

    async def load(client: int) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            command = b"%d:%d" % (client, number)
            try:
                await propose(members, command)
            except OutcomeUnknown:
                unknown.append(command)
            else:
                acknowledged.append(command)
            await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as tasks:
        for client in range(4):
            tasks.create_task(load(client))
        for name in ("d4", "e5"):
            await members.start(name)
            await change(members.nodes["a1"], AddMember(name, members.address(name)))
        for _ in range(2):
            await wait_until(lambda: members.leader is not None, WAIT_S)
            assert members.leader is not None
            leaving = members.leader.engine.node_id
            asked = next(node for name, node in members.nodes.items() if name != leaving)
            await change(asked, RemoveMember(leaving))
            async with asyncio.timeout(WAIT_S):
                await members.nodes[leaving].wait_halted()
            await members.stop(leaving)
        stopping.set()
    assert not unknown, "members came and went in an orderly way, and outcomes were left unknown"
    assert len(members.nodes) == 3
    await propose(members, b"last")
    nodes = list(members.nodes.values())
    await wait_until(lambda: all(commands_of(node)[-1:] == [b"last"] for node in nodes), WAIT_S)
    for node in nodes:
        assert ids_of(node) == set(members.nodes)
        assert commands_of(node) == commands_of(nodes[0])
        assert len(set(commands_of(node))) == len(commands_of(node))
    assert set(commands_of(nodes[0])) == {b"first", b"last", *acknowledged}
