"""Steps of a change: what a leader makes of them, against an obvious twin; what it refuses."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consensus.errors import (
    AddressTaken,
    ChangeRefused,
    ChangeUnderWay,
    GroupUnhealthy,
    LearnerNotReady,
    MemberExists,
    MemberWasRemoved,
    NotEnoughStarted,
    NotLearner,
    ProposalDropped,
    TooManyLearners,
    UnknownMember,
)
from consensus.raft.configuration import Configuration, InvalidConfiguration, Peer
from consensus.types import (
    AddMember,
    MemberChange,
    PromoteMember,
    RemoveMember,
    UpdateMember,
)
from tests.consensus.raft.group import Group

NODES = "abcdefg"


def led(
    voters: str = "abc", learners: str = "", *, strict: bool = False, outsiders: str = ""
) -> Group:
    settings = {"strict_reconfig_check": strict, "learners_max": 2}
    group = Group(voters, learners, outsiders=outsiders, settings=settings)
    group.elect("a")
    group.beat("a")
    return group


class Twin:
    """The members as a plain table: what somebody with paper and pencil would keep."""

    def __init__(self, voters: str, learners: str) -> None:
        self.votes = dict.fromkeys(voters, True) | dict.fromkeys(learners, False)
        self.addresses: dict[str, str] = {}
        self.gone: set[str] = set()

    def take(self, step: MemberChange) -> type[ChangeRefused] | None:
        """Do the step, or return what it should be refused with."""
        node = step.node_id
        if isinstance(step, AddMember):
            if node in self.gone:
                return MemberWasRemoved
            if node in self.votes:
                return MemberExists
            if step.address in self.addresses.values():
                return AddressTaken
            if step.learner and list(self.votes.values()).count(False) == 2:
                return TooManyLearners
            self.votes[node], self.addresses[node] = not step.learner, step.address
            return None
        if node not in self.votes:
            return MemberWasRemoved if node in self.gone else UnknownMember
        if isinstance(step, RemoveMember):
            del self.votes[node]
            self.gone.add(node)
            self.addresses.pop(node, None)
        elif isinstance(step, PromoteMember):
            if self.votes[node]:
                return NotLearner
            self.votes[node] = True
        else:
            if any(a == step.address and n != node for n, a in self.addresses.items()):
                return AddressTaken
            self.addresses[node] = step.address
        return None


@st.composite
def steps(draw: st.DrawFn) -> MemberChange:
    node = draw(st.sampled_from(NODES))
    address = f"{draw(st.sampled_from(NODES))}:1"
    step: MemberChange = draw(
        st.sampled_from(
            (
                AddMember(node, address, learner=False),
                AddMember(node, address, learner=True),
                RemoveMember(node),
                PromoteMember(node),
                UpdateMember(node, address),
            )
        )
    )
    return step


def quorums(configuration: Configuration) -> list[set[str]]:
    def least(nodes: tuple[str, ...]) -> list[set[str]]:
        return [set(c) for c in combinations(nodes, len(nodes) // 2 + 1)] if nodes else [set()]

    return [
        one | other
        for one in least(configuration.voters)
        for other in least(configuration.voters_outgoing)
    ]


@example([RemoveMember("b"), RemoveMember("c"), AddMember("d", "d:1")])
@example([AddMember("b", "x:1")])
@example([RemoveMember("b"), AddMember("b", "x:1")])
@example([AddMember("d", "d:1", learner=True), PromoteMember("d"), RemoveMember("a")])
@given(st.lists(steps(), min_size=1, max_size=5))
def test_steps_lead_where_they_would_on_paper(changes: list[MemberChange]) -> None:
    """All or nothing, in order; and majorities overlap at each configuration on the way."""
    group = led(outsiders="defg")
    core = group["a"]
    before = core.configuration
    twin = Twin("abc", "")
    refusal = next(filter(None, map(twin.take, changes)), None)
    if refusal is None and not any(twin.votes.values()):
        refusal = NotEnoughStarted
    promoted = [c.node_id for c in changes if isinstance(c, PromoteMember)]
    if refusal is None and promoted:
        refusal = LearnerNotReady  # the new ones have nothing of the log yet
    if refusal is not None:
        with pytest.raises(refusal) as caught:
            core.change_members(changes)
        assert type(caught.value) is refusal
        assert core.configuration is before
        return
    core.change_members(changes)
    way = [before, core.configuration]
    if way[-1].joint:
        way.append(way[-1].leave_joint())
    for old, new in pairwise(way):
        assert all(one & other for one in quorums(old) for other in quorums(new))
    final = way[-1]
    assert set(final.voters) == {node for node, votes in twin.votes.items() if votes}
    assert set(final.learners) == {node for node, votes in twin.votes.items() if not votes}
    assert {peer.id: peer.address for peer in final.peers} == twin.addresses
    assert set(final.removed) == set("abc") - set(twin.votes)
    assert Configuration.decode(final.encode()) == final


def test_who_left_during_a_joint_change_is_reached_until_it_ends() -> None:
    peers = [Peer(node, f"{node}:1") for node in "abc"]
    joint = Configuration.of("abc", peers=peers).change("ad", peers=[Peer("a", "a:1")])
    assert [peer.id for peer in joint.peers] == ["a", "b", "c"]
    assert joint.removed == ()
    assert [peer.id for peer in joint.leave_joint().peers] == ["a"]
    assert joint.leave_joint().removed == ("b", "c")


def test_a_learner_is_promoted_once_it_has_nearly_all_of_the_log() -> None:
    group = led("abc", "l", strict=True)
    group.cut = {"l"}
    for number in range(40):
        group.propose("a", f"{number}")
        group.stabilize()
    with pytest.raises(LearnerNotReady, match="90 %"):
        group["a"].change_members([PromoteMember("l")])
    group.cut = set()
    for _ in range(3):
        group.beat("a")
    group["a"].change_members([PromoteMember("l")])
    group.beat("a")
    assert group["l"].configuration.voters == ("a", "b", "c", "l")


def test_a_group_does_not_come_to_depend_on_who_never_started_or_is_away() -> None:
    group = led("abc", strict=True)
    with pytest.raises(NotEnoughStarted):
        group["a"].change_members([AddMember(node, f"{node}:1") for node in "def"])
    group.cut = {"c"}
    for _ in range(40):
        group.beat("a")
    with pytest.raises(GroupUnhealthy, match="c"):
        group["a"].change_members([AddMember("d", "d:1")])
    with pytest.raises(GroupUnhealthy, match="b"):
        group["a"].change_members([RemoveMember("b")])
    group["a"].change_members([RemoveMember("c")])
    group.stabilize("a", "b")
    assert group["b"].configuration == Configuration.of("ab", removed="c")


def test_a_leader_that_leaves_takes_no_more_and_leaves_nothing_undecided() -> None:
    group = led("abc")
    group.propose("a", "before")
    group["a"].change_members([RemoveMember("a")])
    with pytest.raises(ProposalDropped, match="leaving"):
        group["a"].propose([b"late"])
    with pytest.raises(ProposalDropped):
        group["a"].change_members([RemoveMember("b")])
    group.stabilize()
    leader = next(name for name in "bc" if group[name].is_leader)
    group.beat(leader)
    assert group.members["b"].commands == group.members["c"].commands == ["before"]
    assert group["b"].configuration == Configuration.of("bc", removed="a")


def test_a_change_waits_for_the_one_before() -> None:
    group = led("abc")
    group["a"].change_members([UpdateMember("b", "b:2")])
    with pytest.raises(ChangeUnderWay):
        group["a"].change_members([UpdateMember("c", "c:2")])
    group.stabilize()
    group["a"].change_members([UpdateMember("c", "c:2")])


def test_a_configuration_of_a_newer_program_is_refused_by_name() -> None:
    data = Configuration.of("abc").encode().replace(b'"version":1', b'"version":9')
    with pytest.raises(InvalidConfiguration, match="format version 9"):
        Configuration.decode(data)
    with pytest.raises(InvalidConfiguration, match="not a configuration"):
        Configuration.decode(b"{")
