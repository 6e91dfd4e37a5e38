"""Where the store stands: one value, written in the same transaction as what it speaks of."""

from __future__ import annotations

import struct
from typing import Final

import attrs

from consensus.types import Position
from kvstore.mvcc.backend import Backend
from kvstore.mvcc.records import Damaged

_KEY: Final = b"state"
_STATE: Final = struct.Struct(">QQQQQqQI?")


@attrs.define(slots=True)
class StoreState:
    """Position in the log, revisions, and how far physical compaction is.

    Args:
        position: the last entry applied.
        revision: the newest revision.
        compact_revision: the oldest revision that can be read; -1 before the first compaction, so
            that one at revision 0 is accepted once, as in etcd.
        sweep_main: physical compaction goes on at this revision...
        sweep_sub: ...and this place in it.
        sweeping: whether physical compaction has work left.
    """

    position: Position = attrs.field(factory=Position)
    revision: int = 1
    compact_revision: int = -1
    sweep_main: int = 0
    sweep_sub: int = 0
    sweeping: bool = False


def load_state(backend: Backend) -> StoreState:
    """Read the state, or the state of an empty store.

    Raises:
        Damaged: it does not match its checksum, or has another length.
    """
    packed = backend.get_meta(_KEY)
    if packed is None:
        return StoreState()
    if len(packed) != _STATE.size:
        raise Damaged("meta", _KEY, "wrong length")
    index, term, clock_ms, group_id, *rest = _STATE.unpack(packed)
    return StoreState(Position(index, term, clock_ms, group_id), *rest)


def save_state(backend: Backend, state: StoreState) -> None:
    """Write the state into the open transaction."""
    at = state.position
    packed = _STATE.pack(
        at.index,
        at.term,
        at.clock_ms,
        at.group_id,
        state.revision,
        state.compact_revision,
        state.sweep_main,
        state.sweep_sub,
        state.sweeping,
    )
    backend.put_meta(_KEY, packed)
