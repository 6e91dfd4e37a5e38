"""Failpoints: named places where a fault test can end, fail or delay this process.

The environment variable ``RAFTYARD_FAILPOINTS``, read once when a node starts, arms them:

    RAFTYARD_FAILPOINTS="wal.before_sync=crash@3,send.before=delay:50@1+"

An item is ``POINT=ACTION``: ``crash`` ends the process at once, without a word to anybody;
``error`` raises an I/O error (where the point is one of the disk's); ``delay:MS`` holds the process
for so many milliseconds. ``@N`` says at which visit it strikes (the first), once; ``@N+`` at that
one and all later ones. A process that is not tested has no points armed and pays for one look at an
empty table, never once an entry, only once a batch, a message round or a snapshot.

The names are those of etcd's robustness tests in spirit: before and after each step of persisting,
sending, applying and taking snapshots.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import Final, NoReturn

import attrs

from consensus.errors import ConfigError

VARIABLE: Final = "RAFTYARD_FAILPOINTS"
EXIT_CODE: Final = 77
"""With which ``crash`` ends the process."""

DELAY_MS_MAX: Final = 60_000

POINTS: Final[Mapping[str, str]] = {
    "wal.before_write": "entries and votes are about to be written to the log",
    "wal.before_sync": "they are written, and about to be synced",
    "wal.after_sync": "they are synced; the log does not say so yet",
    "wal.before_segment": "a new segment of the log is about to be made",
    "wal.after_segment": "it was made",
    "wal.before_release": "segments that a snapshot covers are about to be removed",
    "wal.before_replace": "a received snapshot is about to take the whole log's place",
    "wal.after_replace": "it took the log's place; the machine is not restored yet",
    "snapshot.before_write": "a snapshot file is about to be begun",
    "snapshot.before_sync": "it is written, and about to be synced",
    "snapshot.before_rename": "it is synced, and about to get its name",
    "snapshot.after_rename": "it has its name; the directory is not synced yet",
    "send.before": "messages that promise what was persisted are about to be sent",
    "send.after": "they were sent",
    "apply.before": "committed commands are about to be applied",
    "apply.after": "they were applied",
    "machine.before_commit": "the machine's database is about to commit what was applied",
    "machine.after_commit": "it has committed",
}
"""Every point, and when it is visited."""

_DISK: Final = ("wal.", "snapshot.")
_ITEM: Final = re.compile(
    r"^(?P<point>[\w.]+)=(?P<action>crash|error|delay)(:(?P<ms>\d+))?(@(?P<nth>\d+)(?P<on>\+)?)?$"
)


@attrs.define(slots=True)
class Failpoint:
    """One armed point: what it does, and when."""

    action: str
    delay_ms: int = 0
    nth: int = 1
    and_on: bool = False
    visits: int = 0


_armed: dict[str, Failpoint] = {}


def hit(point: str) -> None:
    """Visit a point. Does nothing unless it is armed.

    Raises:
        OSError: EIO, if the point is armed with ``error``.
    """
    if _armed:
        _visit(point)


def arm(text: str) -> None:
    """Arm the points of a text in the variable's form, and disarm all others.

    Raises:
        ConfigError: it cannot be read, or names no point.
    """
    wanted = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        found = _ITEM.match(item)
        if found is None:
            raise ConfigError(
                f"{VARIABLE}: {item!r} is not POINT=ACTION[@N[+]]; actions are crash, error, "
                "delay:MS"
            )
        wanted[found["point"]] = _read(item, found)
    _armed.clear()
    _armed.update(wanted)


def arm_from_environment() -> None:
    """Arm what ``RAFTYARD_FAILPOINTS`` says; without it nothing changes.

    Raises:
        ConfigError: it cannot be read.
    """
    text = os.environ.get(VARIABLE)
    if text and not _armed:
        arm(text)


def _read(item: str, found: re.Match[str]) -> Failpoint:
    point, action, delay = found["point"], found["action"], found["ms"]
    if point not in POINTS:
        raise ConfigError(f"{VARIABLE}: {item!r}: there are {', '.join(POINTS)}")
    if action == "error" and not point.startswith(_DISK):
        raise ConfigError(f"{VARIABLE}: {item!r}: only points of wal and snapshot can fail")
    if (action == "delay") != (delay is not None) or int(delay or 0) > DELAY_MS_MAX:
        raise ConfigError(
            f"{VARIABLE}: {item!r}: delay, and only it, has milliseconds, delay:MS, at most "
            f"{DELAY_MS_MAX}"
        )
    nth = int(found["nth"] or 1)
    if nth < 1:
        raise ConfigError(f"{VARIABLE}: {item!r}: visits are counted from 1")
    return Failpoint(action, int(delay or 0), nth, and_on=found["on"] is not None)


def _visit(point: str) -> None:
    armed = _armed.get(point)
    if armed is None:
        return
    armed.visits += 1
    if armed.visits != armed.nth and not (armed.and_on and armed.visits > armed.nth):
        return
    if armed.visits == armed.nth:
        print(f"failpoint {point}: {armed.action}", file=sys.stderr, flush=True)
    match armed.action:
        case "crash":
            _crash()
        case "error":
            raise OSError(errno.EIO, f"failpoint {point}")
        case _:
            time.sleep(armed.delay_ms / 1000)


def _crash() -> NoReturn:
    os._exit(EXIT_CODE)
