"""The engine contract: three ways to replicate behind one face.

An engine takes proposals, commits them in one order on every member, and delivers what is
committed to its host (the node). It never sees a state machine: it asks the host for a snapshot,
and hands it one to restore. ``consensus.testing.EngineContract`` is this text as tests.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Protocol

import attrs

from consensus.errors import ConsensusError, Unsupported
from consensus.statemachine import StateSnapshot
from consensus.stats import EngineStats
from consensus.types import (
    Committed,
    EngineStatus,
    MemberChange,
    NodeId,
    Position,
    Proposal,
    ProposalId,
)


class Fault(enum.Flag):
    """Faults that an engine may claim to survive without losing an acknowledged command."""

    NONE = 0
    PROCESS_CRASH_MINORITY = enum.auto()
    PROCESS_CRASH_ALL = enum.auto()
    POWER_LOSS = enum.auto()
    PARTITION = enum.auto()
    PAUSE = enum.auto()
    MESSAGE_LOSS = enum.auto()
    MESSAGE_DUPLICATION = enum.auto()
    MESSAGE_REORDERING = enum.auto()
    DISK_CORRUPTION = enum.auto()


@attrs.frozen(slots=True)
class Capabilities:
    """What an engine can do. Tests and the chaos harness read it; nothing else guesses."""

    survives: Fault
    replicated: bool = True
    persistent: bool = True
    membership_change: bool = False
    learners: bool = False
    joint_consensus: bool = False
    read_index: bool = False
    leadership_transfer: bool = False
    notes: tuple[str, ...] = ()


class EngineHost(Protocol):
    """What an engine calls back on. All calls come on the event loop, one at a time.

    The order is fixed: ``committed`` in log order, without gap or repetition, starting after the
    position that ``start`` settled; ``restore`` only between two ``committed`` calls.
    """

    def position(self) -> Position:
        """Where the machine's durable state stands (see ``StateMachine.position``)."""

    def discard(self, reason: str) -> None:
        """The machine's durable state is not of this log: forget it, and log ``reason``."""

    def committed(self, batch: Sequence[Committed]) -> None:
        """Apply this batch, of at least one command.

        Never raises: a machine that fails halts the node instead.
        """

    def dropped(self, proposal: ProposalId, error: ConsensusError) -> None:
        """This proposal will not come through ``committed`` (ProposalDropped), or might not
        (OutcomeUnknown)."""

    def snapshot(self) -> tuple[Position, StateSnapshot]:
        """Freeze the machine now; the position is that of the last entry it applied."""

    def restore_steps(self, position: Position, chunks: Iterable[bytes]) -> Iterator[None]:
        """Replace the machine's state in steps; it stands at ``position`` after the last one."""

    async def answer(self, request: bytes) -> bytes:
        """Answer another member's ``ask_leader``. The engine has confirmed that this node leads."""

    def halt(self, reason: str) -> None:
        """The engine cannot go on without risk to a promise. Stop, and tell a person why."""

    def removed(self, reason: str) -> None:
        """This member was removed from its group by a committed change: halt for good."""

    def is_halted(self) -> bool:
        """Whether the host has stopped for good: the engine must leave the group at once."""


