"""The data directory: whose it is, and that one process alone uses it.

``DATA/member/`` holds ``lock`` (an flock for as long as the process lives), ``identity.json`` (the
cluster and the member that the data belong to), ``db/`` (the store), ``engine/`` (the log), and
``last-life`` while a process serves or after a fault ended it (``kvstore.lastlife``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import attrs

from consensus.errors import StorageError
from consensus.storage.durable import replace_text, sync_directory, take_lock
from kvstore.identity import Identity

FORMAT_VERSION: Final = 1
DIRECTORY_MODE: Final = 0o700


@attrs.frozen(slots=True)
class Owner:
    """Whose data a directory holds, as it says itself."""

    cluster_id: int
    member_id: int
    name: str
    joined: bool


def owner_of(path: Path) -> Owner | None:
    """Return whose a data directory is; None where it is nobody's yet or does not say clearly.

    Whoever then opens it as ``DataDirectory`` is told what is wrong with it.
    """
    try:
        found = json.loads((path / "member" / "identity.json").read_text())
        return Owner(
            int(found["cluster_id"], 16),
            int(found["member_id"], 16),
            str(found["name"]),
            bool(found.get("joined", False)),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


class WrongEngine(StorageError):
    """The log in a data directory is another engine's."""

    def __init__(self, path: Path, found: str, wanted: str) -> None:
        super().__init__(
            f"data directory {path} was written by --engine {found}, and this member is to run on "
            f"--engine {wanted}"
        )
        self.path, self.found, self.wanted = path, found, wanted


class DataDirectory:
    """An open, locked data directory.

    Args:
        path: where; made if it is not there.
        identity: who wants to use it.
        engine: the engine that is to run on it; None where any log in it will do.

    Raises:
        StorageError: locked by a live process, another cluster's or member's, or unusable.
    """

    def __init__(self, path: Path, identity: Identity, *, engine: str | None) -> None:
        self.path = path
        self._member = path / "member"
        try:
            self._member.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            self._lock = take_lock(
                self._member / "lock",
                what=f"data directory {path}",
                advice="stop it, or give this one its own --data-dir",
            )
        except OSError as error:
            where = error.filename or self._member
            raise StorageError(
                f"cannot use data directory {path}: {error.strerror} ({where})"
            ) from None
        try:
            self._check_owner(identity)
            if engine is not None:
                self._check_engine(engine)
                self.db.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
                self.engine.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        except OSError as error:
            os.close(self._lock)
            raise StorageError(f"cannot use data directory {path}: {error.strerror}") from None
        except StorageError:
            os.close(self._lock)
            raise

    @property
    def db(self) -> Path:
        """Where the store keeps its state."""
        return self._member / "db"

    @property
    def engine(self) -> Path:
        """Where the engine keeps its log."""
        return self._member / "engine"

    @property
    def last_life(self) -> Path:
        """Where a process that is ended by a fault leaves word of it."""
        return self._member / "last-life"

    def sync(self) -> None:
        """Make renames inside durable."""
        sync_directory(self._member)

    def close(self) -> None:
        """Let another process use the directory."""
        os.close(self._lock)

    def _check_owner(self, identity: Identity) -> None:
        path = self._member / "identity.json"
        ours = {
            "format_version": FORMAT_VERSION,
            "cluster_id": f"{identity.cluster_id:x}",
            "member_id": f"{identity.member_id:x}",
            "name": identity.name,
            "joined": identity.joined,
        }
        try:
            text = path.read_text()
        except FileNotFoundError:
            if (self._member / "wal").exists() or (self._member / "snap").exists():
                raise StorageError(
                    f"data directory {self.path} holds data of etcd itself, which Raftyard cannot "
                    "read; give another --data-dir"
                ) from None
            replace_text(path, json.dumps(ours, indent=1) + "\n")
            return
        try:
            found = json.loads(text)
            if not isinstance(found, dict):
                raise ValueError
        except ValueError:
            raise StorageError(
                f"{path} is damaged (not a JSON object). If another member has the data, remove "
                f"{self.path} and start again"
            ) from None
        if found.get("format_version") != FORMAT_VERSION:
            raise StorageError(
                f"data directory {self.path} has format version {found.get('format_version')}, "
                f"this release reads version {FORMAT_VERSION}"
            )
        if any(found.get(key) != ours[key] for key in ("cluster_id", "member_id", "name")):
            raise StorageError(
                f"data directory {self.path} belongs to member {found.get('name')!r} (ID "
                f"{found.get('member_id')}) of cluster {found.get('cluster_id')}, but the settings "
                f"make this member {identity.name!r} (ID {ours['member_id']}) of cluster "
                f"{ours['cluster_id']}; check --data-dir, --name, --initial-cluster and "
                "--initial-cluster-token (a cluster whose members have changed since is named by "
                "--initial-cluster-state existing)"
            )

    def _check_engine(self, engine: str) -> None:
        found = engine_in(self.engine)
        if found and found != engine:
            raise WrongEngine(self.path, found, engine)
        ready = self.engine.with_name(f"engine.{engine}")
        if not self.engine.exists() and ready.exists():
            raise StorageError(
                f"data directory {self.path}: its conversion to {engine} was interrupted; run "
                f"`kvstore convert --to {engine}` with this member's flags again to finish it"
            )


def engine_in(directory: Path) -> str:
    """Return which engine wrote the log in an engine's directory; "" where there is none yet.

    Raises:
        StorageError: what it says of itself cannot be read.
    """
    path = directory / "identity.json"
    try:
        found = json.loads(path.read_text())
        return str(found["engine"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StorageError(
            f"{path} cannot be read: {error}. If the other members run, move the data directory "
            "away, remove this member and add it again; a member that is alone must restore the "
            "file from a copy"
        ) from None
