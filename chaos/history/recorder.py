"""Writing a history while a run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from chaos.history.format import (
    FORMAT_VERSION,
    Compaction,
    FaultEvent,
    MemberState,
    Notice,
    Operation,
    Outcome,
    Watcher,
    WatchEvent,
    completion,
    invocation,
)


class Recorder:
    """Appends a run's events to a file, in the order in which they happened.

    Not for several threads. Operations that are never completed are read back as unknown.

    Args:
        path: the file; an existing one is replaced.
        header: options, seed and versions, written first.
        clock: monotonic nanoseconds.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.fault_events: list[FaultEvent] = []
        self._clock = clock
        self._next = 0
        self._file = path.open("w", encoding="utf-8")
        self._write("header", {"version": FORMAT_VERSION, **header})

    def invoke(
        self,
        process: int,
        f: str,
        key: str,
        value: str | None = None,
        expected: int | None = None,
        input: Any = None,
    ) -> Operation:
        """Record that an operation is about to be sent, and return it to be completed."""
        operation = Operation(
            self._next, process, f, key, start=0, value=value, expected=expected, input=input
        )
        operation.start = self._write("invoke", invocation(operation))
        return operation

    def complete(self, operation: Operation, outcome: Outcome) -> None:
        """Record how an operation ended. Its other fields are already set."""
        operation.outcome = outcome
        self.outcomes[outcome] += 1
        ended = self._write(outcome.value, completion(operation))
        operation.end = None if outcome is Outcome.UNKNOWN else ended

    def fault(
        self,
        kind: str,
        phase: str,
        target: Sequence[str],
        evidence: str = "",
        effective: bool = True,
        number: int = 0,
    ) -> None:
        """Record that a fault began, what was seen of it, or that it ended.

        Events of one fault of a plan have its ``number``, from 1: faults overlap.
        """
        fields = {
            "kind": kind,
            "phase": phase,
            "target": [*target],
            "evidence": evidence,
            "effective": effective,
            "n": number,
        }
        now = self._write("fault", fields)
        self.fault_events.append(
            FaultEvent(now, kind, phase, tuple(target), evidence, effective, number)
        )

    def compaction(self, revision: int) -> Compaction:
        """Record that the administrator is about to ask for a compaction; see ``compacted``."""
        number = self._next
        start = self._write("compaction", {"rev": revision})
        return Compaction(number, revision, start)

    def compacted(self, compaction: Compaction) -> None:
        """Record that a compaction was done."""
        compaction.end = self._write("compacted", {"of": compaction.id})

    def status(self, member: str, role: str, term: int = 0) -> None:
        """Record that a member's role or term is another than before; see ``StatusEvent``."""
        self._write("status", {"node": member, "role": role, "term": term})

    def watch(self, member: str, events: Iterable[WatchEvent]) -> None:
        """Record what a member tells about every revision, in order, one line for each."""
        revision = 0
        group: list[list[str | None]] = []
        for event in events:
            if event.revision != revision and group:
                self._write("watch", {"w": member, "rev": revision, "events": group})
                group = []
            revision = event.revision
            group.append([event.key, event.value])
        if group:
            self._write("watch", {"w": member, "rev": revision, "events": group})

    def watcher(self, watcher: Watcher) -> Watcher:
        """Record that a client begins to watch; return the watcher with its id."""
        watcher.id = self._next
        fields = {
            "node": watcher.node,
            "k": watcher.key,
            "prefix": watcher.prefix,
            "start": watcher.start,
            "prev_kv": watcher.prev_kv,
            "skip": [*watcher.skip],
            "resumes": watcher.resumes,
        }
        self._write("watcher", fields)
        return watcher

    def notice(self, watcher: Watcher, notice: Notice) -> None:
        """Record what a watcher was told; its time is now."""
        events = [
            [e.key, e.value, e.revision, e.create, e.version, e.previous] for e in notice.events
        ]
        fields = {"w": watcher.id, "kind": notice.kind, "rev": notice.revision, "events": events}
        if notice.compact_revision:
            fields["compact"] = notice.compact_revision
        self._write("notice", fields)

    def state(self, state: MemberState) -> None:
        """Record what a member's state hashed to after the run."""
        fields = {
            "member": state.member,
            "position": state.position,
            "hash": state.hash,
            "compact": state.compact_revision,
        }
        self._write("state", fields)

    def watched(self, member: str) -> None:
        """Record that all of a member's watch has been written, even if it was empty."""
        self._write("watch", {"w": member, "rev": 0, "events": []})

    def close(self, footer: Mapping[str, Any] | None = None) -> None:
        """Write the footer and close the file. Safe to call twice."""
        if not self._file.closed:
            if footer is not None:
                self._write("footer", footer)
            self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, e: str, fields: Mapping[str, Any]) -> int:
        now = self._clock()
        line = {"i": self._next, "t": now, "e": e, **fields}
        self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._next += 1
        return now
