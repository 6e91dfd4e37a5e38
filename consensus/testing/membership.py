"""MembershipContract: EngineContract, and what ``Engine.change_membership`` promises, as tests.

For engines whose capabilities say that their members can change.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from consensus.errors import (
    AddressTaken,
    BadTransferTarget,
    ChangeRefused,
    GroupUnhealthy,
    LearnerNotReady,
    MemberExists,
    MemberWasRemoved,
    NotEnoughStarted,
    NotLeader,
    NotLearner,
    ProposalDropped,
    Removed,
    TooManyLearners,
    UnknownMember,
)
from consensus.node import Node
from consensus.testing.engines import (
    WAIT_S,
    Cluster,
    EngineContract,
    eventually,
    machine_of,
    propose,
    running,
)
from consensus.types import (
    AddMember,
    MemberChange,
    PromoteMember,
    RemoveMember,
    Role,
    UpdateMember,
)


async def change_once(node: Node, *changes: MemberChange) -> None:
    """Change the members, with the suite's patience."""
    await node.change_membership(changes, timeout_s=WAIT_S)


async def change(node: Node, *changes: MemberChange) -> None:
    """Change the members; again where one of them is thought to be away, on a busy machine."""
    await ready(lambda: change_once(node, *changes), GroupUnhealthy)


async def ready(attempt: Callable[[], Awaitable[None]], refusal: type[ChangeRefused]) -> None:
    """Try a change until it is not refused for this reason any more."""

    async def tried() -> bool:
        try:
            await attempt()
        except refusal:
            return False
        return True

    await eventually(tried, f"a change without {refusal.__name__}")


def members_of(node: Node) -> dict[str, bool]:
    """The members as this one has them, and whether each is a learner."""
    return {member.id: member.learner for member in node.status().engine.members}


