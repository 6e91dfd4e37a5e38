"""Building histories of any workload by hand: operations, watches, logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from chaos.history.format import (
    REFERENCE,
    FaultEvent,
    History,
    Notice,
    Operation,
    Outcome,
    SeenEvent,
    Watcher,
    WatchEvent,
)

UNKNOWN, FAIL = Outcome.UNKNOWN, Outcome.FAIL


def op(
    number: int,
    f: str,
    at: tuple[int, int | None],
    input: Any = None,
    output: Any = None,
    *,
    key: str = "",
    revision: int = 0,
    outcome: Outcome | None = None,
    value: str | None = None,
) -> Operation:
    """One operation; one without an end has an unknown outcome unless told otherwise."""
    if outcome is None:
        outcome = Outcome.UNKNOWN if at[1] is None else Outcome.OK
    return Operation(
        number,
        number,
        f,
        key,
        at[0],
        value=value,
        end=at[1],
        outcome=outcome,
        revision=revision,
        input=input,
        output=output,
    )


def log_of(*events: tuple[int, str, str | None]) -> list[WatchEvent]:
    """A log from (revision, key, value)."""
    return [WatchEvent(*event) for event in events]


def history(
    operations: Iterable[Operation],
    log: Sequence[WatchEvent] | None = None,
    watchers: Iterable[Watcher] = (),
    faults: Iterable[FaultEvent] = (),
    **header: Any,
) -> History:
    """A history with its reference log."""
    made = History({"base_revision": 1, **header}, list(operations), faults=list(faults))
    if log is not None:
        made.watches[REFERENCE] = list(log)
    made.watchers = {watcher.id: watcher for watcher in watchers}
    return made


def watcher(number: int, key: str = "k/", start: int = 1, **fields: Any) -> Watcher:
    """A watcher of a prefix, created."""
    made = Watcher(number, "n1", key, prefix=True, start=start, **fields)
    made.notices.append(Notice(0, "created", 1))
    return made


def events(watching: Watcher, *seen: SeenEvent, t: int = 0) -> Watcher:
    """Add an answer with these events."""
    watching.notices.append(Notice(t, "events", seen[-1].revision, seen))
    return watching
