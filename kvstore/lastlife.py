"""How the last process of this member ended, where it could not say so itself.

The store is mapped into memory. A page that the disk cannot read, or one that damage leads to
beyond the end of the file, ends the process with SIGBUS or SIGSEGV before Python can say anything.
``faulthandler`` then writes what it was into a file of the data directory. The next start finds it,
says it, and checks the whole store before it serves. A process that ends in the same way while it
checks leaves that in the file too: then the store cannot be read.

A program that fails in this way for another reason finds its store sound, and keeps it.
"""

from __future__ import annotations

import faulthandler
import os
from pathlib import Path
from typing import Final

from consensus.errors import StorageError

_CHECKING: Final = b"checking the store\n"
_SERVING: Final = b"serving\n"
_FATAL: Final = "Fatal Python error: "
_FILE_BYTES_MAX: Final = 64 * 1024


class LastLife:
    """What the last process left, and where this one would leave it.

    Args:
        path: the file, in a data directory that is locked.

    Attributes:
        cause: what ended the last process ("Bus error"); empty: nothing that it could not handle.
        was_checking: whether that was while it checked the store.

    Raises:
        StorageError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1
        try:
            text = path.read_bytes()[:_FILE_BYTES_MAX] if path.exists() else b""
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from None
        lines = text.decode(errors="replace").splitlines()
        fatal = [line for line in lines if line.startswith(_FATAL)]
        self.cause = fatal[0].removeprefix(_FATAL).strip() if fatal else ""
        self.was_checking = bool(fatal) and text.startswith(_CHECKING)

    def checks(self) -> None:
        """From now on this process checks the store.

        Raises:
            StorageError: the file cannot be written.
        """
        self._begin(_CHECKING)

    def serves(self) -> None:
        """From now on this process serves.

        Raises:
            StorageError: the file cannot be written.
        """
        self._begin(_SERVING)

    def close(self) -> None:
        """This process ends well, or leaves the data directory. Safe to call twice."""
        if self._handle >= 0:
            faulthandler.disable()
            os.close(self._handle)
            self._handle = -1
            self._path.unlink(missing_ok=True)

    def _begin(self, stage: bytes) -> None:
        try:
            if self._handle < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._handle = os.open(self._path, flags, 0o600)
            os.ftruncate(self._handle, 0)
            os.write(self._handle, stage)
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror}") from None
        faulthandler.enable(self._handle, all_threads=False)