class MembershipContract(EngineContract):
    """Run against an engine as ``EngineContract``; the group says how a newcomer is made."""

    def run(self, directory: Path, story: Callable[[Cluster], Awaitable[None]]) -> None:
        """Run a story with a cluster of three."""

        async def main() -> None:
            async with running(self.make_group(directory)) as cluster:
                (node, *_) = await cluster.start_all()
                assert node.engine.capabilities.membership_change
                await story(cluster)

        asyncio.run(main())

    def test_a_group_grows_and_shrinks(self, tmp_path: Path) -> None:
        """From any member; whoever joins gets everything, whoever goes is not counted."""

        async def story(cluster: Cluster) -> None:
            group = cluster.group
            await propose(cluster.follower(), b"before")
            for name, asked in (("dan", cluster.follower()), ("eve", await cluster.agree())):
                await cluster.start(name)
                await change(
                    asked, AddMember(name, group.address(name), context=b"of " + name[:1].encode())
                )
                assert members_of(asked)[name] is False
                await ready_to_count(cluster, name)
            index = await propose(cluster.nodes["eve"], b"five")
            await cluster.caught_up(index)
            expected = dict.fromkeys((*group.names, "dan", "eve"), False)
            await eventually(
                lambda: all(members_of(node) == expected for node in cluster.nodes.values()),
                "five members known to all",
            )
            status = cluster.nodes["dan"].status().engine
            (dan,) = (member for member in status.members if member.id == "dan")
            assert (dan.address, dan.context) == (group.address("dan"), b"of d")
            for name in group.names[:2]:
                asked = next(node for each, node in cluster.nodes.items() if each != name)
                await change(asked, RemoveMember(name))
                await leaves(cluster, name)
            assert len(members_of(await cluster.agree())) == 3
            index = await propose(cluster.nodes["dan"], b"three")
            await cluster.caught_up(index)
            for node in cluster.nodes.values():
                assert machine_of(node).commands == [b"before", b"five", b"three"]

        self.run(tmp_path, story)

    def test_a_learner_is_promoted(self, tmp_path: Path) -> None:
        """It listens only, is promoted once it has caught up, and votes from then on."""

        async def story(cluster: Cluster) -> None:
            asked = cluster.follower()
            await change(asked, AddMember("dan", cluster.group.address("dan"), learner=True))
            for number in range(10):
                await propose(asked, b"%d" % number)
            with pytest.raises(LearnerNotReady, match="dan"):
                await change(asked, PromoteMember("dan"))
            with pytest.raises(TooManyLearners):
                await change(asked, AddMember("eve", cluster.group.address("eve"), learner=True))
            learner = await cluster.start("dan")
            await cluster.caught_up(10)
            assert members_of(learner)["dan"] is True
            with pytest.raises(BadTransferTarget, match="dan"):
                await hand_over(cluster, "dan")
            await ready(lambda: change(learner, PromoteMember("dan")), LearnerNotReady)
            assert members_of(learner)["dan"] is False
            with pytest.raises(NotLearner, match="dan"):
                await change(asked, PromoteMember("dan"))
            await hand_over(cluster, "dan")

        self.run(tmp_path, story)

    def test_a_removed_leader_leaves_and_the_others_go_on(self, tmp_path: Path) -> None:
        """It says that it was removed; one that comes back is refused by name."""

        async def story(cluster: Cluster) -> None:
            leader = await cluster.agree()
            name = leader.engine.node_id
            index = await propose(leader, b"before")
            await cluster.caught_up(index)
            asked = cluster.follower()
            await change(asked, RemoveMember(name))
            async with asyncio.timeout(WAIT_S):
                assert name in await leader.wait_halted()
            assert leader.status().removed
            with pytest.raises(Removed):
                await leader.propose(b"late")
            await cluster.stop(name)
            assert await propose(await cluster.agree(), b"after") == index + 1
            assert set(members_of(asked)) == set(cluster.group.names) - {name}
            again = await cluster.start(name)
            async with asyncio.timeout(WAIT_S):
                assert "removed" in await again.wait_halted()
            assert again.status().removed
            with pytest.raises(MemberWasRemoved, match=name):
                await change(asked, AddMember(name, cluster.group.address(name)))
            with pytest.raises(MemberWasRemoved, match=name):
                await change(asked, RemoveMember(name))

        self.run(tmp_path, story)

    def test_what_makes_no_sense_is_refused_by_name(self, tmp_path: Path) -> None:
        """With the reason, on any member; and nothing is changed."""

        async def story(cluster: Cluster) -> None:
            first, second, third = cluster.group.names
            address = cluster.group.address
            cases: Sequence[tuple[type[ChangeRefused], MemberChange]] = (
                (MemberExists, AddMember(first, address("dan"))),
                (AddressTaken, AddMember("dan", address(second))),
                (AddressTaken, UpdateMember(first, address(third))),
                (UnknownMember, RemoveMember("nobody")),
                (UnknownMember, PromoteMember("nobody")),
                (UnknownMember, UpdateMember("nobody", address("dan"))),
                (NotLearner, PromoteMember(first)),
                (ChangeRefused, AddMember("dan", "no address")),
                (ChangeRefused, AddMember("", address("dan"))),
            )
            leader = await cluster.agree()
            before = members_of(leader)
            for node in (
                leader,
                next(node for node in cluster.nodes.values() if node is not leader),
            ):
                for refusal, refused in cases:
                    with pytest.raises(refusal):
                        await change(node, refused)
                with pytest.raises(ChangeRefused):
                    await change(node)
                with pytest.raises(MemberExists):  # all or nothing
                    await change(node, RemoveMember(first), AddMember(second, address("dan")))
                assert members_of(node) == before

        self.run(tmp_path, story)

    def test_a_group_does_not_come_to_depend_on_who_is_not_there(self, tmp_path: Path) -> None:
        """Neither on members that never started, nor on some that are out of reach."""

        async def story(cluster: Cluster) -> None:
            address = cluster.group.address
            leader = await cluster.agree()
            newcomers = [AddMember(name, address(name)) for name in ("dan", "eve", "fay")]
            with pytest.raises(NotEnoughStarted):
                await change(leader, *newcomers)
            name = cluster.follower().engine.node_id
            await cluster.stop(name)
            await noticed(cluster)
            with pytest.raises((GroupUnhealthy, NotEnoughStarted)):
                await change_once(leader, RemoveMember(cluster.follower().engine.node_id))
            await change(leader, RemoveMember(name))  # who is not there may always go
            assert set(members_of(leader)) == set(cluster.group.names) - {name}

        self.run(tmp_path, story)

    def test_changes_at_once_do_not_undo_each_other(self, tmp_path: Path) -> None:
        """Each is a step from where the one before it led."""

        async def story(cluster: Cluster) -> None:
            nodes = list(cluster.nodes.values())
            first, second, third = cluster.group.names
            address = cluster.group.address
            await asyncio.gather(
                change(nodes[0], AddMember("dan", address("dan"), learner=True)),
                change(nodes[1], UpdateMember(second, address(second), b"two")),
                change(nodes[2], UpdateMember(third, address(third), b"three")),
                change(nodes[0], UpdateMember(first, address(first), b"one")),
            )
            await propose(nodes[0], b"x")
            found = {member.id: member.context for member in nodes[0].status().engine.members}
            assert found == {first: b"one", second: b"two", third: b"three", "dan": b""}

        self.run(tmp_path, story)

    def test_many_members_change_in_one_step(self, tmp_path: Path) -> None:
        """Two go and one comes at once: without joint consensus two groups could decide apart."""

        async def story(cluster: Cluster) -> None:
            leader = await cluster.agree()
            await cluster.start("dan")
            followers = [
                name for name in cluster.nodes if name != leader.engine.node_id and name != "dan"
            ]
            await change(leader, AddMember("dan", cluster.group.address("dan"), learner=True))
            await ready(
                lambda: change(leader, PromoteMember("dan"), *map(RemoveMember, followers)),
                LearnerNotReady,
            )
            for name in followers:
                await leaves(cluster, name)
            assert set(members_of(leader)) == {leader.engine.node_id, "dan"}
            await propose(leader, b"two are left")
            await cluster.caught_up(1)

        self.run(tmp_path, story)

    def test_the_members_survive_a_restart_of_all(self, tmp_path: Path) -> None:
        """They are what the log says, not what the members were first started with."""

        async def story(cluster: Cluster) -> None:
            first, *others = cluster.group.names
            await cluster.start("dan")
            await change(cluster.nodes[first], AddMember("dan", cluster.group.address("dan")))
            await ready_to_count(cluster, "dan")
            await change(cluster.nodes["dan"], RemoveMember(first))
            await leaves(cluster, first)
            await propose(await cluster.agree(), b"kept")
            names = list(cluster.nodes)
            for name in names:
                await cluster.stop(name)
            for name in names:
                await cluster.start(name)
            await cluster.agree()
            await cluster.caught_up(1)
            for node in cluster.nodes.values():
                assert set(members_of(node)) == {*others, "dan"}
                assert machine_of(node).commands == [b"kept"]

        self.run(tmp_path, story)

    def test_leadership_is_handed_to_another_voter(self, tmp_path: Path) -> None:
        """By the leader alone, and to nobody else."""

        async def story(cluster: Cluster) -> None:
            with pytest.raises(BadTransferTarget):
                await hand_over(cluster, "nobody")
            leader, target = await cluster.agree(), cluster.follower()
            await hand_over(cluster, target.engine.node_id)
            await propose(leader, b"x")

        self.run(tmp_path, story)


