"""A model of a durable machine, and of the node around it.

Its state is every command it applied, in order. What is flushed lags behind what is applied, and a
crash falls back to the flushed part, as with a store that commits in groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

from consensus.errors import ConsensusError, OutcomeUnknown, ProposalDropped
from consensus.statemachine import StateSnapshot
from consensus.types import Committed, Position, ProposalId

SNAPSHOT_CHUNK_BYTES: Final = 8 * 1024


class Observer(Protocol):
    """What is told of everything that the node does."""

    def applied(self, batch: Sequence[Committed]) -> None:
        """The node applies a batch."""

    def restored(self, position: Position, commands: Sequence[bytes]) -> None:
        """The node's machine was replaced by a snapshot."""

    def dropped(self, proposal: ProposalId, error: ConsensusError) -> None:
        """The node said that its proposal will not come, or might."""


class _Frozen(StateSnapshot):
    """The commands up to one moment, in pieces, so that a crash can come between two."""

    def __init__(self, commands: Sequence[bytes]) -> None:
        self._data = b"\n".join(commands)

    def chunks(self) -> Iterator[bytes]:
        """Yield the data in pieces."""
        for start in range(0, len(self._data), SNAPSHOT_CHUNK_BYTES):
            yield self._data[start : start + SNAPSHOT_CHUNK_BYTES]


class ModelHost:
    """The node and the durable machine of one simulated member.

    Args:
        observer: told of everything.
        durable: whether the machine keeps its state on disk itself.
        flush_every: commands between two flushes.
        operation: called before a flush and after each batch; may raise SimulatedCrash.
    """

    def __init__(
        self,
        observer: Observer,
        *,
        durable: bool,
        flush_every: int,
        operation: Callable[[], None] = lambda: None,
    ) -> None:
        self.halted = ""
        self.discarded = 0
        self.commands: list[bytes] = []
        self.applied = Position()
        self._observer = observer
        self._durable = durable
        self._flush_every = flush_every
        self._operation = operation
        self._flushed = Position()
        self._flushed_count = 0
        self._since_flush = 0

    def crash(self) -> None:
        """Fall back to what was flushed."""
        if self._durable:
            del self.commands[self._flushed_count :]
            self.applied = self._flushed
        else:
            self.commands, self.applied = [], Position()
        self._since_flush = 0
        self.halted = ""

    # -- EngineHost ---------------------------------------------------------------------------

    def position(self) -> Position:
        """The durable position."""
        return self._flushed if self._durable else Position()

    def discard(self, reason: str) -> None:
        """Start from nothing."""
        self.discarded += 1
        self.commands, self.applied = [], Position()
        self._flushed, self._flushed_count = Position(), 0

    def committed(self, batch: Sequence[Committed]) -> None:
        """Apply, and flush now and then: also within an entry of the log."""
        first, last = batch[0], batch[-1]
        # A member that starts from an older flush is given what follows it; never a gap, no repeat.
        count = sum([len(item.commands) for item in batch])
        if first.index != self.applied.index + 1 or last.last_index != first.index + count - 1:
            raise AssertionError(
                f"indexes {first.index} to {last.last_index} were delivered to a machine at "
                f"{self.applied.index}"
            )
        self._observer.applied(batch)
        clock_ms = self.applied.clock_ms
        for item in batch:
            start = 0
            while (due := start + self._flush_every - self._since_flush) <= len(item.commands):
                clock_ms = max(clock_ms, *item.clocks_ms[start:due])
                self.commands += item.commands[start:due]
                self.applied = Position(item.index + due - 1, item.term, clock_ms)
                self._flush()
                start = due
            if start < len(item.commands):
                clock_ms = max(clock_ms, *item.clocks_ms[start:])
                self.commands += item.commands[start:]
                self._since_flush += len(item.commands) - start
        self.applied = Position(last.last_index, last.term, clock_ms)
        self._operation()

    def dropped(self, proposal: ProposalId, error: ConsensusError) -> None:
        """Pass it on."""
        if not isinstance(error, (ProposalDropped, OutcomeUnknown)):
            raise AssertionError(f"{error!r} is not an outcome")
        self._observer.dropped(proposal, error)

    def snapshot(self) -> tuple[Position, StateSnapshot]:
        """Freeze the state in memory."""
        return self.applied, _Frozen(self.commands)

    def restore_steps(self, position: Position, chunks: Iterable[bytes]) -> Iterator[None]:
        """Load aside, then switch, durably where the machine is durable."""
        data = b"".join(chunks)
        yield
        commands = data.split(b"\n") if data else []
        if position.index <= self.applied.index:
            raise AssertionError(
                f"a snapshot at {position.index} replaced a machine at {self.applied.index}"
            )
        self._observer.restored(position, commands)
        self._operation()
        self.commands, self.applied = commands, position
        self._flushed, self._flushed_count = position, len(commands)
        self._since_flush = 0

    async def answer(self, request: bytes) -> bytes:
        """Echo. Simulations have no event loop and never ask."""
        return request

    def is_halted(self) -> bool:
        """Whether the node stopped applying."""
        return bool(self.halted)

    def halt(self, reason: str) -> None:
        """Remember why."""
        self.halted = reason

    def removed(self, reason: str) -> None:
        """This member is not of the group any more."""
        self.halted = reason

    def _flush(self) -> None:
        self._operation()
        self._flushed, self._flushed_count = self.applied, len(self.commands)
        self._since_flush = 0
