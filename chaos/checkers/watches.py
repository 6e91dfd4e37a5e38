"""What etcd promises of watches, checked against the log of everything that happened.

======== ============================================================================
ordered       events come in the order of their revisions
unique        no event comes twice, nor one from before the watch's start
reliable      no event is left out
atomic        the events of one revision come together
resumable     a watch that goes on from the next revision misses nothing and repeats nothing
bookmarkable  after a progress notice at R nothing at or below R comes, nor is it missing
filter        exactly the keys and kinds that were asked for
prev_kv       the state before the event, and the key's creation and version, are right
======== ============================================================================

"Resumable" needs no check of its own: a watch that is resumed is a watcher that starts behind the
last event of the one before it, and each watcher is checked against the log from its start on. A
watcher that stayed to the end has a ``left`` notice with the revision that it had to come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from chaos.checkers.replay import Replay
from chaos.history.format import History, Notice, SeenEvent, Watcher, WatchEvent
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "watch"


def check_watches(history: History) -> CheckResult:
    """Check every watcher; ``unknown`` without a log or without any watcher that was told."""
    findings = Findings()
    log = history.log
    told = any(watcher.notices for watcher in history.watchers.values())
    if log is None or not told:
        findings.note(Kind.UNDECIDED, "there is no log to compare with" if told else "no watches")
        return findings.result(CHECKER, Verdict.UNKNOWN)
    compacted = max((one.revision for one in history.compactions), default=0)
    facts = _Facts(log, Replay(log), compacted)
    for watcher in history.watchers.values():
        _Checked(watcher, facts, findings).run()
    return findings.result(CHECKER, Verdict.OK)


@attrs.frozen(slots=True)
class _Facts:
    log: Sequence[WatchEvent]
    replay: Replay
    compacted: int


class _Checked:
    """The check of one watcher."""

    def __init__(self, watcher: Watcher, facts: _Facts, findings: Findings) -> None:
        self._watcher = watcher
        self._facts = facts
        self._findings = findings
        self._floor = watcher.start
        self._promised = 0
        self._last = 0
        self._seen: set[tuple[int, str]] = set()
        self._blamed: set[tuple[int, str]] = set()
        self._name = f"watcher {watcher.id} of {watcher.key}{'*' if watcher.prefix else ''}"
        self._expected = [
            event
            for event in facts.log
            if self._wants(event.key) and self._kind(event.value) not in watcher.skip
        ]

    def run(self) -> None:
        """Go through all that it was told."""
        for notice in self._watcher.notices:
            if notice.kind == "created":
                self._floor = self._floor or notice.revision + 1
            elif notice.kind == "canceled":
                self._take_cancel(notice)
            elif notice.kind == "progress":
                self._promised = max(self._promised, notice.revision)
                self._complete_up_to(notice.revision, Kind.WATCH_BOOKMARK)
            elif notice.kind == "left":
                self._complete_up_to(max(self._last, notice.revision), Kind.WATCH_GAP)
            else:
                self._take_events(notice)
        self._complete_up_to(self._last, Kind.WATCH_GAP)

    def _wants(self, key: str) -> bool:
        watcher = self._watcher
        return key.startswith(watcher.key) if watcher.prefix else key == watcher.key

    @staticmethod
    def _kind(value: str | None) -> str:
        return "delete" if value is None else "put"

    def _add(self, kind: Kind, text: str, revision: int) -> None:
        self._findings.add(kind, f"{self._name} at {self._watcher.node} {text}", (), revision)

    def _take_events(self, notice: Notice) -> None:
        before = self._last
        for event in notice.events:
            place = event.revision, event.key
            what = f"{event.key}={event.value!r} of revision {event.revision}"
            if place in self._seen:
                self._add(Kind.WATCH_DUPLICATE, f"was told {what} twice", event.revision)
                continue
            self._seen.add(place)
            if event.revision < self._floor:
                self._add(
                    Kind.WATCH_TOO_OLD,
                    f"starts at revision {self._floor} and was told {what}",
                    event.revision,
                )
            elif event.revision <= self._promised:
                self._add(
                    Kind.WATCH_BOOKMARK,
                    f"was told {what} after a progress notice at {self._promised}",
                    event.revision,
                )
            elif event.revision < self._last:
                self._add(
                    Kind.WATCH_ORDER,
                    f"was told {what} after an event of revision {self._last}",
                    event.revision,
                )
            elif event.revision == before:
                self._add(
                    Kind.WATCH_SPLIT,
                    f"was told {what} apart from others of that revision",
                    event.revision,
                )
            self._last = max(self._last, event.revision)
            self._check_content(event, what)

    def _check_content(self, event: SeenEvent, what: str) -> None:
        if not self._wants(event.key) or self._kind(event.value) in self._watcher.skip:
            self._add(Kind.WATCH_FILTER, f"was told {what}, which it did not ask for", 0)
            return
        replay = self._facts.replay
        known = [v for v in replay.versions.get(event.key, ()) if v.revision == event.revision]
        if not known or known[0].value != event.value:
            truth = f"{event.key}={known[0].value!r}" if known else "nothing of that key"
            self._add(
                Kind.WATCH_WRONG_EVENT,
                f"was told {what}, and the log has {truth} there",
                event.revision,
            )
            return
        if event.value is not None and (event.create, event.version) != (
            known[0].create,
            known[0].version,
        ):
            self._add(
                Kind.WATCH_PREVIOUS,
                f"was told {what} as version {event.version} created at {event.create}, and it is "
                f"version {known[0].version} created at {known[0].create}",
                event.revision,
            )
        if not self._watcher.prev_kv or event.revision <= self._facts.compacted:
            return
        before = replay.at(event.key, event.revision - 1)
        wanted = (before.value, before.revision) if before else None
        if event.previous != wanted:
            self._add(
                Kind.WATCH_PREVIOUS,
                f"was told {what} with {event.previous} before it, and it was {wanted}",
                event.revision,
            )

    def _take_cancel(self, notice: Notice) -> None:
        if not notice.compact_revision:
            return
        following = max(self._floor, self._last + 1, self._promised + 1)
        if following >= notice.compact_revision or self._facts.compacted < notice.compact_revision:
            self._add(
                Kind.WATCH_CANCELED,
                f"waited for revision {following} and was ended by a compaction to "
                f"{notice.compact_revision}; what was asked for went to {self._facts.compacted}",
                following,
            )

    def _complete_up_to(self, revision: int, kind: Kind) -> None:
        """Was everything told from the start up to ``revision``? Names the first that was not."""
        if self._floor == 0:
            return  # it began "now" and was never told when that was
        known = self._seen | self._blamed
        missing = [
            event
            for event in self._expected
            if self._floor <= event.revision <= revision
            and (event.revision, event.key) not in known
        ]
        if not missing:
            return
        first = missing[0]
        self._blamed.update((event.revision, event.key) for event in missing)
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        told = kind is Kind.WATCH_BOOKMARK or revision <= self._last
        until = f"though it was told of revision {revision}" if told else "by the end of the run"
        self._add(
            kind,
            f"was not told {first.key}={first.value!r} of revision {first.revision}{others}, "
            f"{until}",
            first.revision,
        )
