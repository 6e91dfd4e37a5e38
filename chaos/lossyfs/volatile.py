"""A directory whose unsynced changes can be taken back.

Every change is made at once in the directory below, so reads need no bookkeeping, and is noted with
what it replaced. ``sync`` of a file or a directory strikes its notes out. ``forget`` is the crash:
it takes back every change that is still noted and, depending on the mode, makes some of them again,
sector by sector. A sync that failed leaves its changes noted for good: what the kernel could not
write it drops, and later syncs do not bring it back.
"""

from __future__ import annotations

import contextlib
import enum
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Final

import attrs

SECTOR_BYTES: Final = 512
"""What a disk writes whole or not at all."""

PENDING_BYTES_MAX: Final = 256 * 1024 * 1024
"""Unsynced bytes that are remembered; beyond it the oldest are written back, as a kernel does."""


class Forget(enum.Enum):
    """What a crash leaves of unsynced changes."""

    ALL = "all"
    """Nothing of them."""

    TORN = "torn"
    """The first so many, and the first sectors of the one after."""

    SOME = "some"
    """Any sectors of any of them."""


@attrs.define(slots=True)
class _Write:
    """Bytes of a file, replaced (``new``), cut off (``new`` empty), or reserved; not yet synced."""

    inode: int
    offset: int
    old: bytes
    old_size: int
    new: bytes
    new_size: int
    doomed: bool = False


@attrs.define(slots=True)
class _Name:
    """A name that appeared, vanished or moved; its directory is not yet synced.

    ``old`` is None for a new file and ``new`` is None for a removed one; ``kept`` is where a file
    that lost its name waits.
    """

    old: str | None
    new: str | None
    inode: int
    kept: Path | None = None

    def touches(self, names: Iterable[str | None]) -> bool:
        """Whether it is about one of these names."""
        return bool({self.old, self.new} & (set(names) - {None}))


