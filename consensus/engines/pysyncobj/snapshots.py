"""Writing, sending and receiving snapshots, in place of PySyncObj's serializer.

PySyncObj's own forks the process or holds it while everything is pickled. This one freezes the
machine at a remembered log index, writes the dump in slices of the event loop, and only when the
file is whole and synced lets PySyncObj cut the log up to that index. A snapshot that arrives is
checked, put in place of the old one, and handed to the engine to restore in steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import attrs
import structlog
from pysyncobj.config import SERIALIZER_STATE

from consensus.engines.pysyncobj.dump import (
    DUMP_SYNC_BYTES,
    DumpHead,
    DumpReader,
    DumpWriter,
    RunningCheck,
)
from consensus.engines.pysyncobj.journal import LogEntry
from consensus.errors import StorageError
from consensus.statemachine import StateSnapshot
from consensus.storage.durable import sync_directory
from consensus.types import Position

log = structlog.get_logger(__name__)

SLICE_S: Final = 0.003
"""A snapshot is written for this long, in seconds, before other work gets its turn."""
DUMP_RETRY_S: Final = 30.0
"""After a failed dump, wait this long, in seconds, before the next."""
PIECE_BYTES: Final = 64 * 1024
"""Of a snapshot, in one message."""
LOG_KEEP_ENTRIES: Final = 1_000
"""Log entries kept before a snapshot, so that a member a little behind needs no snapshot."""
LOG_KEEP_BYTES: Final = 16 * 1024 * 1024
"""The same in bytes of the whole log: beyond it, nothing is kept for members that are behind."""

Piece = tuple[bytes, bool, bool]
"""Bytes, whether they are the first, whether this is the end: PySyncObj's order."""


class Owner(Protocol):
    """What the snapshots need from the engine."""

    def freeze(self) -> tuple[Position, StateSnapshot] | None:
        """Apply what is queued and freeze the machine; None when it cannot be done now."""

    def applied_index(self) -> int:
        """PySyncObj's applied index."""

    def is_linked(self, node: Any) -> bool:
        """Whether a peer is connected."""

    def log_bytes(self) -> int:
        """Bytes that the log holds."""

    def install(self, reader: DumpReader) -> None:
        """A leader's snapshot takes the machine's place."""


@attrs.frozen(slots=True)
class Covered:
    """What the newest snapshot covers: index of commands, index of the log, and its own size."""

    index: int = 0
    raft_index: int = 0
    bytes: int = 0


@attrs.define(slots=True)
class Incoming:
    """A snapshot on its way in."""

    file: BinaryIO
    check: RunningCheck
    unsynced: int = 0


