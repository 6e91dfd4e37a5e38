"""Whether a change of members may be made now, and what it leads to.

Changes are steps (add, remove, promote, update), checked by the leader against its configuration in
force: whoever asked for one need not know the others', and two who ask at once do not undo each
other's work. What is refused leaves no trace in the log.

What makes a sensible change unsafe is judged as etcd does (``strict-reconfig-check``): the group
must not come to depend on members that never started or are out of reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

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
    TooManyLearners,
    UnknownMember,
)
from consensus.raft.configuration import Configuration, Peer
from consensus.types import (
    AddMember,
    MemberChange,
    NodeId,
    PromoteMember,
    RemoveMember,
    UpdateMember,
)

if TYPE_CHECKING:
    from consensus.raft.core import Core

READY_PERCENT: Final = 90
"""Of the leader's log: with less a learner is not promoted (etcd has the same bound)."""


@attrs.define(slots=True)
class _Draft:
    """The members while the steps of a change are applied to them, one after the other."""

    voters: set[NodeId]
    learners: set[NodeId]
    peers: dict[NodeId, Peer]
    removed: set[NodeId]
    learners_max: int
    promoted: list[NodeId] = attrs.field(factory=list)

    def apply(self, change: MemberChange) -> None:
        match change:
            case AddMember():
                self._add(change)
            case RemoveMember(node):
                self._must_be_member(node)
                self.voters.discard(node)
                self.learners.discard(node)
                self.peers.pop(node, None)
                self.removed.add(node)
            case PromoteMember(node):
                self._must_be_member(node)
                if node in self.voters:
                    raise NotLearner(f"{node!r} votes already; only a learner can be promoted")
                self.learners.remove(node)
                self.voters.add(node)
                self.promoted.append(node)
            case UpdateMember(node, address, context):
                self._must_be_member(node)
                self._must_be_free(address, node)
                if context is None:
                    context = self.peers[node].context if node in self.peers else b""
                self.peers[node] = Peer(node, address, context)

    def _add(self, change: AddMember) -> None:
        node = change.node_id
        if node in self.removed:
            raise MemberWasRemoved(
                f"{node!r} was removed from this group, and ids are never used again; add the "
                "member under a new one"
            )
        if node in self.voters or node in self.learners:
            raise MemberExists(f"{node!r} is a member already")
        self._must_be_free(change.address, node)
        if change.learner:
            if len(self.learners) >= self.learners_max:
                raise TooManyLearners(
                    f"the group has {len(self.learners)} learners, and at most "
                    f"{self.learners_max} are allowed; promote or remove one first"
                )
            self.learners.add(node)
        else:
            self.voters.add(node)
        self.peers[node] = Peer(node, change.address, change.context)

    def _must_be_member(self, node: NodeId) -> None:
        if node in self.voters or node in self.learners:
            return
        if node in self.removed:
            raise MemberWasRemoved(f"{node!r} was removed from this group before")
        raise UnknownMember(f"{node!r} is not a member of this group")

    def _must_be_free(self, address: str, node: NodeId) -> None:
        for peer in self.peers.values():
            if address and peer.address == address and peer.id != node:
                raise AddressTaken(f"{address} is the address of member {peer.id!r}")


def next_configuration(core: Core, changes: Sequence[MemberChange]) -> Configuration:
    """Return what follows the configuration in force, if the leader may go there now.

    Raises:
        ChangeRefused: and its subclasses, as ``Engine.change_membership`` lists them.
        ChangeUnderWay: this leader has not heard from everybody yet; it soon will have.
    """
    if not changes:
        raise ChangeRefused("a change of members needs at least one step")
    now = core.configuration
    draft = _Draft(
        set(now.voters),
        set(now.learners),
        {peer.id: peer for peer in now.peers},
        set(now.removed),
        core.config.learners_max,
    )
    for change in changes:
        draft.apply(change)
    if not draft.voters:
        raise NotEnoughStarted("a group needs at least one voter; this would remove the last")
    for node in draft.promoted:
        _check_ready(core, node)
    if core.config.strict_reconfig_check:
        _check_safe(core, now, draft)
    return now.change(draft.voters, draft.learners, draft.peers.values())


def _check_ready(core: Core, node: NodeId) -> None:
    """A learner far behind would vote for nothing, and hold up commits until it caught up."""
    progress = core.progress.get(node)
    reached = progress.match_index if progress is not None else 0
    if reached * 100 < core.log.last_index * READY_PERCENT:
        raise LearnerNotReady(
            f"{node!r} has the log up to {reached} of {core.log.last_index}; it can be promoted "
            f"once it has {READY_PERCENT} % of it"
        )


def _check_safe(core: Core, now: Configuration, draft: _Draft) -> None:
    before = set(now.voters)
    joins = draft.voters - before
    added = (draft.voters | draft.learners) - before - set(now.learners)
    leaves = before - draft.voters
    if not (added or joins or leaves):
        return
    started = {node for node in before | set(now.learners) if _heard(core, node) is not None}
    silent = before - started - leaves
    if silent and core.now_ticks - core.leader_since < core.config.election_timeout_ticks:
        raise ChangeUnderWay(f"this leader is new and has not heard of {_names(silent)} yet")
    majority = len(draft.voters) // 2 + 1
    grows_from_one = len(before) == 1 and len(draft.voters) == 2 and before <= started
    if (joins or leaves) and len(draft.voters & started) < majority and not grows_from_one:
        raise NotEnoughStarted(
            f"{len(draft.voters & started)} of the {len(draft.voters)} voters that the group would "
            f"have are known to have started, and it would need {majority}: "
            f"start {_names(draft.voters - started)} first, or remove it"
        )
    active = {node for node in before if _is_active(core, node)}
    if added and active != before:
        raise GroupUnhealthy(
            f"{_names(before - active)} cannot be reached; bring it back, or remove it, before "
            "the group grows"
        )
    if leaves & active and len(draft.voters & (active | joins)) < majority:
        raise GroupUnhealthy(
            f"without {_names(leaves)} too few voters could be reached: "
            f"{_names(draft.voters - active)} cannot be"
        )


def _heard(core: Core, node: NodeId) -> int | None:
    """The tick at which this leader last heard of a member; None if it never did."""
    if node == core.node_id:
        return core.now_ticks
    progress = core.progress.get(node)
    return progress.heard_tick if progress is not None else None


def _is_active(core: Core, node: NodeId) -> bool:
    heard = _heard(core, node)
    return heard is not None and core.now_ticks - heard <= core.config.election_timeout_ticks


def _names(nodes: set[NodeId]) -> str:
    return ", ".join(sorted(nodes))
