"""The few things that storage asks of a file system, and the real one.

Three facts that everything above relies on, and nothing more: what was written before a ``sync``
returned is there after a crash; a file's own bytes may be torn or missing where it was not synced;
a rename or a new name is durable once its directory was synced.
"""

from __future__ import annotations

import abc
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from consensus.stats import Durations
from consensus.storage.durable import sync_directory

WRITE_AHEAD_BYTES: Final = 1024 * 1024
"""Zeros that are written into reserved blocks at once, behind what was written last."""


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

    def note_blank(self, offset: int) -> None:
        """Hear that everything from ``offset`` on reads as zero."""

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
    system's journal, several times the sync of a written one. Zeros are therefore written behind
    what is appended to reserved blocks: one transaction serves for many syncs, and who reads sees
    no difference. A file has one writer at a time.
    """

    def __init__(self, path: Path, syncs: Durations | None = None) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._syncs = syncs
        self._blank_from = self.size()
        """From here on everything reads as zero, and its blocks may never have been written."""

    def read(self, offset: int, size: int) -> bytes:
        """Read at an offset."""
        return os.pread(self._fd, size, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Write all of it."""
        self._write_all(offset, data)
        end = offset + len(data)
        if end > self._blank_from:
            ahead = max(0, min(WRITE_AHEAD_BYTES, self.size() - end))
            self._write_all(end, bytes(ahead))
            self._blank_from = end + ahead

    def _write_all(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view = view[written:]
            offset += written

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
        self._blank_from = min(self._blank_from, size)
        if size > self.size():
            os.posix_fallocate(self._fd, 0, size)
            os.fsync(self._fd)
        else:
            os.ftruncate(self._fd, size)

    def note_blank(self, offset: int) -> None:
        """Blocks that an earlier life of the process reserved are written ahead as well."""
        self._blank_from = min(self._blank_from, offset)

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
