"""The few things that storage asks of a file system, and the real one.

Three facts that everything above relies on, and nothing more: what was written before a ``sync``
returned is there after a crash; a file's own bytes may be torn or missing where it was not synced;
a rename or a new name is durable once its directory was synced.
"""

from __future__ import annotations

import abc
import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from consensus.stats import Durations
from consensus.storage.durable import sync_directory

WRITE_AHEAD_BYTES: Final = 1024 * 1024
"""Zeros that are written into reserved blocks at once, before what comes to stand there."""


class File(abc.ABC):
    """One open file, read and written at offsets (bytes)."""

    @abc.abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``; fewer at the end of the file."""

    @abc.abstractmethod
    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data`` at ``offset``. Not durable before ``sync``."""

    @abc.abstractmethod
    def sync(self) -> None:
        """Make every write so far durable. After a failure nothing is known: never try again."""

    @abc.abstractmethod
    def size(self) -> int:
        """Return the file's length in bytes."""

    @abc.abstractmethod
    def resize(self, size: int) -> None:
        """Reserve or cut the file to ``size`` bytes; new bytes read as zero."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close. Does not sync."""


class FileSystem(abc.ABC):
    """Names in one directory."""

    @abc.abstractmethod
    def open(self, name: str) -> File:
        """Open a file for reading and writing; create it where it is missing."""

    @abc.abstractmethod
    def names(self) -> Sequence[str]:
        """Return the names in the directory, sorted."""

    @abc.abstractmethod
    def rename(self, old: str, new: str) -> None:
        """Rename, replacing ``new``. Durable after ``sync_names``."""

    @abc.abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file. Durable after ``sync_names``."""

    @abc.abstractmethod
    def sync_names(self) -> None:
        """Make creations, renames and removals durable."""


class RealFile(File):
    """A file of the operating system.

    The first sync of a block that is reserved and was never written costs a transaction of the file
    system's journal, several times the sync of a written one. Zeros are therefore written ahead of
    what is appended: one transaction serves for many syncs, and they read as what was there.
    """

    def __init__(self, path: Path, syncs: Durations | None = None) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._syncs = syncs
        self._written_to = 0
        """Up to here no reserved block is left unwritten, as far as anyone has looked."""

    def read(self, offset: int, size: int) -> bytes:
        """Read at an offset."""
        return os.pread(self._fd, size, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Write all of it."""
        if offset + len(data) > self._written_to:
            self._write_ahead(offset, offset + len(data))
        self._write_all(offset, data)

    def _write_all(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view = view[written:]
            offset += written

    def _write_ahead(self, start: int, end: int) -> None:
        """Fill the reserved blocks that begin in a range, and some behind it, with zeros."""
        size = self.size()
        if end > size:
            return  # it grows by being written: nothing is reserved here
        hole = _seek(self._fd, start, os.SEEK_HOLE, size)
        if hole < end:
            data = _seek(self._fd, hole, os.SEEK_DATA, size)
            fill = min(end + WRITE_AHEAD_BYTES, data) - hole
            self._write_all(hole, bytes(fill))
            hole += fill
        self._written_to = hole

    def sync(self) -> None:
        """``fdatasync``: data, and what of the metadata is needed to read it."""
        began = time.perf_counter()
        os.fdatasync(self._fd)
        if self._syncs is not None:
            self._syncs.observe(time.perf_counter() - began)

    def size(self) -> int:
        """Length in bytes."""
        return os.fstat(self._fd).st_size

    def resize(self, size: int) -> None:
        """Reserve real blocks when growing, so that a later sync need not update metadata."""
        self._written_to = min(self._written_to, size)
        if size > self.size():
            os.posix_fallocate(self._fd, 0, size)
            os.fsync(self._fd)
        else:
            os.ftruncate(self._fd, size)

    def close(self) -> None:
        """Close the descriptor, once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealFileSystem(FileSystem):
    """One directory of the operating system, made where it is missing.

    Args:
        directory: where.
        syncs: where to count how long syncs of its files take; None: nowhere.
    """

    def __init__(self, directory: Path, syncs: Durations | None = None) -> None:
        self.directory = directory
        self._syncs = syncs
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def open(self, name: str) -> File:
        """Open a file of this directory."""
        return RealFile(self.directory / name, self._syncs)

    def names(self) -> Sequence[str]:
        """Names, sorted."""
        return sorted(os.listdir(self.directory))

    def rename(self, old: str, new: str) -> None:
        """Atomic replacement."""
        os.replace(self.directory / old, self.directory / new)

    def remove(self, name: str) -> None:
        """Unlink."""
        os.unlink(self.directory / name)

    def sync_names(self) -> None:
        """``fsync`` of the directory."""
        sync_directory(self.directory)


def _seek(descriptor: int, offset: int, whence: int, size: int) -> int:
    """Return where the next hole, or the next data, begins; ``size`` where there is none."""
    try:
        return os.lseek(descriptor, offset, whence)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EINVAL):  # none, or a file system that cannot tell
            return size
        raise