class Engine(abc.ABC):
    """One member's half of a replicated log.

    ``propose``, ``dropped`` and ``committed`` form one rule: after ``propose(p)``, exactly one of
    these reaches the host, in the end, on this member: ``committed`` with ``p``, or ``dropped``
    with ``p``'s id. A proposal reported as ``OutcomeUnknown`` may be committed later; the host
    ignores that it once knew it.
    """

    @property
    @abc.abstractmethod
    def capabilities(self) -> Capabilities:
        """What this engine supports and survives."""

    @property
    @abc.abstractmethod
    def node_id(self) -> NodeId:
        """This member's name."""

    @abc.abstractmethod
    async def start(self, host: EngineHost) -> None:
        """Open storage and transport, settle the machine's position, begin to take part.

        Position rule: if the log has an entry at the machine's index with the machine's term, go
        on with the next; if the log is shorter there, has another term, or is of another group,
        call ``host.discard`` and start the machine from snapshot and log. There is no other test.

        Raises:
            StorageError: the data directory is locked, damaged or another cluster's.
            ConfigError: an address cannot be bound, or settings contradict each other.
        """

    @abc.abstractmethod
    async def stop(self) -> None:
        """Stop taking part and release everything. Safe to call twice, and after a failed start."""

    @abc.abstractmethod
    def propose(self, proposals: Sequence[Proposal]) -> None:
        """Take proposals for the log, in order. Returns at once; outcomes reach the host.

        Called at most once per turn of the event loop, with all that came up in it: the engine may
        give them one log record and one sync.
        """

    @abc.abstractmethod
    async def read_index(self, timeout_s: float) -> int:
        """Return an index such that a machine that applied it has every write acknowledged before.

        Raises:
            ReadFailed: no quorum confirmed in ``timeout_s`` seconds.
        """

    @abc.abstractmethod
    async def ask_leader(self, request: bytes, timeout_s: float) -> bytes:
        """Have the leader's host answer ``request``; the leader confirms that it leads first.

        Raises:
            NotLeader: no leader is known, or the one asked no longer leads.
            ReadFailed: no answer in ``timeout_s`` seconds.
        """

    @abc.abstractmethod
    def status(self) -> EngineStatus:
        """Return what this member knows now."""

    @abc.abstractmethod
    def watch_status(self) -> AsyncIterator[EngineStatus]:
        """Yield the status now, and again after each change of term, role, leader or members."""

    def stats(self) -> EngineStats:
        """Return what this engine has counted since it started, as it is now."""
        return EngineStats()

    def compact(self) -> None:
        """Ask for a snapshot and a shorter log soon. A hint; returns at once."""

    def distrust(self, reason: str) -> None:
        """Note, durably, that the machine's state is damaged: the next start has it rebuilt.

        The engine takes it away then, and brings the machine up to date from the other members. The
        node must stop at once: nothing may be answered from this state any more.

        Raises:
            Unsupported: the engine cannot, or nobody else has the state.
            StorageError: the note cannot be put on disk.
        """
        raise Unsupported(f"{type(self).__name__} cannot rebuild a machine from other members")

    async def change_membership(self, changes: Sequence[MemberChange], timeout_s: float) -> None:
        """Change who is in the group; return once it is so, for good, on this member too.

        May be called on any member: the leader makes the change. ``changes`` are applied in order
        to the configuration in force on the leader, all or nothing, and more than one voter more
        or less goes through joint consensus: two callers never undo each other's work. On return
        the final configuration is committed, in force here and everything up to it is applied
        here. A change is tried again inside, in ``timeout_s`` seconds, as long as it certainly was
        not made.

        A learner counts as ready for promotion when it has 90 % of the leader's log. What else
        makes a change unsafe, and how many learners a group may have, are settings of the engine.

        Raises:
            Unsupported: the engine has no ``membership_change``.
            MemberExists, AddressTaken, UnknownMember, MemberWasRemoved, NotLearner,
            LearnerNotReady, TooManyLearners, NotEnoughStarted, GroupUnhealthy: refused by the
                leader as its configuration or the group is now; nothing was changed.
            ChangeRefused: empty, or not well-formed; nothing was changed.
            ChangeUnderWay: another change was not finished in time; nothing was changed.
            NotLeader: no leader was found in time; nothing was changed.
            Removed: the change removed this member.
            OutcomeUnknown: the change may have been made, or may yet be.
        """
        raise Unsupported(f"{type(self).__name__} cannot change its members")

    async def transfer_leadership(self, target: NodeId, timeout_s: float) -> None:
        """Hand leadership to ``target`` and return when it leads.

        Raises:
            Unsupported: the engine has no ``leadership_transfer``.
            NotLeader: this member does not lead.
            BadTransferTarget: ``target`` is not another voter.
            ProposalDropped: it did not take over in ``timeout_s`` seconds, or sooner: another was
                elected, or this member gave up and goes on leading.
        """
        raise Unsupported(f"{type(self).__name__} cannot transfer leadership")
