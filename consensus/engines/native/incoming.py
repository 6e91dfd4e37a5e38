"""Snapshots that other members send: what has come is kept until the rest has come too.

A stream that breaks leaves its beginning in the snapshot store, under a temporary name. The next
stream of the same bytes goes on there; one of other bytes throws it away. So does a restart: at
most one unfinished snapshot is kept, by the process that received it.

Synchronous, like the driver: the engine's sockets and the simulator's network feed it alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import attrs
import google_crc32c

from consensus.errors import SnapshotRefused, StorageError
from consensus.raft.core import Core
from consensus.raft.messages import InstallSnapshot
from consensus.storage.snapshots import SnapshotStore, SnapshotWriter, StoredMeta
from consensus.types import NodeId


@attrs.frozen(slots=True)
class Announcement:
    """What a leader says of a snapshot before its bytes.

    ``id`` names the bytes; ``sender`` and ``term`` are of the leader that sends them.
    """

    id: bytes
    sender: NodeId
    term: int
    meta: StoredMeta

    def message_to(self, receiver: NodeId) -> InstallSnapshot:
        """Return the message that the core of its receiver takes."""
        return InstallSnapshot(
            sender=self.sender, receiver=receiver, term=self.term, snapshot=self.meta.raft
        )


@attrs.define(slots=True, eq=False)
class _Unfinished:
    """The beginning of a snapshot: ``size`` bytes, whose CRC32C is ``checksum``."""

    id: bytes
    meta: StoredMeta
    writer: SnapshotWriter
    size: int = 0
    checksum: int = 0


class Reception:
    """One stream of a snapshot. It may go on with what an earlier one has brought.

    Args:
        snapshots: whose stream it is.
        announced: what the leader said of it.
        unfinished: what it adds to.
    """

    def __init__(
        self, snapshots: IncomingSnapshots, announced: Announcement, unfinished: _Unfinished
    ) -> None:
        self._snapshots = snapshots
        self._announced = announced
        self._unfinished = unfinished

    @property
    def term(self) -> int:
        """The term of the leader that sends."""
        return self._announced.term

    @property
    def offset(self) -> int:
        """Bytes that are here already."""
        return self._unfinished.size

    def write(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            SnapshotRefused: another stream has taken over, or the snapshot is needed no more.
            StorageError: the disk failed. The node must stop.
        """
        self._check_wanted()
        unfinished = self._unfinished
        try:
            unfinished.writer.write(chunk)
        except OSError as error:
            raise StorageError(f"writing a snapshot failed: {error}") from error
        unfinished.size += len(chunk)
        unfinished.checksum = google_crc32c.extend(unfinished.checksum, chunk)

    def finish(self, size: int, checksum: int) -> None:
        """Everything has come: check it against what was sent, and let the core take it.

        Raises:
            SnapshotRefused: it is not what was sent, or is needed no more. Nothing of it is kept.
            StorageError: the disk failed. The node must stop.
        """
        self._check_wanted()
        unfinished = self._unfinished
        if (size, checksum) != (unfinished.size, unfinished.checksum):
            self._snapshots.discard()
            raise SnapshotRefused(
                f"what arrived is not what was sent: {unfinished.size} bytes of {size}, checksum "
                f"{unfinished.checksum:08x} instead of {checksum:08x}"
            )
        try:
            unfinished.writer.finish()
        except OSError as error:
            raise StorageError(f"writing a snapshot failed: {error}") from error
        self._snapshots.finished(self._announced)

    def close(self) -> None:
        """The stream is over. What came of an unfinished snapshot is kept for the next one."""
        self._snapshots.closed(self)

    def _check_wanted(self) -> None:
        if not self._snapshots.receives(self, self._unfinished):
            raise SnapshotRefused("it is needed no more, or another stream has taken over")


class IncomingSnapshots:
    """What one member receives.

    Args:
        store: where snapshots are kept.
        core: the member's core, which says what it needs.
        install: called with a snapshot that is in the store, whole.
    """

    def __init__(
        self,
        store: SnapshotStore,
        core: Core,
        install: Callable[[InstallSnapshot, StoredMeta], None],
    ) -> None:
        self._store = store
        self._core = core
        self._install = install
        self._unfinished: _Unfinished | None = None
        self._receiving: Reception | None = None

    def begin(self, announced: Announcement) -> Reception:
        """A leader begins to send a snapshot.

        One that is needed no more is answered by the core: a leader that did not hear of its
        arrival would send it again, and for ever where it needs this member to commit anything.

        Raises:
            SnapshotRefused: it is needed no more, or a later leader is sending one.
            StorageError: the disk failed. The node must stop.
        """
        core = self._core
        known = max(core.term, self._receiving.term if self._receiving else 0)
        if announced.term < known:
            raise SnapshotRefused(f"sent in term {announced.term}; this is term {known}")
        if announced.meta.raft.index <= core.commit_index:
            core.step(announced.message_to(core.node_id))
            raise SnapshotRefused(f"already at index {core.commit_index}")
        unfinished = self._unfinished
        if unfinished is None or (unfinished.id, unfinished.meta) != (announced.id, announced.meta):
            self.discard()
            try:
                writer = self._store.writer(announced.meta)
            except OSError as error:
                raise StorageError(f"writing a snapshot failed: {error}") from error
            unfinished = self._unfinished = _Unfinished(announced.id, announced.meta, writer)
        self._receiving = Reception(self, announced, unfinished)
        return self._receiving

    def discard(self) -> None:
        """Forget what has come of an unfinished snapshot; whoever is sending it is refused."""
        unfinished, self._unfinished, self._receiving = self._unfinished, None, None
        if unfinished is not None:
            with contextlib.suppress(OSError):  # a start removes what is left of it
                unfinished.writer.abort()

    def discard_covered(self) -> None:
        """Forget an unfinished snapshot of what this member has come to know otherwise."""
        unfinished = self._unfinished
        if unfinished is not None and unfinished.meta.raft.index <= self._core.commit_index:
            self.discard()

    # -- what a reception asks and tells ------------------------------------------------------

    def receives(self, reception: Reception, unfinished: _Unfinished) -> bool:
        """Whether this is the stream that is wanted."""
        return self._receiving is reception and self._unfinished is unfinished

    def finished(self, announced: Announcement) -> None:
        """The snapshot is in the store."""
        self._unfinished = self._receiving = None
        self._install(announced.message_to(self._core.node_id), announced.meta)

    def closed(self, reception: Reception) -> None:
        """A stream is over."""
        if self._receiving is reception:
            self._receiving = None
