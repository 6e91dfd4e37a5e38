"""Checks that stay on in production: a broken one stops the node before it breaks a promise."""

from __future__ import annotations


class InvariantViolated(Exception):
    """Something that Raft rules out has happened: a bug, or a disk or network that lies."""


def check(condition: bool, message: str) -> None:
    """Raise ``InvariantViolated`` unless ``condition`` holds. Not ``assert``: -O strips that."""
    if not condition:
        raise InvariantViolated(message)
