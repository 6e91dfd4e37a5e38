"""What every data directory needs: one process at a time, and small files that are whole.

A file is replaced by a synced one beside it, and then the directory is synced, which knows the
names: after a crash there is the old file or the new one. The lock is ``flock``'s, which the kernel
releases with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from consensus.errors import StorageError


def sync_directory(path: Path) -> None:
    """Make renames and removals in a directory durable. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Write a small file durably: whole or not at all. Raises ``OSError``."""
    aside = path.with_name(f"{path.name}.tmp")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_directory(path.parent)


def take_lock(path: Path, *, what: str, advice: str, mode: int = 0o600) -> int:
    """Lock a file until the descriptor that this returns is closed; the file names the process.

    Args:
        path: the file; made if it is not there, with ``mode``.
        what: what the lock is for, and ``advice``: what to do where another process has it.

    Raises:
        StorageError: another process has it.
        OSError: the file cannot be used.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StorageError(f"{what} is in use by process {owner}; {advice}") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
