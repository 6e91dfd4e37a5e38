"""A member's data directory: whose it is, and that only one process uses it.

``lock`` is held with ``flock`` while the process lives and names it. ``identity.json`` says which
engine, cluster and member the data belong to, in which format; data of somebody else are refused
by name and never touched. It also counts the starts of this member, so that numbers given out in
one life never come again in a later one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from consensus.errors import StorageError
from consensus.storage.durable import replace_text, take_lock

_INCARNATION: Final = "incarnation"
_DISTRUST: Final = "distrust"
_IDENTITY: Final = "identity.json"


class DataDirectory:
    """Holds the lock on ``path`` until ``close``.

    Args:
        path: where; made where it is missing.
        identity: whose data these are: the names and values that must agree with what is there.
            ``engine`` and ``member`` are among them.
        data: pattern of the files that must not be there without an identity.

    Raises:
        StorageError: another process holds it, it is another engine's, member's or cluster's, or
            it cannot be used.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, data: str) -> None:
        self.path = path
        self._lock = -1
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(
                path / "lock",
                what=f"data directory {path}",
                advice="stop it, or give this member a directory of its own",
                mode=0o644,
            )
            self._found = self._check_identity(dict(identity), data)
        except OSError as error:
            self.close()
            raise StorageError(f"data directory {path} cannot be used: {error}") from None
        except BaseException:
            self.close()
            raise

    @property
    def incarnation(self) -> int:
        """The greatest number that ``begin`` has returned here; 0 before the first time."""
        return int(self._found.get(_INCARNATION, 0))

    def begin(self, at_least: int = 1) -> int:
        """Return a number for this life of the member, greater than that of every earlier one.

        Raises:
            StorageError: it cannot be put on disk.
        """
        incarnation = max(self.incarnation + 1, at_least)
        self._write({**self._found, _INCARNATION: incarnation})
        return incarnation

    @property
    def distrust(self) -> str:
        """Why the machine beside this directory must be rebuilt; empty: it need not be."""
        return str(self._found.get(_DISTRUST, ""))

    def note_distrust(self, reason: str) -> None:
        """Note durably why the machine must be rebuilt, or, with nothing, that it was taken away.

        Raises:
            StorageError: it cannot be put on disk.
        """
        if reason != self.distrust:
            self._write({**self._found, _DISTRUST: reason})

    def close(self) -> None:
        """Give the directory back. Safe to call twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- inside -------------------------------------------------------------------------------

    def _check_identity(self, mine: dict[str, Any], data: str) -> dict[str, Any]:
        path = self.path / _IDENTITY
        if not path.exists():
            if any(self.path.glob(data)):
                raise StorageError(f"{path} is missing beside a log; restore it or start empty")
            self._write(mine)
            return mine
        try:
            found: Any = json.loads(path.read_text())
            if not isinstance(found, dict) or not isinstance(found.get(_INCARNATION, 0), int):
                raise ValueError("it does not say whose data these are")
        except ValueError as error:
            raise StorageError(
                f"{path} cannot be read: {error}. If the other members run, restore it from a "
                f"copy, or move {self.path} away, remove this member from the group and add it "
                "again; a member that is alone must restore it from a copy"
            ) from None
        for name, value in mine.items():
            if found.get(name) != value:
                raise StorageError(self._refusal(name, found.get(name), value))
        return found

    def _refusal(self, name: str, found: object, mine: object) -> str:
        match name:
            case "engine":
                return (
                    f"data directory {self.path} was written by the {found} engine; this is the "
                    f"{mine} engine, which cannot read it. Start this member with the {found} "
                    "engine, or give it an empty directory"
                )
            case "version":
                return (
                    f"data directory {self.path} has format version {found}; this program reads "
                    f"version {mine}. Start this member with the program that wrote it"
                )
            case _:
                return (
                    f"data directory {self.path} belongs to another "
                    f"{'member' if name == 'member' else 'cluster'}: its {name} is {found!r}, this "
                    f"member's is {mine!r}. Give this member its own directory, or move the old "
                    "one away"
                )

    def _write(self, identity: dict[str, Any]) -> None:
        """Replace the identity file, durably: it is the old one or the new one after a crash."""
        try:
            replace_text(self.path / _IDENTITY, json.dumps(identity, indent=1))
        except OSError as error:
            raise StorageError(f"data directory {self.path} cannot be used: {error}") from None
        self._found = identity