async def ready_to_count(cluster: Cluster, name: str) -> None:
    """Wait until a new member has everything that is committed."""
    index = max(node.status().engine.commit_index for node in cluster.nodes.values())
    node = cluster.nodes[name]
    await eventually(lambda: node.status().applied_index >= index, f"{name} caught up")


async def hand_over(cluster: Cluster, name: str) -> None:
    """Have the leader, whoever it is, hand leadership over, until a member has taken it."""

    async def handed() -> bool:
        for node in cluster.nodes.values():
            if node.status().engine.role is Role.LEADER:
                if node.engine.node_id == name:
                    return True
                with contextlib.suppress(ProposalDropped):
                    await node.transfer_leadership(name, timeout_s=WAIT_S)
            else:
                with pytest.raises((NotLeader, BadTransferTarget)):
                    await node.transfer_leadership("nobody")
        return False

    await eventually(handed, f"{name} leads")


async def noticed(cluster: Cluster) -> None:
    """Wait until the leader has noticed that a member is gone: it lets nobody join then."""
    attempts = itertools.count(1)

    async def refused() -> bool:
        name = f"late{next(attempts)}"
        (node, *_) = cluster.nodes.values()
        try:
            await change_once(node, AddMember(name, cluster.group.address(name), learner=True))
        except (GroupUnhealthy, NotEnoughStarted):
            return True
        await change(node, RemoveMember(name))
        return False

    await eventually(refused, "a learner that is refused while a member is away")


async def leaves(cluster: Cluster, name: str) -> None:
    """Wait until a removed member has noticed, then end it."""
    async with asyncio.timeout(WAIT_S):
        await cluster.nodes[name].wait_halted()
    assert cluster.nodes[name].status().removed
    await cluster.stop(name)
