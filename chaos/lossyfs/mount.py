"""The volatile directory under a mount point, with faults that can be switched on.

Commands come as JSON in the extended attribute ``user.lossyfs`` of the mount point; reading it
returns counters. Nothing else of the harness reaches into this process.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, NoReturn

import mfusepy

from chaos.lossyfs.volatile import Forget, VolatileDirectory

ATTRIBUTE: Final = "user.lossyfs"
BLOCK_BYTES: Final = 4096
STALL_POLL_S: Final = 0.01
STALL_S_MAX: Final = 120.0
ENDED_BY_SIGNAL: Final = 8
"""With which libfuse's loop returns after a signal told it to end."""

_STATUS: Final = (
    *("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks"),
    *("st_atime_ns", "st_mtime_ns", "st_ctime_ns"),
)


class LossyFileSystem(mfusepy.Operations):  # type: ignore[misc]
    """FUSE's operations on a volatile directory (see the module's text)."""

    use_ns = True

    def __init__(self, directory: VolatileDirectory) -> None:
        self._directory = directory
        self._counts: Counter[str] = Counter()
        self._sync_errors = 0
        self._read_errors = 0
        self._errors_in = ""
        self._unreadable: set[tuple[int, int]] = set()
        self._full = False
        self._sync_delay_s = 0.0
        self._stalled = False
        self._synced_by_themselves: set[int] = set()

    # -- commands -----------------------------------------------------------------------------

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> int:
        """Take a command."""
        if path != "/" or name != ATTRIBUTE:
            raise mfusepy.FuseOSError(errno.ENOTSUP)
        try:
            self._obey(json.loads(value))
        except (ValueError, TypeError, KeyError) as error:
            raise mfusepy.FuseOSError(errno.EINVAL) from error
        return 0

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """Return the counters."""
        if path != "/" or name != ATTRIBUTE:
            raise mfusepy.FuseOSError(errno.ENODATA)
        return json.dumps({**self._counts, "pending": self._directory.pending}).encode()

    def _obey(self, command: dict[str, Any]) -> None:
        for name, value in command.items():
            match name:
                case "forget":
                    self._counts["forgotten"] += self._directory.forget(Forget(value))
                case "sync_errors":
                    self._sync_errors = int(value)
                case "read_errors":
                    self._read_errors = int(value)
                case "errors_in":
                    self._errors_in = str(value)
                case "unreadable":
                    self._unreadable = {self._block(*each) for each in value}
                case "full":
                    self._full = bool(value)
                case "sync_delay_ms":
                    self._sync_delay_s = int(value) / 1000
                case "stalled":
                    self._stalled = bool(value)
                case _:
                    raise ValueError(name)

    # -- what can fail ------------------------------------------------------------------------

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Read, unless a read error is due, or there is a bad block in the way."""
        if self._read_errors > 0 and self._errors_in in path:
            self._read_errors -= 1
            self._fail_read()
        if self._unreadable:
            inode = os.fstat(fh).st_ino
            blocks = range(offset // BLOCK_BYTES, -(-(offset + size) // BLOCK_BYTES))
            if any((inode, block) in self._unreadable for block in blocks):
                self._fail_read()
        return os.pread(fh, size, offset)

    def _fail_read(self) -> NoReturn:
        self._counts["read errors"] += 1
        raise mfusepy.FuseOSError(errno.EIO)

    def _block(self, path: str, offset: int) -> tuple[int, int]:
        """Name a block of a file so that it stays the same when the file gets another name."""
        return os.stat(self._directory.below(path)).st_ino, int(offset) // BLOCK_BYTES

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Write, unless the disk is full: as a copy-on-write file system has it, every write needs
        space, one that replaces bytes too."""
        self._counts["writes"] += 1
        if self._full:
            self._refuse()
        written = self._directory.write(fh, data, offset)
        if fh in self._synced_by_themselves:  # opened with O_DSYNC, as LMDB does
            self.fsync(path, 1, fh)
        return written

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        """Sync, late or not at all."""
        self._counts["syncs"] += 1
        if self._sync_delay_s:
            self._counts["slow syncs"] += 1
            time.sleep(self._sync_delay_s)
        self._wait_while_stalled()
        if self._sync_errors > 0 and self._errors_in in path:
            self._sync_errors -= 1
            self._counts["sync errors"] += 1
            self._directory.fail_sync(fh)
            raise mfusepy.FuseOSError(errno.EIO)
        self._directory.sync(fh)
        return 0

    def _wait_while_stalled(self) -> None:
        if not self._stalled:
            return
        self._counts["stalled syncs"] += 1
        deadline = time.monotonic() + STALL_S_MAX
        while self._stalled and time.monotonic() < deadline:
            time.sleep(STALL_POLL_S)

    def _refuse(self) -> None:
        self._counts["refused for space"] += 1
        raise mfusepy.FuseOSError(errno.ENOSPC)

    def create(self, path: str, mode: int, flags: int = os.O_RDWR) -> int:
        """Create or open."""
        if self._full and not os.path.exists(self._directory.below(path)):
            self._refuse()
        return self._directory.create(path, flags, mode)

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        """Reserve; only plain growth is known."""
        if mode:
            raise mfusepy.FuseOSError(errno.EOPNOTSUPP)
        if offset + size > os.fstat(fh).st_size:
            if self._full:
                self._refuse()
            self._directory.resize(fh, offset + size)
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Cut or grow."""
        handle = os.open(self._directory.below(path), os.O_RDWR) if fh is None else fh
        try:
            if self._full and length > os.fstat(handle).st_size:
                self._refuse()
            self._directory.resize(handle, length)
        finally:
            if fh is None:
                os.close(handle)
        return 0

    # -- the rest -----------------------------------------------------------------------------

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        """Sync the names in a directory."""
        self._wait_while_stalled()
        self._directory.sync_names(path)
        return 0

    def unlink(self, path: str) -> int:
        """Remove a file."""
        self._directory.remove(path)
        return 0

    def rename(self, old: str, new: str) -> int:
        """Rename."""
        self._directory.rename(old, new)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        """Make a directory; durable at once."""
        if self._full:
            self._refuse()
        os.mkdir(self._directory.below(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        """Remove a directory; durable at once."""
        os.rmdir(self._directory.below(path))
        return 0

    def open(self, path: str, flags: int) -> int:
        """Open. What is written has to be read first, so nothing is open for writing alone."""
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        handle = os.open(self._directory.below(path), os.O_RDWR if writes else os.O_RDONLY)
        if writes and flags & os.O_DSYNC:
            self._synced_by_themselves.add(handle)
        if flags & os.O_TRUNC:
            self._directory.resize(handle, 0)
        return handle

    def release(self, path: str, fh: int) -> int:
        """Close."""
        self._synced_by_themselves.discard(fh)
        os.close(fh)
        return 0

    def flush(self, path: str, fh: int) -> int:
        """Closing syncs nothing."""
        return 0

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Return what stat says."""
        found = os.lstat(self._directory.below(path)) if fh is None else os.fstat(fh)
        return {name.removesuffix("_ns"): getattr(found, name) for name in _STATUS}

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        """List a directory; a name without an inode's number would not be shown."""
        below = self._directory.below(path)
        entries = []
        for name in (".", "..", *os.listdir(below)):
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(f"{below}/{name}")
                entries.append((name, {"st_mode": found.st_mode, "st_ino": found.st_ino}, 0))
        return entries

    def access(self, path: str, amode: int) -> int:
        """Ask for permission."""
        if not os.access(self._directory.below(path), amode):
            raise mfusepy.FuseOSError(errno.EACCES)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        """Change a mode; durable at once."""
        os.chmod(self._directory.below(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        """Change an owner; durable at once."""
        os.chown(self._directory.below(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        """Change times; durable at once."""
        os.utime(self._directory.below(path), ns=times or (time.time_ns(), time.time_ns()))
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        """Return what statvfs says."""
        found = os.statvfs(self._directory.below(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_")}


def serve(store: Path, mountpoint: Path, seed: int) -> None:
    """Mount, serve until SIGTERM, unmount.

    libfuse changes into the root directory before it serves: relative paths would mean others then.
    """
    try:
        mfusepy.FUSE(
            LossyFileSystem(VolatileDirectory(store.absolute(), seed)),
            str(mountpoint.absolute()),
            foreground=True,
            fsname="lossyfs",
            subtype="lossyfs",
            attr_timeout=0,
            entry_timeout=0,
            negative_timeout=0,
            hard_remove=True,
            use_ino=True,
        )
    except RuntimeError as error:
        if error.args != (ENDED_BY_SIGNAL,):
            raise
