"""Snapshots for members that are behind: each is kept for a while after its stream broke.

A snapshot is the machine, frozen, and it can be read from its beginning as often as needed. A
member whose stream broke is therefore offered the same bytes again, of which it takes the rest. A
frozen machine holds memory, or pages of a database, so it is given back when its member has it, or
when the member does not come for it in time, or when the log does not go on from it any more.

Synchronous, like the driver: the engine's sockets and the simulator's network feed from it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from consensus.raft.core import Core
from consensus.statemachine import StateSnapshot
from consensus.storage.snapshots import StoredMeta
from consensus.types import NodeId

KEPT_ELECTION_TIMEOUTS: Final = 60
"""Election timeouts for which a snapshot is kept after its stream broke."""

Freeze = Callable[[], tuple[StoredMeta, StateSnapshot]]


@attrs.define(slots=True, eq=False)
class OutgoingSnapshot:
    """One member's snapshot: what names its bytes, where it stands, and the frozen machine."""

    id: bytes
    meta: StoredMeta
    _frozen: StateSnapshot
    kept_since: int | None = None
    """The tick at which its stream broke; None while it is sent."""

    def chunks(self) -> Iterator[bytes]:
        """Yield all of it, from the beginning."""
        return self._frozen.chunks()

    def release(self) -> None:
        """Give the frozen machine back."""
        self._frozen.release()


class OutgoingSnapshots:
    """What one member sends, at most one snapshot to each other member.

    Args:
        core: the member's core.
        life: names this life of the member's process; no other has the same.
        freeze: freezes the machine; may raise ``ReadFailed``.
        kept_ticks: how long a snapshot is kept after its stream broke.
    """

    def __init__(self, core: Core, life: str, freeze: Freeze, kept_ticks: int) -> None:
        self._core = core
        self._life = life
        self._freeze = freeze
        self._kept_ticks = kept_ticks
        self._frozen = 0
        self._closed = False
        self._snapshots: dict[NodeId, OutgoingSnapshot] = {}

    def open(self, peer: NodeId) -> OutgoingSnapshot:
        """Return what to send to a member: what it has begun to receive, or a new snapshot.

        Each call must be followed by ``broke`` or ``ended``.

        Raises:
            ReadFailed: this member's own machine is still being restored.
        """
        kept = self._snapshots.get(peer)
        if kept is not None:
            if kept.meta.raft.index >= self._core.log.snapshot.index:
                kept.kept_since = None
                return kept
            self.ended(peer)
        meta, frozen = self._freeze()
        self._frozen += 1
        name = f"{self._core.node_id}/{self._life}/{self._frozen}".encode()
        self._snapshots[peer] = OutgoingSnapshot(name, meta, frozen)
        return self._snapshots[peer]

    def broke(self, peer: NodeId) -> None:
        """The stream to a member broke: keep the snapshot for the next one."""
        if self._closed:
            self.ended(peer)
        else:
            self._snapshots[peer].kept_since = self._core.now_ticks

    def ended(self, peer: NodeId) -> None:
        """A member has its snapshot, or refused it: give it back."""
        self._snapshots.pop(peer).release()

    def release_old(self) -> None:
        """Give back what nobody has come for in time."""
        if self._snapshots:
            self._release_kept(self._core.now_ticks - self._kept_ticks)

    def release_kept(self) -> None:
        """Give back everything that is not being sent now."""
        self._release_kept(self._core.now_ticks)

    def close(self) -> None:
        """Keep nothing any more."""
        self._closed = True
        self.release_kept()

    def _release_kept(self, until: int) -> None:
        for peer, snapshot in list(self._snapshots.items()):
            if snapshot.kept_since is not None and snapshot.kept_since <= until:
                self.ended(peer)
