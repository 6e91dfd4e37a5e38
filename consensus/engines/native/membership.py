"""Changing who is in the group, from any member.

A change is asked of the leader, and of it only in the term in which it was known to lead. It says
where in its log the change stands, or why there is none; from then on the asking member watches its
own log, as for any proposal: the entry comes through, or another takes its place. If the leader is
lost before it has answered, an entry of a later term that is applied here settles it: whatever that
leader appended in its term is before that entry, or will never be committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from consensus import errors
from consensus.engines.native.driver import Driver
from consensus.errors import (
    ChangeRefused,
    ChangeUnderWay,
    ConfigError,
    ConsensusError,
    NotLeader,
    OutcomeUnknown,
    ProposalDropped,
)
from consensus.raft.configuration import Configuration
from consensus.raft.membership import configuration_at
from consensus.transport import wire_pb2 as wire
from consensus.transport.tcp import TcpTransport, split_address
from consensus.types import (
    AddMember,
    MemberChange,
    NodeId,
    PromoteMember,
    RemoveMember,
    UpdateMember,
)

STEPS_MAX: Final = 100
"""Steps in one change of members. More are refused."""

Place = tuple[int | None, int]
"""Index (None: the leader never said) and term of a change's entry."""


class MemberChanges:
    """Changes that this member's program asks for, and those that others ask of it as the leader.

    Args:
        driver: this member's driver.
        transport: its connections.
        retry_s: pause before a change that was certainly not made is tried again.
        wake: has the driver pumped soon.
    """

    def __init__(
        self, driver: Driver, transport: TcpTransport, retry_s: float, wake: Callable[[], None]
    ) -> None:
        self._driver = driver
        self._transport = transport
        self._retry_s = retry_s
        self._wake = wake
        self._number = 0
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def change(self, changes: Sequence[MemberChange], timeout_s: float) -> None:
        """See ``Engine.change_membership``."""
        check_form(changes)
        refused: ProposalDropped = NotLeader(None, "no leader is known")
        in_doubt = False
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        in_doubt = True
                        place = await self._append(changes)
                        if await self._came_through(place, changes):
                            return
                    except ProposalDropped as error:
                        refused = error
                    in_doubt = False
                    await asyncio.sleep(self._retry_s)
        except TimeoutError:
            if in_doubt:
                raise OutcomeUnknown(
                    f"the change of members was not finished in {timeout_s:g} s"
                ) from None
            raise refused from None

    def received(self, sender: NodeId, term: int, asked: wire.ChangeMembers) -> None:
        """Another member asks this one, as the leader of ``term``."""
        answer = wire.ChangeMembersResponse(number=asked.number)
        core = self._driver.core
        try:
            if not core.is_leader or core.term != term:
                raise NotLeader(core.leader)
            answer.index = self._append_here(decode_steps(asked.steps))
        except ConsensusError as error:
            answer.error = type(error).__name__
            answer.text = str(error)
        self._transport.send(sender, wire.Envelope(change_members_response=answer))
        self._transport.flush()
        self._wake()

    def answered(self, answer: wire.ChangeMembersResponse) -> None:
        """The leader has answered."""
        future = self._asked.get(answer.number)
        if future is None or future.done():
            return
        if answer.error:
            future.set_exception(_error_named(answer.error, answer.text))
        else:
            future.set_result(answer.index)

    def pumped(self) -> None:
        """Something happened: look at what is waited for."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for condition, future in waiting:
            if future.done():
                continue
            if condition():
                future.set_result(None)
            else:
                self._waiting.append((condition, future))

    def fail(self, error: ConsensusError) -> None:
        """This member takes no further part: nobody need wait any longer."""
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)

    # -- inside -------------------------------------------------------------------------------

    async def _append(self, changes: Sequence[MemberChange]) -> Place:
        """Have the leader append the change; return where.

        Raises:
            ProposalDropped: it certainly did not, and may later.
            ChangeRefused: it will not.
        """
        core = self._driver.core
        leader, term = core.leader, core.term
        if leader is None:
            raise NotLeader(None, "no leader is known")
        if leader == core.node_id:
            return self._append_here(changes), term
        if not self._transport.connected(leader):
            raise NotLeader(leader, f"the leader {leader} cannot be reached")
        self._number += 1
        number = self._number
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        steps = [encode_step(change) for change in changes]
        asked = wire.ChangeMembers(number=number, steps=steps)
        try:
            self._transport.send(leader, wire.Envelope(term=term, change_members=asked))
            self._transport.flush()
            await self._until(lambda: answer.done() or core.leader != leader or core.term != term)
            return answer.result() if answer.done() else None, term
        finally:
            del self._asked[number]

    def _append_here(self, changes: Sequence[MemberChange]) -> int:
        try:
            index = self._driver.change_members(changes)
        except NotLeader:
            raise
        except ProposalDropped as error:
            raise ChangeUnderWay(str(error)) from error
        self._wake()
        return index

    async def _came_through(self, place: Place, changes: Sequence[MemberChange]) -> bool:
        """Wait until it is settled whether the change was made; if so, until it is finished."""
        index, term = place
        core = self._driver.core

        def settled() -> bool:
            if index is not None and core.applied_index >= index:
                return True
            return (core.log.term_at(core.applied_index) or 0) > term

        await self._until(settled)
        if index is not None and index > core.applied_index:
            return False
        if index is None or index < core.log.snapshot.index:
            # The leader never said where, or the log was shortened since.
            made = took_effect(configuration_at(core, core.applied_index), changes)
        else:
            made = core.log.has(index, term)
        if not made:
            return False
        await self._until(lambda: not configuration_at(core, core.applied_index).joint)
        return True

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition()`` holds after something happened here."""
        if condition():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, future))
        await future