class Snapshots:
    """PySyncObj's serializer interface.

    Args:
        path: of the dump; what is not whole yet stands beside it under other names.
        members: for the dump's header.
        owner: the engine.
        keep_entries: log entries kept before a snapshot.
    """

    def __init__(
        self, path: Path, members: tuple[str, ...], owner: Owner, keep_entries: int
    ) -> None:
        self._path = path
        self._keep_entries = keep_entries
        self.covered = Covered()
        self._members = members
        self._owner = owner
        self._task: asyncio.Task[None] | None = None
        self._outcome = SERIALIZER_STATE.NOT_SERIALIZING
        self._cut_to = 0
        self._not_before = 0.0
        self._outgoing: dict[Any, BinaryIO] = {}
        self._incoming: Incoming | None = None
        self._arrived: DumpReader | None = None

    @property
    def idle(self) -> bool:
        """Whether a new dump may begin."""
        return (
            self._task is None
            and self._outcome == SERIALIZER_STATE.NOT_SERIALIZING
            and time.monotonic() >= self._not_before
        )

    # -- writing ------------------------------------------------------------------------------

    def serialize(self, data: tuple[Any, LogEntry, LogEntry, Any], id: int) -> None:
        """Begin a dump at the last applied entry. PySyncObj gives it and the one before."""
        _, last, previous, _ = data
        frozen = self._owner.freeze()
        if frozen is None:
            return
        position, state = frozen
        head = DumpHead(position, previous, last, self._members)
        keep = self._keep_entries if self._owner.log_bytes() < LOG_KEEP_BYTES else 0
        self._cut_to = id - keep
        self._task = asyncio.get_running_loop().create_task(self._write(head, state))

    def checkSerializing(self) -> tuple[int, int]:
        """Tell PySyncObj how the dump stands; success is told once, with where to cut the log."""
        if self._task is not None:
            return SERIALIZER_STATE.SERIALIZING, self._cut_to
        outcome, self._outcome = self._outcome, SERIALIZER_STATE.NOT_SERIALIZING
        return outcome, self._cut_to

    async def _write(self, head: DumpHead, state: StateSnapshot) -> None:
        aside = self._path.with_suffix(".writing")
        writer: DumpWriter | None = None
        try:
            writer = DumpWriter(aside, head)
            began = time.monotonic()
            for chunk in state.chunks():
                writer.write(chunk)
                if time.monotonic() - began > SLICE_S:
                    await asyncio.sleep(0)
                    began = time.monotonic()
            writer.finish()
            aside.replace(self._path)
            sync_directory(self._path.parent)
            self._cover(head)
            self._outcome = SERIALIZER_STATE.SUCCESS
            log.info("snapshot written", index=self.covered.index, bytes=self.covered.bytes)
        except asyncio.CancelledError:
            if writer is not None:
                writer.abandon()
            raise
        except Exception as error:
            if writer is not None:
                with contextlib.suppress(OSError):
                    writer.abandon()
            self._outcome = SERIALIZER_STATE.FAILED
            self._not_before = time.monotonic() + DUMP_RETRY_S
            log.error("snapshot failed; the log keeps growing", error=str(error))
        finally:
            state.release()
            self._task = None

    # -- sending ------------------------------------------------------------------------------

    def getTransmissionData(self, transmissionID: Any) -> Piece | None:
        """Return the next piece for a peer; None while there is no dump to send."""
        file = self._outgoing.get(transmissionID)
        first = file is None
        if file is None:
            try:
                file = self._path.open("rb")
            except FileNotFoundError:
                return None
            self._outgoing[transmissionID] = file
        data = file.read(PIECE_BYTES)
        if not data:
            file.close()
            del self._outgoing[transmissionID]
        return data, first, not data

    def cancelTransmisstion(self, id: Any) -> None:
        """The peer is not there, says PySyncObj; a paused link goes on where it was."""
        if not self._owner.is_linked(id):
            self.peer_lost(id)

    def peer_lost(self, node: Any) -> None:
        """The link is gone: a new one begins the snapshot anew."""
        file = self._outgoing.pop(node, None)
        if file is not None:
            file.close()

    # -- receiving ----------------------------------------------------------------------------

    def setTransmissionData(self, data: Piece | None) -> bool:
        """Take a piece; True when a whole, sound, newer snapshot has taken the old one's place."""
        if data is None:
            return False
        piece, first, last = data
        path = self._path.with_suffix(".incoming")
        if first:
            self._drop_incoming()
            self._incoming = Incoming(path.open("wb"), RunningCheck())
        incoming = self._incoming
        if incoming is None:
            return False
        incoming.file.write(piece)
        incoming.check.update(piece)
        incoming.unsynced += len(piece)
        if incoming.unsynced >= DUMP_SYNC_BYTES or last:
            incoming.file.flush()
            os.fdatasync(incoming.file.fileno())
            incoming.unsynced = 0
        if not last:
            return False
        sound = incoming.check.holds()
        self._drop_incoming()
        if not sound:
            log.error("a snapshot arrived damaged and is ignored")
            return False
        return self._accept(path)

    def _accept(self, path: Path) -> bool:
        try:
            reader = DumpReader(path)
        except StorageError as error:
            log.error("a snapshot arrived that cannot be used", error=str(error))
            return False
        if reader.head.last[1] <= self._owner.applied_index():
            reader.close()
            return False  # PySyncObj would go back in time
        path.replace(self._path)
        sync_directory(self._path.parent)
        self._arrived = reader
        return True

    def deserialize(self) -> tuple[None, LogEntry, LogEntry, tuple[()]]:
        """Tell PySyncObj where its log goes on. The machine's part goes to the engine."""
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            head = arrived.head
            self._owner.install(arrived)
        else:
            reader = DumpReader(self._path)  # at start: the engine has restored from it already
            reader.close()
            head = reader.head
        self._cover(head)
        return None, head.last, head.previous, ()

    def _cover(self, head: DumpHead) -> None:
        size = self._path.stat().st_size
        self.covered = Covered(head.position.index, head.last[1], size)

    # -- end ----------------------------------------------------------------------------------

    def _drop_incoming(self) -> None:
        if self._incoming is not None:
            self._incoming.file.close()
            self._incoming = None

    async def close(self) -> None:
        """Give up what is half done and close every file."""
        task = self._task
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._drop_incoming()
        for node in list(self._outgoing):
            self.peer_lost(node)
