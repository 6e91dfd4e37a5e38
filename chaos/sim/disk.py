"""A disk that keeps only what was synced.

Writes go to a page cache that the running process sees. ``sync`` makes a file's writes durable;
``sync_names`` does so for creations, renames and removals. A crash keeps, of everything since,
what the seed says: nothing, a prefix, or any subset of 512-byte sectors in any order. A torn write
is one of which only some sectors arrived.
"""

from __future__ import annotations

import enum
import errno
import random
from collections.abc import Callable, Sequence
from typing import Final

from consensus.storage.files import File, FileSystem

SECTOR_BYTES: Final = 512


class CrashMode(enum.Enum):
    """What of the unsynced writes a crash leaves."""

    LOSE_ALL = "lose_all"
    KEEP_PREFIX = "keep_prefix"
    KEEP_SOME = "keep_some"
    KEEP_ALL = "keep_all"


class SimDisk:
    """The state of one machine's disk, shared by its directories.

    Args:
        prng: decides what a crash keeps.
        synced: called at each sync, so that time can pass for it.
    """

    def __init__(self, prng: random.Random, synced: Callable[[], None]) -> None:
        self.prng = prng
        self.synced = synced
        self.fail_next_sync = False
        self.full = False
        self._systems: list[SimFileSystem] = []

    def directory(self) -> SimFileSystem:
        """Return a new, empty directory on this disk."""
        system = SimFileSystem(self)
        self._systems.append(system)
        return system

    def crash(self, mode: CrashMode) -> None:
        """Forget what was not synced, as ``mode`` says."""
        for system in self._systems:
            system.crash(mode)
        self.fail_next_sync = False
        self.full = False

    def files(self) -> list[_Content]:
        """Every file that has a durable name, in a fixed order."""
        return [content for system in self._systems for content in system.durable_contents()]


class _Content:
    """One file's bytes: as the process sees them, as they are on disk, and the way between."""

    def __init__(self) -> None:
        self.current = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if len(self.current) < end:
            self.current.extend(bytes(end - len(self.current)))
        self.current[offset:end] = data
        self.pending.append((offset, data))

    def resize(self, size: int) -> None:
        _resize(self.current, size)
        self.pending.append((size, None))

    def sync(self) -> None:
        for offset, data in self.pending:
            _apply(self.durable, offset, data)
        self.pending.clear()

    def crash(self, mode: CrashMode, prng: random.Random) -> None:
        kept = self.pending
        if mode is CrashMode.LOSE_ALL:
            kept = []
        elif mode is CrashMode.KEEP_PREFIX:
            kept = kept[: prng.randrange(len(kept) + 1)]
        for offset, data in kept:
            if mode is CrashMode.KEEP_SOME and data is not None:
                _apply_some(self.durable, offset, data, prng)
            elif mode is not CrashMode.KEEP_SOME or prng.random() < 0.5:
                _apply(self.durable, offset, data)
        self.pending.clear()
        self.current = bytearray(self.durable)


class SimFile(File):
    """An open file on a simulated disk."""

    def __init__(self, disk: SimDisk, content: _Content) -> None:
        self._disk = disk
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        """Read from the page cache."""
        return bytes(self._content.current[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Write to the page cache."""
        if self._disk.full:
            raise OSError(errno.ENOSPC, "no space left on the simulated disk")
        self._content.write(offset, bytes(data))

    def sync(self) -> None:
        """Make writes durable, or fail once and lose them, as Linux does."""
        self._disk.synced()
        if self._disk.fail_next_sync:
            self._disk.fail_next_sync = False
            self._content.pending.clear()
            raise OSError(errno.EIO, "the simulated disk failed a sync")
        self._content.sync()

    def size(self) -> int:
        """Length as the process sees it."""
        return len(self._content.current)

    def resize(self, size: int) -> None:
        """Grow with zeros, or cut. Growing is durable at once, as with the real file."""
        growing = size > len(self._content.current)
        self._content.resize(size)
        if growing:
            self._content.sync()

    def close(self) -> None:
        """Nothing to do."""


class SimFileSystem(FileSystem):
    """One directory on a simulated disk."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self._names: dict[str, _Content] = {}
        self._durable: dict[str, _Content] = {}

    def open(self, name: str) -> File:
        """Open or create."""
        return SimFile(self._disk, self._names.setdefault(name, _Content()))

    def names(self) -> Sequence[str]:
        """Names as the process sees them."""
        return sorted(self._names)

    def rename(self, old: str, new: str) -> None:
        """Durable only after ``sync_names``."""
        self._names[new] = self._names.pop(old)

    def remove(self, name: str) -> None:
        """Durable only after ``sync_names``."""
        del self._names[name]

    def sync_names(self) -> None:
        """Make the names durable."""
        self._durable = dict(self._names)

    def crash(self, mode: CrashMode) -> None:
        """Names go back to what was synced, or stay, each as the mode says."""
        if mode is CrashMode.KEEP_ALL:
            self._durable = dict(self._names)
        self._names = dict(self._durable)
        for name in sorted(self._names):
            self._names[name].crash(mode, self._disk.prng)

    def durable_contents(self) -> list[_Content]:
        """The files that a crash would leave."""
        return [self._durable[name] for name in sorted(self._durable)]


def _resize(data: bytearray, size: int) -> None:
    if len(data) < size:
        data.extend(bytes(size - len(data)))
    else:
        del data[size:]


def _apply(durable: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        _resize(durable, offset)
        return
    end = offset + len(data)
    if len(durable) < end:
        durable.extend(bytes(end - len(durable)))
    durable[offset:end] = data


def _apply_some(durable: bytearray, offset: int, data: bytes, prng: random.Random) -> None:
    """Let each sector of a write arrive, or not."""
    start = 0
    while start < len(data):
        length = SECTOR_BYTES - (offset + start) % SECTOR_BYTES
        if prng.random() < 0.5:
            _apply(durable, offset + start, data[start : start + length])
        start += length
