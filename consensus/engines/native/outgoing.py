"""Snapshots for members that are behind: each is kept for a while after its stream broke.

A snapshot is the machine, frozen, and it can be read from its beginning as often as needed. A
member whose stream broke is therefore offered the same bytes again, of which it takes the rest. A
frozen machine holds memory, or pages of a database, so it is given back when its member has it, or
when the member does not come for it in time, or when the log does not go on from it any more.

Meanwhile, and until the member has caught up, the log is not shortened beyond what it needs next:
under load it would else be behind again when the snapshot has arrived, and never end to be.

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

HELD_COMMANDS_MAX: Final = 50_000
"""Commands that the log keeps, at most, for members that a snapshot is to bring up to date."""

Freeze = Callable[[], tuple[StoredMeta, StateSnapshot]]


@attrs.define(slots=True, eq=False)
class OutgoingSnapshot:
    """One member's snapshot: what names its bytes, where it stands, and the frozen machine."""

    id: bytes
    meta: StoredMeta
    _frozen: StateSnapshot
    ended: int | None = None
    """The tick at which its stream ended; None while it is sent."""
    arrived: bool = False

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
        command_at: returns the number of the last command up to a place in the log.
    """

    def __init__(
        self,
        core: Core,
        life: str,
        freeze: Freeze,
        kept_ticks: int,
        command_at: Callable[[int], int],
    ) -> None:
        self._core = core
        self._life = life
        self._freeze = freeze
        self._kept_ticks = kept_ticks
        self._command_at = command_at
        self._frozen = 0
        self._closed = False
        self._snapshots: dict[NodeId, OutgoingSnapshot] = {}

    @property
    def held_commands(self) -> int:
        """How many applied commands members that are sent a snapshot still need, at most."""
        core = self._core
        if not self._snapshots or not core.is_leader:
            return 0
        needed = min(
            max(snapshot.meta.raft.index, self._matched(peer))
            for peer, snapshot in self._snapshots.items()
        )
        held = self._command_at(core.applied_index) - self._command_at(needed)
        return min(max(0, held), HELD_COMMANDS_MAX)

    def open(self, peer: NodeId) -> OutgoingSnapshot:
        """Return what to send to a member: what it has begun to receive, or a new snapshot.

        Each call must be followed by ``broke``, ``refused`` or ``arrived``.

        Raises:
            ReadFailed: this member's own machine is still being restored.
        """
        kept = self._snapshots.get(peer)
        if kept is not None:
            if not kept.arrived and kept.meta.raft.index >= self._core.log.snapshot.index:
                kept.ended = None
                return kept
            self._forget(peer)
        meta, frozen = self._freeze()
        self._frozen += 1
        name = f"{self._core.node_id}/{self._life}/{self._frozen}".encode()
        self._snapshots[peer] = OutgoingSnapshot(name, meta, frozen)
        return self._snapshots[peer]

    def broke(self, peer: NodeId) -> None:
        """The stream to a member broke: keep the snapshot for the next one."""
        if self._closed:
            self._forget(peer)
        else:
            self._snapshots[peer].ended = self._core.now_ticks

    def refused(self, peer: NodeId) -> None:
        """A member does not want its snapshot, or it cannot be read."""
        self._forget(peer)

    def arrived(self, peer: NodeId) -> None:
        """A member has its snapshot: give it back. What follows it in the log is still needed."""
        snapshot = self._snapshots[peer]
        snapshot.release()
        snapshot.arrived = True
        snapshot.ended = self._core.now_ticks

    def tick(self) -> None:
        """Give back what nobody has come for in time; forget who has caught up."""
        if not self._snapshots:
            return
        core = self._core
        self._forget_ended(core.now_ticks - self._kept_ticks)
        for peer, snapshot in list(self._snapshots.items()):
            if snapshot.arrived and self._matched(peer) >= core.commit_index:
                self._forget(peer)

    def release_kept(self) -> None:
        """Give back everything that is not being sent now."""
        self._forget_ended(self._core.now_ticks)

    def close(self) -> None:
        """Keep nothing any more."""
        self._closed = True
        self.release_kept()

    def _matched(self, peer: NodeId) -> int:
        progress = self._core.progress.get(peer)
        return progress.match_index if progress is not None else self._core.applied_index

    def _forget_ended(self, until: int) -> None:
        for peer, snapshot in list(self._snapshots.items()):
            if snapshot.ended is not None and snapshot.ended <= until:
                self._forget(peer)

    def _forget(self, peer: NodeId) -> None:
        snapshot = self._snapshots.pop(peer)
        if not snapshot.arrived:
            snapshot.release()
