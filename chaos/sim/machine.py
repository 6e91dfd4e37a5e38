"""A model of a durable machine, and of the node around it.

Its state is every command it applied, in order. What is flushed lags behind what is applied, and a
crash falls back to the flushed part, as with a store that commits in groups.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import attrs

from consensus.errors import ConsensusError, OutcomeUnknown, ProposalDropped
from consensus.statemachine import BytesSnapshot, StateSnapshot
from consensus.types import Committed, Position, ProposalId


class Observer(Protocol):
    """What the world is told."""

    def applied(self, node: str, item: Committed) -> None:
        """A node applied an entry."""

    def dropped(self, node: str, proposal: ProposalId, error: ConsensusError) -> None:
        """A node said that its proposal will not come, or might."""


@attrs.define(slots=True)
class _State:
    position: Position = attrs.field(factory=Position)
    commands: list[str] = attrs.field(factory=list)


class ModelHost:
    """The node and the durable machine of one simulated member.

    Args:
        node: its name.
        observer: told of everything.
        durable: whether the machine keeps its state on disk itself.
        flush_every: entries between two flushes.
    """

    def __init__(self, node: str, observer: Observer, *, durable: bool, flush_every: int) -> None:
        self.node = node
        self.halted = ""
        self.discarded = 0
        self._observer = observer
        self._durable = durable
        self._flush_every = flush_every
        self._state = _State()
        self._flushed = _State()
        self._since_flush = 0
        self.answer_with: Callable[[bytes], bytes] = lambda request: request

    @property
    def commands(self) -> list[str]:
        """What was applied, in order."""
        return self._state.commands

    @property
    def applied(self) -> Position:
        """Where the machine stands in memory."""
        return self._state.position

    def crash(self) -> None:
        """Fall back to what was flushed."""
        self._state = (
            _State(self._flushed.position, list(self._flushed.commands))
            if self._durable
            else _State()
        )
        self._since_flush = 0
        self.halted = ""

    # -- EngineHost ---------------------------------------------------------------------------

    def position(self) -> Position:
        """The durable position."""
        return self._flushed.position if self._durable else Position()

    def discard(self, reason: str) -> None:
        """Start from nothing."""
        self.discarded += 1
        self._state, self._flushed = _State(), _State()

    def committed(self, batch: Sequence[Committed]) -> None:
        """Apply, and flush now and then."""
        clock_ms = self._state.position.clock_ms
        for item in batch:
            if item.index <= self._state.position.index:
                raise AssertionError(
                    f"{self.node}: index {item.index} delivered at {self._state.position.index}"
                )
            self._observer.applied(self.node, item)
            clock_ms = max(clock_ms, item.proposal.clock_ms)
            self._state.commands.append(item.proposal.command.decode())
            self._state.position = Position(item.index, item.term, clock_ms)
        self._since_flush += len(batch)
        if self._since_flush >= self._flush_every:
            self._flush()

    def dropped(self, proposal: ProposalId, error: ConsensusError) -> None:
        """Pass it on."""
        if not isinstance(error, (ProposalDropped, OutcomeUnknown)):
            raise AssertionError(f"{error!r} is not an outcome")
        self._observer.dropped(self.node, proposal, error)

    def snapshot(self) -> tuple[Position, StateSnapshot]:
        """Freeze the state in memory."""
        return self._state.position, BytesSnapshot(json.dumps(self._state.commands).encode())

    def restore_steps(self, position: Position, chunks: Iterable[bytes]) -> Iterator[None]:
        """Load aside, then switch, durably where the machine is durable."""
        commands = json.loads(b"".join(chunks))
        yield
        self._state = _State(position, commands)
        self._flush()

    async def answer(self, request: bytes) -> bytes:
        """Not used in simulations, which have no event loop."""
        return self.answer_with(request)

    def is_halted(self) -> bool:
        """Whether the node stopped applying."""
        return bool(self.halted)

    def halt(self, reason: str) -> None:
        """Remember why."""
        self.halted = reason

    def _flush(self) -> None:
        self._flushed = _State(self._state.position, list(self._state.commands))
        self._since_flush = 0
