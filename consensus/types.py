"""The records that every part of the framework shares.

Names are Raft's own (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm",
figure 2). All records are frozen: they can be handed between layers without copies. The few that
are made anew for every command or every entry are named tuples, which are made in a quarter of the
time (docs/decisions/0010-records-of-the-hot-path.md); the others are attrs classes. A field
``index`` hides a tuple's method of that name, which nobody needs here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import attrs

NodeId = str
"""What identifies a member, for ever: unique in its group, and never used again for another.

It is any text without meaning of its own; what people call a member is an attribute of it.
"""


@attrs.frozen(slots=True)
class Position:
    """Where a state machine stands in the log: an identity, not a number.

    Two machines with the same index but another term, or another group, have not applied the same
    entries. Index 0 means "nothing applied": the position of every in-memory machine at start.
    """

    index: int = 0
    term: int = 0
    clock_ms: int = 0
    group_id: int = 0


class Entry(NamedTuple):
    """One committed command, as a machine's ``apply`` receives it.

    ``index`` grows by one for each command of the group and is the same on every member.
    ``clock_ms`` (milliseconds since the epoch) was stamped by the proposer and never runs backwards
    in the log; it is the only clock that a machine may read.
    """

    term: int
    index: int  # type: ignore[assignment]
    clock_ms: int
    command: bytes


class Applied(NamedTuple):
    """The first of a proposal's three outcomes: it is committed and this member has applied it."""

    term: int
    index: int  # type: ignore[assignment]
    result: Any


class ProposalId(NamedTuple):
    """Names one proposal for ever: who made it, in which life of that process, and the how-manieth.

    Args:
        member: hash of the proposing member's name, 64 bits.
        incarnation: drawn anew at each start of that member, 64 bits.
        sequence: 1, 2, 3, ... within the incarnation.
    """

    member: int
    incarnation: int
    sequence: int


class Proposal(NamedTuple):
    """A command on its way to the log, stamped with its proposer's wall clock (milliseconds)."""

    id: ProposalId
    clock_ms: int
    command: bytes


class Committed(NamedTuple):
    """Commands of one proposer that the engine has committed, one after another: at least one.

    In columns, because a record for each command would cost every member more than the rest of what
    is done for it (docs/decisions/0019-many-commands-in-an-entry.md).

    Args:
        term: of the log's entry.
        index: of the first command; each further one has the next.
        member, incarnation: of every proposal's ``ProposalId``.
        sequences: the rest of each ``ProposalId``.
        clocks_ms: as ``Proposal.clock_ms``.
        commands: as ``Proposal.command``.
    """

    term: int
    index: int  # type: ignore[assignment]
    member: int
    incarnation: int
    sequences: Sequence[int]
    clocks_ms: Sequence[int]
    commands: Sequence[bytes]

    @classmethod
    def of(cls, term: int, index: int, proposals: Sequence[Proposal]) -> Committed:
        """Return proposals of one node as committed from ``index`` on."""
        (member, incarnation, _), _, _ = proposals[0]
        identities, clocks_ms, commands = zip(*proposals, strict=True)
        sequences = [sequence for _, _, sequence in identities]
        return cls(term, index, member, incarnation, sequences, clocks_ms, commands)

    @property
    def last_index(self) -> int:
        """Index of the last command."""
        return self.index + len(self.commands) - 1

    def up_to(self, index: int) -> Committed:
        """Return the part that ends with ``index``, which is one of these."""
        return self._part(0, index + 1 - self.index)

    def after(self, index: int) -> Committed:
        """Return what comes after ``index``, which is before the last command."""
        return self._part(max(0, index + 1 - self.index), len(self.commands))

    def _part(self, start: int, stop: int) -> Committed:
        return self._replace(
            index=self.index + start,
            sequences=self.sequences[start:stop],
            clocks_ms=self.clocks_ms[start:stop],
            commands=self.commands[start:stop],
        )


class Role(enum.Enum):
    """A member's role in its term (paper, section 5.1; thesis, section 9.6 for pre-candidates)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Consistency(enum.Enum):
    """What a query may see.

    LINEARIZABLE sees every write acknowledged before the query began, on any member. SERIALIZABLE
    answers from this member's own state at once and may be behind.
    """

    LINEARIZABLE = "linearizable"
    SERIALIZABLE = "serializable"


@attrs.frozen(slots=True)
class Member:
    """One member of a group, as the replicated configuration has it.

    Args:
        id: the member.
        address: where its peers reach it, "host:port".
        learner: whether it only listens; otherwise it votes.
        context: what the program on top keeps with it; the framework never reads it.
    """

    id: NodeId
    address: str
    learner: bool = False
    context: bytes = b""


@attrs.frozen(slots=True)
class AddMember:
    """A new member joins: as a voter, or as a learner that can be promoted later."""

    node_id: NodeId
    address: str
    learner: bool = False
    context: bytes = b""


@attrs.frozen(slots=True)
class RemoveMember:
    """A member leaves for good: its id can never be a member of this group again."""

    node_id: NodeId


@attrs.frozen(slots=True)
class PromoteMember:
    """A learner becomes a voter."""

    node_id: NodeId


@attrs.frozen(slots=True)
class UpdateMember:
    """A member is reached elsewhere from now on. ``context`` None leaves that as it is."""

    node_id: NodeId
    address: str
    context: bytes | None = None


MemberChange = AddMember | RemoveMember | PromoteMember | UpdateMember
"""One step from the configuration in force to the next; never a whole list of members."""


@attrs.frozen(slots=True)
class EngineStatus:
    """What an engine knows about itself at one moment.

    ``leader`` is None while no leader is known. ``log_index`` is the last index in this member's
    log where the engine can tell, otherwise ``commit_index``. ``members`` is the configuration in
    force here, which may not be committed yet. ``feature_level`` is the least that any member has
    declared (see ``Node.propose``), 0 where one has not been heard of.
    """

    node_id: NodeId
    role: Role
    term: int
    leader: NodeId | None
    commit_index: int
    log_index: int
    members: tuple[Member, ...]
    has_quorum: bool
    feature_level: int = 0
    details: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(slots=True)
class NodeStatus:
    """An engine's status with what the node adds: how far its machine is, and whether it stopped.

    ``halted`` is empty on a healthy node; otherwise it says, for a person, why the node stopped
    applying. ``removed`` says that this was because the member was removed from its group.
    """

    engine: EngineStatus
    applied_index: int
    applied_term: int
    pending_proposals: int
    halted: str = ""
    removed: bool = False