class VolatileDirectory:
    """Files below ``store``; any thread may call.

    Args:
        store: a directory of its own; ``files`` and ``kept`` are made in it.
        seed: of what a crash leaves.
    """

    def __init__(self, store: Path, seed: int) -> None:
        self.files = store / "files"
        self._kept = store / "kept"
        for directory in (self.files, self._kept):
            directory.mkdir(parents=True, exist_ok=True)
        self._rng = Random(seed)
        self._lock = threading.RLock()
        self._writes: list[_Write] = []
        self._names: list[_Name] = []
        self._handles: dict[int, int] = {}
        self._pending_bytes = 0
        self._number = 0

    @property
    def pending(self) -> int:
        """How many changes are not synced."""
        return len(self._writes) + len(self._names)

    def below(self, path: str) -> str:
        """Where a path of the mount point ("/a/b") really is."""
        return f"{self.files}{path}"

    # -- changes ------------------------------------------------------------------------------

    def create(self, path: str, flags: int, mode: int) -> int:
        """Open a new file, or an old one that ``flags`` may truncate; return a descriptor."""
        with self._lock:
            existed = os.path.exists(self.below(path))
            handle = os.open(self.below(path), os.O_CREAT | os.O_RDWR, mode)
            if not existed:
                self._names.append(_Name(None, path, os.fstat(handle).st_ino))
            elif flags & os.O_TRUNC:
                self.resize(handle, 0)
            return handle

    def write(self, handle: int, data: bytes, offset: int) -> int:
        """Write bytes."""
        with self._lock:
            status = os.fstat(handle)
            old = os.pread(handle, len(data), offset)
            written = os.pwrite(handle, data, offset)
            self._note(
                handle,
                _Write(
                    status.st_ino,
                    offset,
                    old,
                    status.st_size,
                    data[:written],
                    max(status.st_size, offset + written),
                ),
            )
            return written

    def resize(self, handle: int, size: int) -> None:
        """Cut a file, or let it grow with zeros."""
        with self._lock:
            status = os.fstat(handle)
            cut = os.pread(handle, max(0, status.st_size - size), size)
            os.ftruncate(handle, size)
            self._note(handle, _Write(status.st_ino, size, cut, status.st_size, b"", size))

    def remove(self, path: str) -> None:
        """Take a file's name away."""
        with self._lock:
            inode = os.stat(self.below(path)).st_ino
            self._names.append(_Name(path, None, inode, self._set_aside(path)))

    def rename(self, old: str, new: str) -> None:
        """Move a file or directory; what had the new name is replaced."""
        with self._lock:
            inode = os.lstat(self.below(old)).st_ino
            replaced = os.path.isfile(self.below(new))
            kept = self._set_aside(new) if replaced else None
            os.rename(self.below(old), self.below(new))
            self._names.append(_Name(old, new, inode, kept))

    # -- syncs --------------------------------------------------------------------------------

    def sync(self, handle: int) -> None:
        """Make a file durable, and the name under which it was created."""
        with self._lock:
            inode = os.fstat(handle).st_ino
            self._strike_out([one for one in self._writes if one.inode == inode])
            for place, name in enumerate(self._names):
                if name.inode == inode and name.old is None:
                    # What happened to this name before is in the same journal.
                    before = [one for one in self._names[:place] if one.touches([name.new])]
                    self._keep_names([*before, name])
                    return

    def fail_sync(self, handle: int) -> None:
        """A sync that failed: what was to be written is dropped, whatever later syncs say."""
        with self._lock:
            inode = os.fstat(handle).st_ino
            for one in self._writes:
                one.doomed = one.doomed or one.inode == inode

    def sync_names(self, directory: str) -> None:
        """Make what happened to the names in a directory durable."""
        inside = directory.rstrip("/")

        def here(path: str | None) -> bool:
            return path is not None and os.path.dirname(path).rstrip("/") == inside

        with self._lock:
            self._keep_names([one for one in self._names if here(one.old) or here(one.new)])

    # -- the crash ----------------------------------------------------------------------------

    def forget(self, mode: Forget) -> int:
        """Lose what was not synced, as ``mode`` says; return how many changes were lost."""
        with self._lock:
            lost_names = self._take_back_names(mode)
            lost_writes = self._take_back_writes(mode)
            for handle in self._handles.values():
                os.close(handle)
            self._handles.clear()
            self._pending_bytes = 0
            return lost_names + lost_writes

    def _take_back_names(self, mode: Forget) -> int:
        names, self._names = self._names, []
        keep = 0 if mode is Forget.ALL else self._rng.randint(0, len(names))
        for name in reversed(names[keep:]):
            self._undo(name)
        for name in names[:keep]:
            self._let_go(name)
        return len(names) - keep

    def _undo(self, name: _Name) -> None:
        if name.old is None and name.new is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.below(name.new))
        elif name.old is not None and name.new is not None:
            os.rename(self.below(name.new), self.below(name.old))
        back = name.new if name.new is not None else name.old
        if name.kept is not None and back is not None:
            os.rename(name.kept, self.below(back))

    def _take_back_writes(self, mode: Forget) -> int:
        writes, self._writes = self._writes, []
        for one in reversed(writes):
            handle = self._handles[one.inode]
            os.pwrite(handle, one.old, one.offset)
            os.ftruncate(handle, one.old_size)
        kept = {id(one) for one in writes[: self._redo(writes, mode)]}
        return sum(id(one) not in kept for one in writes)

    def _redo(self, writes: list[_Write], mode: Forget) -> int:
        """Make some of these again; return how many of the first ones were made whole."""
        if mode is Forget.ALL:
            return 0
        whole = self._rng.randint(0, len(writes)) if mode is Forget.TORN else 0
        for place, one in enumerate(writes):
            if one.doomed:
                continue
            sectors = range((len(one.new) + SECTOR_BYTES - 1) // SECTOR_BYTES)
            if mode is Forget.SOME:
                chosen = [sector for sector in sectors if self._rng.random() < 0.5]
            elif place < whole:
                chosen = list(sectors)
            elif place == whole:
                chosen = list(sectors)[: self._rng.randint(0, max(0, len(sectors) - 1))]
            else:
                break
            self._write_again(one, chosen, resize=place < whole)
        return whole

    def _write_again(self, one: _Write, sectors: list[int], resize: bool) -> None:
        handle = self._handles[one.inode]
        if resize and not one.new:
            os.ftruncate(handle, one.new_size)
        for sector in sectors:
            start = sector * SECTOR_BYTES
            os.pwrite(handle, one.new[start : start + SECTOR_BYTES], one.offset + start)

    # -- inside -------------------------------------------------------------------------------

    def _note(self, handle: int, one: _Write) -> None:
        if one.inode not in self._handles:
            path = f"/proc/self/fd/{handle}"
            self._handles[one.inode] = os.open(path, os.O_RDWR)
        self._writes.append(one)
        self._pending_bytes += len(one.old) + len(one.new)
        while self._pending_bytes > PENDING_BYTES_MAX and len(self._writes) > 1:
            self._strike_out(self._writes[:1])

    def _strike_out(self, done: list[_Write]) -> None:
        gone = {id(one) for one in done if not one.doomed}
        self._pending_bytes -= sum(len(one.old) + len(one.new) for one in done if id(one) in gone)
        self._writes = [one for one in self._writes if id(one) not in gone]
        waiting = {one.inode for one in self._writes}
        for inode in {one.inode for one in done} - waiting:
            os.close(self._handles.pop(inode))

    def _keep_names(self, done: list[_Name]) -> None:
        gone = {id(one) for one in done}
        self._names = [one for one in self._names if id(one) not in gone]
        for one in done:
            self._let_go(one)

    def _let_go(self, name: _Name) -> None:
        if name.kept is not None:
            name.kept.unlink(missing_ok=True)

    def _set_aside(self, path: str) -> Path:
        self._number += 1
        kept = self._kept / str(self._number)
        os.rename(self.below(path), kept)
        return kept
