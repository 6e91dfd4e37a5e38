"""The operator: hands over leadership, changes who is in the group, replaces what is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chaos.sim.options import SECOND_US
from consensus.errors import ConsensusError
from consensus.raft.configuration import Configuration, InvalidChange
from consensus.types import AddMember, MemberChange, NodeId, PromoteMember, RemoveMember

if TYPE_CHECKING:
    from chaos.sim.member import Member
    from chaos.sim.world import World

MEMBERS_MAX: Final = 6
"""Voters and learners that the operator makes a group grow to."""
VOTERS_MAX: Final = 5
MEMBERS_EVER_MAX: Final = 16
"""Members made in one run, gone ones included: names are never used again."""
CHANGES: Final = (
    *("grow", "learner", "promote", "promote", "shrink", "leader", "replace", "demote"),
    "overhaul",
)
RETRY_US: Final = SECOND_US // 4
STEPS_SHARE: Final = 0.5
"""So many changes are asked for as programs do, in steps that the leader checks; the others name
the members that there are to be, which allows what no check would."""


class Admin:
    """The operator of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._prng = world.stream("admin")
        self._steps_prng = world.stream("admin's steps")
        self._on = True

    def schedule(self) -> None:
        """Begin, as the options say."""
        options = self._world.options
        if options.transfer_every_s:
            self._again(options.transfer_every_s, "transfer")
        if options.membership_every_s:
            self._again(options.membership_every_s, "change")

    def stop(self) -> None:
        """No more changes, but for replacing what is broken."""
        self._on = False

    def _again(self, every_s: float, what: str) -> None:
        def act(_: None) -> None:
            if not self._on:
                return
            leader = self._world.leader()
            if leader is not None:
                if what == "transfer":
                    self._transfer(leader)
                else:
                    self._change(leader)
            self._again(every_s, what)

        wait = 1 + int(self._prng.expovariate(1 / every_s) * SECOND_US)
        self._world.at(self._world.now + wait, act, None)

    def _transfer(self, leader: Member) -> None:
        driver = leader.driver
        if driver is None:
            return
        voters = driver.core.configuration.voters
        target = self._prng.choice(voters)
        if target == leader.name or driver.core.configuration.joint:
            return
        self._world.trace.note(self._world.now, "transfer", leader.name, target)
        self._world.count("transfers")
        driver.transfer_leadership(target)
        leader.pump()

    # -- members ------------------------------------------------------------------------------

    def _change(self, leader: Member) -> None:
        """Draw one of the changes that operators make."""
        if leader.driver is None:
            return
        prng = self._prng
        now = leader.driver.core.configuration
        voters, learners = set(now.voters), set(now.learners)
        followers = sorted(voters - {leader.name})
        kind = prng.choice(CHANGES)
        small = len(voters) + len(learners) < MEMBERS_MAX
        if kind == "grow" and small and len(voters) < VOTERS_MAX:
            voters.update(self._newcomer())
        elif kind == "learner" and small:
            learners.update(self._newcomer())
        elif kind == "promote" and learners and len(voters) < VOTERS_MAX:
            voters.add(sorted(learners)[0])
            learners -= voters
        elif kind == "shrink" and len(voters) > 1 and followers:
            voters.remove(prng.choice(followers))
        elif kind == "leader" and followers:
            voters.discard(leader.name)
        elif kind == "replace" and followers:
            voters.remove(prng.choice(followers))
            voters.update(self._newcomer())
        elif kind == "overhaul" and len(followers) > 1:
            # Two of three at once: without a joint configuration two disjoint majorities.
            voters.difference_update(prng.sample(followers, 2))
            voters.update(self._newcomer(), learners)
            learners = set()
        elif kind == "demote" and len(voters) > 1 and followers:
            chosen = prng.choice(followers)
            voters.remove(chosen)
            learners.add(chosen)
        else:
            return
        self._ask(leader, kind, voters, learners)

    def _newcomer(self) -> set[NodeId]:
        """Start a member that was never in the group; an idle one if there is one."""
        world = self._world
        for name, member in world.members.items():
            if not member.retired and not member.damaged and name not in self._known():
                return {name}
        if len(world.members) >= MEMBERS_EVER_MAX:
            return set()
        return {world.new_member(Configuration()).name}

    def _known(self) -> set[NodeId]:
        """Everyone whom any log names: they are, were or may become members."""
        known = set(self._world.promises.once_member)
        for member in self._world.members.values():
            if member.driver is not None:
                for _, configuration in member.driver.core.configurations:
                    known.update(configuration.members)
        return known

    def _ask(self, leader: Member, kind: str, voters: set[NodeId], learners: set[NodeId]) -> None:
        world = self._world
        if leader.driver is None:
            return
        core = leader.driver.core
        steps = steps_between(core.configuration, voters, learners)
        try:
            if steps and self._steps_prng.random() < STEPS_SHARE:
                leader.driver.change_members(steps)
                world.count("changes in steps")
            else:
                core.change_membership(sorted(voters), sorted(learners))
        except (ConsensusError, InvalidChange) as error:
            world.trace.note(world.now, "no change", kind, str(error))
            return
        world.trace.note(world.now, "change", kind, *sorted(voters), "+", *sorted(learners))
        world.count(f"change {kind}")
        leader.pump()

    def sweep(self) -> None:
        """End the processes of members that a committed change has removed, after a while."""
        world = self._world
        at, configuration = world.promises.configuration
        if not at or configuration.joint:
            return
        for name in sorted(world.promises.once_member - set(configuration.members)):
            member = world.members[name]
            if not member.retired and self._prng.random() < 0.3:
                world.trace.note(world.now, "retire", name)
                world.count("members retired")
                world.retire(member)

    def replace_damaged(self, _: None = None) -> None:
        """Take out a member whose disk is damaged and put a new one in its place; until done."""
        world = self._world
        leader = world.leader()
        if leader is not None and leader.driver is not None:
            configuration = leader.driver.core.configuration
            damaged = [name for name in configuration.members if world.members[name].damaged]
            if not damaged:
                return
            voters = set(configuration.voters) - set(damaged)
            if len(voters) < len(configuration.voters):
                voters.update(self._newcomer())
            self._ask(leader, "repair", voters, set(configuration.learners) - set(damaged))
        world.at(world.now + RETRY_US, self.replace_damaged, None)


def steps_between(
    now: Configuration, voters: set[NodeId], learners: set[NodeId]
) -> list[MemberChange]:
    """Return the steps that lead to these members; none if there are none that do (a demotion)."""
    if set(now.voters) & learners:
        return []
    steps: list[MemberChange] = [
        RemoveMember(node) for node in now.members if node not in voters | learners
    ]
    for node in sorted(voters | learners):
        if node not in now.members:
            steps.append(AddMember(node, "", learner=node in learners))
        elif node in voters and node in now.learners:
            steps.append(PromoteMember(node))
    return steps
