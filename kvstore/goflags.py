"""Command-line flags as Go programs take them, and as etcd's users write them.

``-f v``, ``--f v``, ``-f=v`` and ``--f=v`` mean the same; a boolean is ``--f`` or ``--f=false`` and
never takes the next word. Values keep Go's forms too: ``1h30m`` is a duration, ``T`` is true.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

SUGGESTION_CUTOFF: Final = 0.6
DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
DURATION_UNITS_S: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class UsageError(Exception):
    """The command line itself is wrong (exit status 2). The text is for the user."""


@attrs.frozen(slots=True)
class Parsed:
    """Flags as given, by name without dashes, the last one winning; and the words that follow."""

    flags: Mapping[str, str]
    rest: tuple[str, ...]


def parse_flags(arguments: Sequence[str], known: Mapping[str, bool]) -> Parsed:
    """Split a command line into flags and words.

    Args:
        arguments: the command line without the program's name.
        known: every flag's name, and whether it is a boolean.

    Raises:
        UsageError: an unknown flag, a flag without its value, a malformed one.
    """
    flags: dict[str, str] = {}
    at = 0
    while at < len(arguments):
        word = arguments[at]
        if not word.startswith("-") or word == "-":
            break
        at += 1
        if word == "--":
            break
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {word}")
        if name not in known:
            raise UsageError(unknown_flag(name, known))
        if not equals:
            if known[name]:
                value = "true"
            elif at < len(arguments):
                value = arguments[at]
                at += 1
            else:
                raise UsageError(f"flag needs an argument: --{name}")
        flags[name] = value
    return Parsed(flags, tuple(arguments[at:]))


def unknown_flag(name: str, known: Mapping[str, bool]) -> str:
    """Return a message about an unknown flag that names the closest known ones."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=SUGGESTION_CUTOFF)
    hint = f"; did you mean {' or '.join('--' + match for match in close)}?" if close else ""
    return f"flag provided but not defined: --{name}{hint}"


def parse_bool(text: str) -> bool:
    """Return a boolean in Go's spellings.

    Raises:
        ValueError: another spelling.
    """
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError("expected true or false")


def parse_duration_s(text: str) -> float:
    """Return a Go duration such as ``300ms``, ``1.5h`` or ``1h30m`` in seconds.

    Raises:
        ValueError: not a duration, or one without unit (but for 0).
    """
    body = text.removeprefix("-").removeprefix("+")
    if body == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(body):
        match = DURATION.match(body, at)
        if match is None:
            break
        total += float(match[1]) * DURATION_UNITS_S[match[2]]
        at = match.end()
    if not body or at < len(body):
        raise ValueError("expected a duration such as 300ms, 10s, 5m or 1h30m")
    return -total if text.startswith("-") else total
