"""A member's data directory: whose it is, and that only one process uses it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from consensus.errors import StorageError
from consensus.types import NodeId

DIRECTORY_VERSION: Final = 1


class DataDirectory:
    """Holds the lock on ``path`` until ``close``.

    Raises:
        StorageError: another process holds it, it is another member's or another cluster's, or it
            cannot be written.
    """

    def __init__(
        self, path: Path, node_id: NodeId, members: Iterable[NodeId], group_id: int
    ) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"data directory {path} cannot be used: {error.strerror}") from None
        try:
            self._take_lock()
            self._check_identity(node_id, sorted(members), group_id)
        except BaseException:
            self.close()
            raise

    @property
    def dump(self) -> Path:
        """The newest whole snapshot."""
        return self.path / "snapshot.dump"

    def close(self) -> None:
        """Give the directory back. Safe to call twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StorageError(
                f"data directory {self.path} is in use by process {owner}; "
                "stop it, or give this member a directory of its own"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _check_identity(self, node_id: NodeId, members: list[NodeId], group_id: int) -> None:
        mine = {
            "version": DIRECTORY_VERSION,
            "engine": "pysyncobj",
            "group_id": group_id,
            "member": node_id,
            "members": members,
        }
        path = self.path / "identity.json"
        if not path.exists():
            if any(self.path.glob("log-*.seg")):
                raise StorageError(f"{path} is missing beside a log; restore it or start empty")
            aside = path.with_suffix(".tmp")
            aside.write_text(json.dumps(mine, indent=1))
            aside.replace(path)
            return
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} cannot be read: {error}") from None
        for name, value in mine.items():
            if found.get(name) != value:
                raise StorageError(
                    f"data directory {self.path} belongs to another "
                    f"{'member' if name == 'member' else 'cluster'}: its {name} is "
                    f"{found.get(name)!r}, this member's is {value!r}. "
                    "Give this member its own directory, or move the old one away"
                )