def took_effect(configuration: Configuration, changes: Sequence[MemberChange]) -> bool:
    """Whether the members are as after these changes."""
    for change in changes:
        node = change.node_id
        match change:
            case AddMember(address=address):
                made = node in configuration.members and configuration.peer(node).address == address
            case RemoveMember():
                made = configuration.has_left(node)
            case PromoteMember():
                made = node in configuration.voters
            case UpdateMember(address=address):
                made = configuration.peer(node).address == address
        if not made:
            return False
    return True


def check_form(changes: Sequence[MemberChange]) -> None:
    """Refuse what no leader could make sense of.

    Raises:
        ChangeRefused: empty, too long, or an id or address is not well-formed.
    """
    if not changes:
        raise ChangeRefused("a change of members needs at least one step")
    if len(changes) > STEPS_MAX:
        raise ChangeRefused(f"a change of {len(changes)} steps; at most {STEPS_MAX} are allowed")
    for change in changes:
        if not change.node_id:
            raise ChangeRefused("a member's id must not be empty")
        if isinstance(change, AddMember | UpdateMember):
            try:
                split_address(change.address)
            except ConfigError as error:
                raise ChangeRefused(f"the address of member {change.node_id!r}: {error}") from None


def encode_step(change: MemberChange) -> wire.MemberStep:
    """Return a step as it is sent to the leader."""
    step = wire.MemberStep(member=change.node_id)
    match change:
        case AddMember(_, address, learner, context):
            step.kind = wire.MemberStep.ADD
            step.address, step.learner, step.context = address, learner, context
        case RemoveMember():
            step.kind = wire.MemberStep.REMOVE
        case PromoteMember():
            step.kind = wire.MemberStep.PROMOTE
        case UpdateMember(_, address, attributes):
            step.kind = wire.MemberStep.UPDATE
            step.address = address
            if attributes is not None:
                step.context = attributes
    return step


def decode_steps(steps: Sequence[wire.MemberStep]) -> list[MemberChange]:
    """Read what ``encode_step`` wrote.

    Raises:
        ChangeRefused: a newer program sent a step that this one does not know.
    """
    changes: list[MemberChange] = []
    for step in steps:
        match step.kind:
            case wire.MemberStep.ADD:
                changes.append(AddMember(step.member, step.address, step.learner, step.context))
            case wire.MemberStep.REMOVE:
                changes.append(RemoveMember(step.member))
            case wire.MemberStep.PROMOTE:
                changes.append(PromoteMember(step.member))
            case wire.MemberStep.UPDATE:
                context = step.context if step.HasField("context") else None
                changes.append(UpdateMember(step.member, step.address, context))
            case other:
                raise ChangeRefused(f"the leader does not know changes of kind {other}")
    return changes


def _error_named(name: str, text: str) -> ConsensusError:
    """Return the error of this name that the leader had."""
    if name == NotLeader.__name__:
        return NotLeader(None, text)
    kind = getattr(errors, name, ChangeRefused)
    if isinstance(kind, type) and issubclass(kind, ChangeRefused | ChangeUnderWay):
        return kind(text)
    return ChangeRefused(text)
