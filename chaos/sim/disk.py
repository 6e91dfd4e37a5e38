"""A disk that keeps only what was synced.

Writes go to a page cache that the running process sees. ``sync`` makes a file's writes durable;
``sync_names`` does so for creations, renames and removals. A crash keeps, of everything since,
what the seed says: nothing, a prefix whose last write is torn, any subset of sectors, or
all. Each fault counts when it has had an effect, so that a run can tell what it really tried.
"""

from __future__ import annotations

import enum
import errno
import random
from collections.abc import Callable, Sequence
from typing import Final

from consensus.storage.files import File, FileSystem

SECTOR_BYTES: Final = 512
"""What a disk writes whole or not at all, unless a run says otherwise."""
FLIP_BITS_MAX: Final = 8
FLIP_WINDOW_BYTES: Final = 64
"""Damage at rest is local: up to so many bits within so many bytes,"""
PAGE_BYTES: Final = 4096
"""or a whole page that reads as something else."""
PAGES_LOST: Final = 0.3
"""Share of damage that takes a page."""


class CrashMode(enum.Enum):
    """What of the unsynced writes a crash leaves."""

    LOSE_ALL = "lose_all"
    KEEP_PREFIX = "keep_prefix"
    KEEP_SOME = "keep_some"
    KEEP_ALL = "keep_all"


class SimulatedCrash(BaseException):
    """The machine loses its power in the middle of something: no handler may catch it."""


class SimDisk:
    """The state of one machine's disk, shared by its directories.

    ``raised`` is set when it made an operation fail.

    Args:
        prng: decides what a crash keeps.
        synced: called at each sync, so that time can pass for it; may raise SimulatedCrash.
        operation: called before each operation that changes something; may raise SimulatedCrash.
        count: told of each effect of a fault.
        sector_bytes: what arrives whole or not at all.
    """

    def __init__(
        self,
        prng: random.Random,
        synced: Callable[[], None] = lambda: None,
        operation: Callable[[], None] = lambda: None,
        count: Callable[[str], None] = lambda what: None,
        sector_bytes: int = SECTOR_BYTES,
    ) -> None:
        self.prng = prng
        self.sector_bytes = sector_bytes
        self._synced = synced
        self.count = count
        self.fail_next_sync = False
        self.full = False
        self.raised = False
        self._dead = False
        self._operation = operation
        self.systems: list[SimFileSystem] = []

    def directory(self) -> SimFileSystem:
        """Return a new, empty directory on this disk."""
        system = SimFileSystem(self)
        self.systems.append(system)
        return system

    def alive(self) -> bool:
        """Begin an operation. False after a crash: what still unwinds must change nothing."""
        if self._dead:
            return False
        try:
            self._operation()
        except SimulatedCrash:
            self._dead = True
            raise
        return True

    def begin_sync(self) -> None:
        """Let the time of a sync pass. A crash may come instead."""
        try:
            self._synced()
        except SimulatedCrash:
            self._dead = True
            raise

    def refuse_if_full(self) -> None:
        """Raise the error of a full disk, if this one is full."""
        if self.full:
            self.raised = True
            self.count("disk full refused")
            raise OSError(errno.ENOSPC, "no space left on the simulated disk")

    def crash(self, mode: CrashMode) -> None:
        """Forget what was not synced, as ``mode`` says; then the machine may start again."""
        for system in self.systems:
            system.crash(mode)
        self.fail_next_sync = False
        self._dead = False

    def flip_bits(self, prng: random.Random) -> bool:
        """Damage what has been on disk for a while: bits, or a page. False: nothing has been."""
        contents = [
            content
            for system in self.systems
            for content in system.durable_contents()
            if content.settled
        ]
        if not contents:
            return False
        content = prng.choice(contents)
        start = prng.randrange(content.settled)
        if prng.random() < PAGES_LOST:
            start -= start % PAGE_BYTES
            end = min(start + PAGE_BYTES, content.settled)
            content.durable[start:end] = prng.randbytes(end - start)
        else:
            length = min(FLIP_WINDOW_BYTES, content.settled - start)
            for _ in range(prng.randrange(1, FLIP_BITS_MAX + 1)):
                content.durable[start + prng.randrange(length)] ^= 1 << prng.randrange(8)
        content.current = bytearray(content.durable)
        self.count("bits flipped")
        return True


