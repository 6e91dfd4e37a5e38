"""A node: one state machine on one engine.

Life of a proposal: ``propose`` gives it an identity and puts it in this turn's batch; at the end of
the turn the engine gets the whole batch; when the engine has committed it, ``committed`` applies it
and resolves the caller with the result. The member that proposed resolves its own callers when *it*
applies, so results never cross the wire.

Life of a linearizable query: queries of one moment share one ReadIndex (thesis, section 6.4); when
the machine has applied that index, each is answered from local state.

The node alone calls the machine, from the event loop, one method at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, count, repeat
from types import TracebackType
from typing import Any, Final

import structlog

from consensus import failpoints
from consensus.clock import Clock, SystemClock
from consensus.deadlines import Deadline, Deadlines
from consensus.engine import Engine
from consensus.errors import (
    ConsensusError,
    DataDamaged,
    FeatureUnavailable,
    Halted,
    OutcomeUnknown,
    QueueFull,
    ReadFailed,
    Removed,
    Stopped,
    StorageError,
    Unsupported,
)
from consensus.statemachine import StateMachine, StateSnapshot
from consensus.types import (
    Applied,
    Committed,
    Consistency,
    EngineStatus,
    Entry,
    MemberChange,
    NodeId,
    NodeStatus,
    Position,
    Proposal,
    ProposalId,
)

log = structlog.get_logger(__name__)

PROPOSALS_PENDING_MAX: Final = 20_000
"""Proposals that one node has under way. More are refused with ``QueueFull``."""

PROPOSE_TIMEOUT_S: Final = 7.0
READ_TIMEOUT_S: Final = 7.0
CHANGE_TIMEOUT_S: Final = 7.0

_new: Final = tuple.__new__
"""Makes a named tuple from its fields in a quarter of the time of a call."""

AnswerHandler = Callable[[bytes], Awaitable[bytes]]


def member_hash(node_id: str) -> int:
    """Return the 64-bit number that stands for a member's name in its proposals."""
    return int.from_bytes(hashlib.sha256(node_id.encode()).digest()[:8], "big")


class _Turn:
    """Proposals of one turn of the loop that wait equally long.

    They share one deadline, which counts from the end of the turn: no caller waits less than it
    said.
    """

    __slots__ = ("deadline", "ended", "sequences")

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.ended = 0
        self.deadline: Deadline | None = None

    @property
    def waiting(self) -> int:
        """How many callers still wait."""
        return len(self.sequences) - self.ended

    def left(self) -> None:
        """One of the callers waits no longer."""
        self.ended += 1
        if self.deadline is not None and self.ended == len(self.sequences):
            self.deadline.cancel()


