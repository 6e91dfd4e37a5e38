"""The state machine contract: what a user writes, and what the framework promises about calling it.

The node alone calls a machine, one method at a time, on the event loop, whatever the engine below.
Section 5.3 of the Raft paper asks for determinism; here that means: ``apply`` depends on the state
and the entry and on nothing else. No clock, no randomness, no environment, no iteration over a set.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import attrs

from consensus.types import Entry, Position

SNAPSHOT_CHUNK_BYTES_MAX: Final = 256 * 1024
"""No chunk of a snapshot is larger, so that no step of writing or sending one holds the loop."""


class StateSnapshot(abc.ABC):
    """A machine's state, frozen when it was taken, and written while later entries are applied."""

    @abc.abstractmethod
    def chunks(self) -> Iterator[bytes]:
        """Yield the state in pieces of at most ``SNAPSHOT_CHUNK_BYTES_MAX`` bytes.

        The node may run other work between two pieces. Each piece must take well under 10 ms. May
        be called again, for the same bytes: a member whose link broke lacks only the end of them.
        """

    def release(self) -> None:
        """Give back what the snapshot holds. Called exactly once, also when writing failed."""


@attrs.frozen(slots=True)
class BytesSnapshot(StateSnapshot):
    """A snapshot that is already one piece of bytes: enough for a machine that fits in memory."""

    data: bytes

    def chunks(self) -> Iterator[bytes]:
        """Yield ``data`` in pieces."""
        for start in range(0, len(self.data), SNAPSHOT_CHUNK_BYTES_MAX):
            yield self.data[start : start + SNAPSHOT_CHUNK_BYTES_MAX]


class StateMachine(abc.ABC):
    """A deterministic machine that a group of nodes keeps in step.

    Four methods are enough for a machine in memory: ``apply``, ``query``, ``snapshot``,
    ``restore``. A durable machine (one that keeps its state on disk itself) also overrides
    ``position``, ``apply_batch``, ``restore_steps`` and ``discard``.
    """

    @abc.abstractmethod
    def apply(self, entry: Entry) -> Any:
        """Apply one committed entry and return its result.

        The result goes to the proposer on the member that proposed, and may be any object. An
        error of the application is a result value. A raise means that the machine itself is
        broken: the node then halts at this index, applies nothing later, and says why.
        """

    def apply_batch(self, entries: Sequence[Entry]) -> list[Any]:
        """Apply entries in order and return their results, one each.

        Override to group I/O. If this raises, the machine must look, on disk, as it did before
        some entry of this or an earlier batch: never half an entry.
        """
        return [self.apply(entry) for entry in entries]

    @abc.abstractmethod
    def query(self, request: Any) -> Any:
        """Answer a read-only request from the present state. Must not change it."""

    @abc.abstractmethod
    def snapshot(self) -> StateSnapshot:
        """Freeze the state now and return it. Fast: the writing happens later, in pieces."""

    @abc.abstractmethod
    def restore(self, data: bytes) -> None:
        """Replace all state with what ``snapshot`` once wrote."""

    def restore_steps(self, chunks: Iterable[bytes], position: Position) -> Iterator[None]:
        """Restore in pieces; the node runs other work at each ``yield``.

        A durable machine loads aside and switches atomically at the end, recording ``position`` as
        its own: a kill inside leaves the old state or the new, never a mix.
        """
        data = b"".join(chunks)
        yield
        self.restore(data)

    def position(self) -> Position:
        """Where the state on disk stands, with all that it holds. Index 0 for a machine in memory.

        For a durable machine this is asked once at start, and again when the log may be compacted:
        the log keeps every entry that the machine could not replay without.
        """
        return Position()

    def discard(self) -> None:
        """Forget all durable state: it does not belong to this log. In memory: nothing to do."""

    def state_hash(self) -> bytes:
        """Return a digest that is equal on every member at the same applied index."""
        frozen = self.snapshot()
        digest = hashlib.sha256()
        try:
            for chunk in frozen.chunks():
                digest.update(chunk)
        finally:
            frozen.release()
        return digest.digest()

    def close(self) -> None:
        """Release files and the like. The node calls it last, when it stops."""