class Content:
    """One file's bytes: as the process sees them, as they are on disk, and the way between.

    ``settled``: how many bytes at its beginning were durable before the latest sync. Damage to the
    latest batch cannot be told from a torn write, by this program or any other.
    """

    def __init__(self) -> None:
        self.current = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []
        self.settled = 0
        self._synced_end = 0

    def write(self, offset: int, data: bytes) -> None:
        """Write to the page cache."""
        end = offset + len(data)
        current = self.current
        if len(current) < end:
            current.extend(bytes(end - len(current)))
        current[offset:end] = data
        self.pending.append((offset, data))

    def resize(self, size: int) -> None:
        """Grow with zeros, or cut, in the page cache."""
        _resize(self.current, size)
        self.pending.append((size, None))

    def sync(self) -> None:
        """Make everything durable."""
        durable = self.durable
        settled = synced_end = self._synced_end
        for offset, data in self.pending:
            if data is None:
                _resize(durable, offset)
                synced_end = min(synced_end, offset)
                settled = min(settled, offset)
                continue
            end = offset + len(data)
            if end > len(durable):
                durable.extend(bytes(end - len(durable)))
            durable[offset:end] = data
            if end > synced_end:
                synced_end = end
        self.settled, self._synced_end = settled, synced_end
        self.pending.clear()

    def crash(self, mode: CrashMode, disk: SimDisk) -> None:
        """Keep of the pending writes what ``mode`` says."""
        prng, count = disk.prng, disk.count
        pending, self.pending = self.pending, []
        if pending:
            match mode:
                case CrashMode.LOSE_ALL:
                    count("unsynced writes lost")
                case CrashMode.KEEP_ALL:
                    count("unsynced writes kept")
                    self._keep(pending)
                case CrashMode.KEEP_PREFIX:
                    last = len(pending) - 1
                    whole = last if prng.random() < 0.5 else prng.randrange(last + 2)
                    self._keep(pending[:whole])
                    if whole < len(pending):
                        self._keep_torn(*pending[whole], disk)
                case CrashMode.KEEP_SOME:
                    self._keep_some(pending, disk)
        self.current = bytearray(self.durable)

    def _keep(self, writes: Sequence[tuple[int, bytes | None]]) -> None:
        for offset, data in writes:
            _apply(self.durable, offset, data)

    def _keep_torn(self, offset: int, data: bytes | None, disk: SimDisk) -> None:
        """Let the sectors of one write arrive up to some point."""
        if data is None:
            return
        sectors = _sectors(offset, data, disk.sector_bytes)
        arrived = disk.prng.randrange(len(sectors))
        if arrived:
            disk.count("torn write")
        self._keep(sectors[:arrived])

    def _keep_some(self, writes: Sequence[tuple[int, bytes | None]], disk: SimDisk) -> None:
        """Let each sector of each write arrive, or not; a change of length arrives or not."""
        lost_one = False
        for offset, data in writes:
            whole = [(offset, data)]
            for piece in whole if data is None else _sectors(offset, data, disk.sector_bytes):
                if disk.prng.random() < 0.5:
                    self._keep([piece])
                    if lost_one:
                        disk.count("reordered writes")
                else:
                    lost_one = True


class SimFile(File):
    """An open file on a simulated disk."""

    def __init__(self, disk: SimDisk, content: Content) -> None:
        self._disk = disk
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        """Read from the page cache."""
        return bytes(self._content.current[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Write to the page cache. Growing a file takes space."""
        if not self._disk.alive():
            return
        if offset + len(data) > len(self._content.current):
            self._disk.refuse_if_full()
        self._content.write(offset, bytes(data))

    def sync(self) -> None:
        """Make writes durable, or fail once and lose them, as Linux does."""
        if not self._disk.alive():
            return
        self._disk.begin_sync()
        if self._disk.fail_next_sync:
            self._disk.fail_next_sync = False
            self._disk.raised = True
            self._content.pending.clear()
            self._disk.count("sync failed")
            raise OSError(errno.EIO, "the simulated disk failed a sync")
        self._content.sync()

    def size(self) -> int:
        """Length as the process sees it."""
        return len(self._content.current)

    def resize(self, size: int) -> None:
        """Grow with zeros, or cut. Growing is durable at once, as with the real file."""
        if not self._disk.alive():
            return
        growing = size > len(self._content.current)
        if growing:
            self._disk.refuse_if_full()
        self._content.resize(size)
        if growing:
            self._content.sync()

    def close(self) -> None:
        """Nothing to do."""


class SimFileSystem(FileSystem):
    """One directory on a simulated disk."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self._names: dict[str, Content] = {}
        self._durable: dict[str, Content] = {}

    def open(self, name: str) -> File:
        """Open or create."""
        return SimFile(self._disk, self._names.setdefault(name, Content()))

    def names(self) -> Sequence[str]:
        """Names as the process sees them."""
        return sorted(self._names)

    def rename(self, old: str, new: str) -> None:
        """Durable only after ``sync_names``."""
        if self._disk.alive():
            self._names[new] = self._names.pop(old)

    def remove(self, name: str) -> None:
        """Durable only after ``sync_names``."""
        if self._disk.alive():
            del self._names[name]

    def sync_names(self) -> None:
        """Make the names durable."""
        if self._disk.alive():
            self._durable = dict(self._names)

    def crash(self, mode: CrashMode) -> None:
        """Names go back to what was synced, or stay, each as the mode says."""
        if self._names != self._durable:
            if mode is CrashMode.KEEP_ALL:
                self._durable = dict(self._names)
            elif mode is CrashMode.KEEP_SOME:
                self._keep_some_names()
            else:
                self._disk.count("unsynced names lost")
        self._names = dict(self._durable)
        for name in sorted(self._names):
            self._names[name].crash(mode, self._disk)

    def _keep_some_names(self) -> None:
        """Let each change of a name reach the disk, or not, in any order."""
        for name in sorted({*self._names, *self._durable}):
            if self._names.get(name) is self._durable.get(name):
                continue
            if self._disk.prng.random() < 0.5:
                self._disk.count("unsynced names lost")
            elif name in self._names:
                self._durable[name] = self._names[name]
            else:
                del self._durable[name]

    def durable_contents(self) -> list[Content]:
        """The files that the process uses and that a crash would leave, by name."""
        return [
            self._durable[name]
            for name in sorted(self._durable)
            if self._names.get(name) is self._durable[name]
        ]


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


def _sectors(offset: int, data: bytes, sector_bytes: int) -> list[tuple[int, bytes | None]]:
    """Cut a write where sectors end."""
    pieces: list[tuple[int, bytes | None]] = []
    start = 0
    while start < len(data):
        length = sector_bytes - (offset + start) % sector_bytes
        pieces.append((offset + start, data[start : start + length]))
        start += length
    return pieces
