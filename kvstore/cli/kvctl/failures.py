"""How kvctl fails: one line on standard error and an exit status, both as etcdctl has them."""

from __future__ import annotations

from typing import Final

EXIT_ERROR: Final = 1
EXIT_BAD_CONNECTION: Final = 2
EXIT_INVALID_INPUT: Final = 3
EXIT_BAD_FEATURE: Final = 4
EXIT_INTERRUPTED: Final = 5
EXIT_BAD_ARGUMENTS: Final = 128


class Failure(Exception):
    """The command cannot be done: the text goes to standard error, ``status`` to the shell.

    ``gap`` stands between "Error:" and the text; etcdctl v2 has a space more than v3.
    """

    gap = " "

    def __init__(self, message: str, status: int = EXIT_ERROR) -> None:
        super().__init__(message)
        self.status = status


class BadArguments(Failure):
    """The arguments are wrong; the text says how to give them."""

    def __init__(self, message: str) -> None:
        super().__init__(message, EXIT_BAD_ARGUMENTS)