class Node:
    """One state machine, replicated.

    Example::

        async with Node(Counter(), engine) as node:
            applied = await node.propose(b"5")
            value = await node.query(b"")

    Args:
        machine: the state machine; from now on only the node calls it.
        engine: the engine; started and stopped by the node.
        answer: answers ``ask_leader`` requests of other members while this node leads.
        clock: stamps proposals; replaced in simulations.
    """

    def __init__(
        self,
        machine: StateMachine,
        engine: Engine,
        *,
        answer: AnswerHandler | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.machine = machine
        self.engine = engine
        self._answer = answer
        self._clock = clock or SystemClock()
        self._member = member_hash(engine.node_id)
        self._incarnation = secrets.randbits(64)
        self._sequence = 0
        self._outbox: list[tuple[ProposalId, bytes]] = []
        self._turns: dict[float, _Turn] = {}
        self._pending: dict[int, asyncio.Future[Applied]] = {}
        self._applied = Position()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiter_number = 0
        self._next_reads: list[asyncio.Future[None]] = []
        self._read_task: asyncio.Task[None] | None = None
        self._halted_reason = ""
        self._removed = False
        self._halted: asyncio.Future[str] | None = None
        self._stopped = False
        self._deadlines = Deadlines()
        self._wants_restart = False
        self._loop: asyncio.AbstractEventLoop

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the engine and begin to apply.

        Raises:
            StorageError: the data directory cannot be used.
            ConfigError: an address or setting is wrong.
        """
        failpoints.arm_from_environment()
        self._loop = asyncio.get_running_loop()
        self._halted = self._loop.create_future()
        self._applied = self.machine.position()
        await self.engine.start(self)

    async def stop(self) -> None:
        """Stop the engine, fail what still waits, close the machine. Safe to call twice."""
        if self._stopped:
            return
        self._stopped = True
        await self.engine.stop()
        if self._read_task is not None:
            self._read_task.cancel()
        self._fail_all(OutcomeUnknown("the node was stopped before the proposal was applied"))
        self._fail_waiters(Stopped("the node was stopped"))
        self.machine.close()

    async def __aenter__(self) -> Node:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def wait_halted(self) -> str:
        """Wait until the node has to stop by itself, and return why, in words for a person."""
        assert self._halted is not None, "start the node first"
        return await asyncio.shield(self._halted)

    # -- what users call ----------------------------------------------------------------------

    async def propose(
        self, command: bytes, timeout_s: float = PROPOSE_TIMEOUT_S, *, feature_level: int = 0
    ) -> Applied:
        """Replicate a command and return what applying it here returned.

        Args:
            command: opaque bytes for the machine.
            timeout_s: how long to wait, in seconds.
            feature_level: the least level that a member must have declared to its engine to know
                this kind of command; one that is new in a release must not reach older members.

        Raises:
            FeatureUnavailable: a member has not declared that level; nothing was sent.
            ProposalDropped (NotLeader, QueueFull): certainly not applied; retry freely.
            OutcomeUnknown: it may have been applied, or may yet be.
            Halted, Stopped: this node takes no proposals any more; nothing was sent.
        """
        self._check_running()
        if feature_level and self.engine.status().feature_level < feature_level:
            raise FeatureUnavailable(
                f"not every member has declared feature level {feature_level}: are all upgraded?"
            )
        if len(self._pending) >= PROPOSALS_PENDING_MAX:
            raise QueueFull(f"{PROPOSALS_PENDING_MAX} proposals are under way on this node")
        self._sequence = sequence = self._sequence + 1
        future: asyncio.Future[Applied] = self._loop.create_future()
        self._pending[sequence] = future
        if not self._outbox:
            self._loop.call_soon(self._flush)
        identity = _new(ProposalId, (self._member, self._incarnation, sequence))
        self._outbox.append((identity, command))
        turn = self._turns.get(timeout_s)
        if turn is None:
            turn = self._turns[timeout_s] = _Turn()
        turn.sequences.append(sequence)
        try:
            return await future
        finally:
            turn.left()
            del self._pending[sequence]

    async def query(
        self,
        request: Any,
        consistency: Consistency = Consistency.LINEARIZABLE,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """Answer a read-only request from this member's machine.

        Raises:
            ReadFailed: LINEARIZABLE could not be confirmed in ``timeout_s`` seconds.
            Halted, Stopped: this node answers no queries any more.
        """
        if consistency is Consistency.LINEARIZABLE:
            await self.read_index(timeout_s)
        else:
            self._check_running()
        return self.machine.query(request)

    async def read_index(self, timeout_s: float = READ_TIMEOUT_S) -> int:
        """Wait until this machine has every write acknowledged before the call.

        All callers that arrive while one ReadIndex is under way share the next one: each must be
        served by a ReadIndex that began after its own call.

        Returns:
            the index applied then.

        Raises:
            ReadFailed: not confirmed, or not applied, in ``timeout_s`` seconds.
            Halted, Stopped: this node answers no queries any more; as ``Removed`` if that is why.
        """
        self._check_running()
        future: asyncio.Future[None] = self._loop.create_future()
        self._next_reads.append(future)
        if self._read_task is None:
            self._read_task = self._loop.create_task(self._run_reads())
        deadline = self._deadlines.add(timeout_s, partial(_give_up, future, timeout_s))
        try:
            await future
        finally:
            deadline.cancel()
        return self._applied.index

    async def wait_applied(self, index: int) -> None:
        """Return once this machine has applied ``index``."""
        if self._applied.index >= index:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiter_number += 1
        heapq.heappush(self._waiters, (index, self._waiter_number, future))
        await future

    async def ask_leader(self, request: bytes, timeout_s: float = READ_TIMEOUT_S) -> bytes:
        """Have the leader answer from state that only a leader has.

        Raises:
            NotLeader: no leader is known or the one asked no longer leads.
            ReadFailed: no answer in time.
        """
        self._check_running()
        return await self.engine.ask_leader(request, timeout_s)

    async def change_membership(
        self, changes: Sequence[MemberChange], timeout_s: float = CHANGE_TIMEOUT_S
    ) -> None:
        """Change who is in the group; return once it is so (see ``Engine.change_membership``).

        Raises:
            as ``Engine.change_membership``; and Halted, Stopped: this node does nothing any more.
        """
        self._check_running()
        await self.engine.change_membership(changes, timeout_s)

    async def transfer_leadership(
        self, target: NodeId, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> None:
        """Hand leadership to ``target``; return when it leads (``Engine.transfer_leadership``).

        Raises:
            as ``Engine.transfer_leadership``; and Halted, Stopped.
        """
        self._check_running()
        await self.engine.transfer_leadership(target, timeout_s)

    def status(self) -> NodeStatus:
        """Return what this node knows about itself and its group now."""
        return NodeStatus(
            engine=self.engine.status(),
            applied_index=self._applied.index,
            applied_term=self._applied.term,
            pending_proposals=len(self._pending),
            halted=self._halted_reason,
            removed=self._removed,
        )

    def state_hash(self) -> tuple[int, bytes]:
        """Return the applied index and the machine's hash there: equal on every member.

        It reads the machine's whole state at once, and nothing else runs meanwhile: for tests.
        """
        return self._applied.index, self.machine.state_hash()

    def watch_status(self) -> AsyncIterator[EngineStatus]:
        """Yield the engine's status now, and at each change of term, role, leader or members."""
        return self.engine.watch_status()

    # -- what the engine calls (EngineHost) ---------------------------------------------------

    def position(self) -> Position:
        """The machine's durable position."""
        return self.machine.position()

    def discard(self, reason: str) -> None:
        """Empty the machine, which belongs to another log, and say so in one line."""
        log.warning("discarding local state", reason=reason)
        self.machine.discard()
        self._applied = Position()

    def committed(self, batch: Sequence[Committed]) -> None:
        """Apply a batch in log order and resolve the callers that wait for it here."""
        if self._halted_reason or not batch:
            return
        clock_ms = self._applied.clock_ms
        entries: list[Entry] = []
        for term, index, _, _, _, clocks_ms, commands in batch:
            clocks = [max(clock_ms, clocks_ms[0]), *clocks_ms[1:]]
            fields = zip(repeat(term), count(index), accumulate(clocks, max), commands)
            entries += map(_new, repeat(Entry), fields)
            clock_ms = entries[-1].clock_ms
        if entries[0].index != self._applied.index + 1:
            self.halt(
                f"the engine delivered index {entries[0].index} "
                f"after index {self._applied.index} was applied"
            )
            return
        try:
            results = self.machine.apply_batch(entries)
            if len(results) != len(entries):
                raise RuntimeError(f"{len(results)} results for {len(entries)} entries")
        except DataDamaged as damage:
            self.rebuild(str(damage))
            return
        except Exception as error:
            log.exception("the state machine failed", first_index=entries[0].index)
            self.halt(
                f"the state machine failed in the batch that begins at index {entries[0].index}: "
                f"{type(error).__name__}: {error}. Nothing later was applied; after the machine's "
                "code is fixed, start the node again and it goes on from there"
            )
            return
        last = entries[-1]
        self._applied = Position(last.index, last.term, clock_ms, self._applied.group_id)
        if self._pending:
            self._resolve(batch, results)
        self._wake_waiters()

    def dropped(self, proposal: ProposalId, error: ConsensusError) -> None:
        """Tell the caller what is known about a proposal that will not be seen committed."""
        if proposal.incarnation != self._incarnation or proposal.member != self._member:
            return
        future = self._pending.get(proposal.sequence)
        if future is not None and not future.done():
            future.set_exception(error)

    def snapshot(self) -> tuple[Position, StateSnapshot]:
        """Freeze the machine as it is now."""
        return self._applied, self.machine.snapshot()

    def restore_steps(self, position: Position, chunks: Iterable[bytes]) -> Iterator[None]:
        """Replace the machine's state; proposals under way may be inside what is skipped."""
        try:
            yield from self.machine.restore_steps(chunks, position)
        except Exception as error:
            log.exception("restore failed", index=position.index)
            self.halt(f"the snapshot at index {position.index} could not be restored: {error}")
            return
        self._applied = position
        self._fail_all(OutcomeUnknown("a snapshot took the place of the log around the proposal"))
        self._wake_waiters()

    async def answer(self, request: bytes) -> bytes:
        """Answer another member, as the leader."""
        if self._answer is None:
            raise ReadFailed("this node answers no leader requests")
        return await self._answer(request)

    def halt(self, reason: str) -> None:
        """Stop applying for good, fail what waits, and tell whoever runs this node."""
        if self._halted_reason:
            return
        self._halted_reason = reason
        log.error("node halted", reason=reason)
        self._fail_all(OutcomeUnknown(f"the node halted: {reason}"))
        self._fail_waiters(self._halted_error())
        if self._halted is not None and not self._halted.done():
            self._halted.set_result(reason)

    def removed(self, reason: str) -> None:
        """Halt because this member is not of the group any more."""
        if not self._halted_reason:
            self._removed = True
            self.halt(reason)

    def rebuild(self, reason: str) -> None:
        """The machine's state on disk is damaged: stop answering from it.

        Where other members have what was lost, the next start takes the state away and rebuilds it
        from them (``wants_restart``); where not, this is ``halt``.
        """
        if self._halted_reason:
            return
        try:
            self.engine.distrust(reason)
        except (Unsupported, StorageError) as error:
            self.halt(f"{reason} {error}")
            return
        self._wants_restart = True
        self.halt(f"{reason} At the next start it is rebuilt from the other members")

    @property
    def wants_restart(self) -> bool:
        """Whether a node that halted would be well again after it was started anew."""
        return self._wants_restart

    def is_halted(self) -> bool:
        """Whether this node has stopped applying for good."""
        return bool(self._halted_reason)

    # -- inside -------------------------------------------------------------------------------

    def _check_running(self) -> None:
        if self._halted_reason:
            raise self._halted_error()
        if self._stopped:
            raise Stopped("the node was stopped")

    def _halted_error(self) -> Halted:
        return (Removed if self._removed else Halted)(self._halted_reason)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        turns, self._turns = self._turns, {}
        if self._stopped or self._halted_reason:
            return  # their callers were failed when the node stopped
        for timeout_s, turn in turns.items():
            if turn.waiting:
                expire = partial(self._expire, turn, timeout_s)
                turn.deadline = self._deadlines.add(timeout_s, expire)
        now_ms = self._clock.now_ms()
        self.engine.propose(
            [_new(Proposal, (identity, now_ms, command)) for identity, command in outbox]
        )

    def _resolve(self, batch: Sequence[Committed], results: Sequence[Any]) -> None:
        """Hand the callers of this node's proposals what applying them returned."""
        pending = self._pending
        first = batch[0].index
        for term, index, member, incarnation, sequences, _, _ in batch:
            if incarnation != self._incarnation or member != self._member:
                continue
            for number, sequence in enumerate(sequences, index):
                future = pending.get(sequence)
                if future is not None and not future.done():
                    future.set_result(_new(Applied, (term, number, results[number - first])))

    def _expire(self, turn: _Turn, timeout_s: float) -> None:
        """The callers of one turn have waited long enough."""
        for sequence in turn.sequences:
            future = self._pending.get(sequence)
            if future is not None and not future.done():
                future.set_exception(OutcomeUnknown(f"not applied here within {timeout_s:g} s"))

    async def _run_reads(self) -> None:
        """Serve the waiting reads, one ReadIndex at a time, until none waits."""
        batch: list[asyncio.Future[None]] = []
        try:
            while self._next_reads:
                batch, self._next_reads = self._next_reads, []
                try:
                    index = await self.engine.read_index(READ_TIMEOUT_S)
                    await self.wait_applied(index)
                except ConsensusError as error:
                    # The engine of a node that halted only knows that it was stopped.
                    _settle(batch, self._halted_error() if self._halted_reason else error)
                else:
                    _settle(batch, None)
        finally:
            self._read_task = None
            left, self._next_reads = self._next_reads, []
            _settle([*batch, *left], Stopped("the node was stopped"))

    def _wake_waiters(self) -> None:
        waiters = self._waiters
        while waiters and waiters[0][0] <= self._applied.index:
            future = heapq.heappop(waiters)[2]
            if not future.done():
                future.set_result(None)

    def _fail_all(self, error: ConsensusError) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(error)

    def _fail_waiters(self, error: ConsensusError) -> None:
        for _, _, future in self._waiters:
            if not future.done():
                future.set_exception(error)
        self._waiters.clear()


def _settle(waiting: Iterable[asyncio.Future[None]], error: ConsensusError | None) -> None:
    """Tell every reader that still waits."""
    for future in waiting:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


def _give_up(future: asyncio.Future[None], timeout_s: float) -> None:
    if not future.done():
        future.set_exception(ReadFailed(f"no quorum confirmed the read in {timeout_s:g} s"))
