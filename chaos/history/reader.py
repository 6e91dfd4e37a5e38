"""Reading a history file back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from chaos.history.format import (
    FORMAT_VERSION,
    Compaction,
    FaultEvent,
    History,
    HistoryError,
    MemberState,
    Notice,
    Operation,
    Outcome,
    SeenEvent,
    StatusEvent,
    Watcher,
    WatchEvent,
)


def read_history(path: Path) -> History:
    """Read a history file.

    Raises:
        HistoryError: the file cannot be read, or a line is not what the format says.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return parse_history(lines, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"cannot read {path}: {error}") from error


def parse_history(lines: Iterable[str], source: str = "history") -> History:
    """Build a history from its lines.

    Raises:
        HistoryError: a line is not what the format says; the text names it.
    """
    history = History()
    by_id: dict[int, Operation] = {}
    number = 0
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text)
            _take(history, by_id, line, first=number == 1)
        except HistoryError as error:
            raise HistoryError(f"{source}, line {number}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HistoryError(
                f"{source}, line {number}: not a history line ({type(error).__name__}: {error})"
            ) from error
    if number == 0:
        raise HistoryError(f"{source} is empty: the first line should be a header")
    return history


def _take(history: History, by_id: dict[int, Operation], line: dict[str, Any], first: bool) -> None:
    e = line["e"]
    if first != (e == "header"):
        raise HistoryError("the header should be the first line, and only that")
    if e == "header":
        if line["version"] != FORMAT_VERSION:
            raise HistoryError(
                f"format version {line['version']}; this program reads {FORMAT_VERSION}"
            )
        history.header = line
    elif e == "invoke":
        operation = Operation(
            id=line["i"],
            process=line["p"],
            f=line["f"],
            key=line["k"],
            start=line["t"],
            value=line.get("v"),
            expected=line.get("expected"),
            expected_value=line.get("expected_value"),
            input=line.get("in"),
        )
        by_id[operation.id] = operation
        history.operations.append(operation)
    elif e in ("ok", "fail", "info"):
        _complete(by_id, line)
    elif e == "watch":
        events = history.watches.setdefault(line["w"], [])
        events.extend(WatchEvent(line["rev"], key, value) for key, value in line["events"])
    elif e in ("watcher", "notice"):
        _take_watcher(history, line)
    elif e == "state":
        state = MemberState(line["member"], line["position"], line["hash"], line["compact"])
        history.states.append(state)
    elif e == "fault":
        history.faults.append(
            FaultEvent(
                line["t"],
                line["kind"],
                line["phase"],
                tuple(line["target"]),
                line.get("evidence", ""),
                line.get("effective", True),
                line.get("n", 0),
            )
        )
    elif e == "compaction":
        history.administered.append(Compaction(line["i"], line["rev"], line["t"]))
    elif e == "compacted":
        done = [one for one in history.administered if one.id == line["of"]]
        if not done:
            raise HistoryError(f"there is no compaction {line['of']}")
        done[0].end = line["t"]
    elif e == "status":
        history.statuses.append(
            StatusEvent(line["t"], line["node"], line["role"], line.get("term", 0))
        )
    elif e == "footer":
        history.footer = line
    else:
        raise HistoryError(f"unknown event {e!r}")


def _take_watcher(history: History, line: dict[str, Any]) -> None:
    if line["e"] == "watcher":
        history.watchers[line["i"]] = Watcher(
            id=line["i"],
            node=line["node"],
            key=line["k"],
            prefix=line["prefix"],
            start=line["start"],
            prev_kv=line["prev_kv"],
            skip=tuple(line["skip"]),
            resumes=line["resumes"],
        )
        return
    watcher = history.watchers.get(line["w"])
    if watcher is None:
        raise HistoryError(f"there is no watcher {line['w']}")
    events = tuple(
        SeenEvent(key, value, revision, create, version, tuple(previous) if previous else None)
        for key, value, revision, create, version, previous in line["events"]
    )
    watcher.notices.append(
        Notice(line["t"], line["kind"], line["rev"], events, line.get("compact", 0))
    )


def _complete(by_id: dict[int, Operation], line: dict[str, Any]) -> None:
    operation = by_id.pop(line["op"], None)
    if operation is None:
        raise HistoryError(f"operation {line['op']} was not invoked, or is already completed")
    operation.outcome = Outcome(line["e"])
    operation.node = line.get("node", "")
    operation.error = line.get("err", "")
    if operation.outcome is not Outcome.UNKNOWN:
        operation.end = line["t"]
    if operation.outcome is Outcome.OK:
        operation.revision = line["rev"]
        operation.seen = line.get("v")
        operation.seen_revision = line.get("mod", 0)
        operation.applied = line.get("applied", False)
    operation.output = line.get("out")
