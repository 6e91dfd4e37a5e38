"""The promises of watches, each broken by hand, and reads at any revision against a replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from chaos.checkers.replay import check_replay
from chaos.checkers.watches import check_watches
from chaos.history.format import Compaction, Notice, Operation, SeenEvent, Watcher
from chaos.verdict import Kind, Verdict
from tests.chaos.records import FAIL, events, history, log_of, op, watcher

LOG = log_of(
    (2, "k/a", "1"),
    (3, "k/b", "2"),
    (4, "k/a", "3"),
    (5, "k/b", None),
    (6, "k/a", "4"),
    (6, "k/b", "5"),
    (7, "other", "6"),
)

A2 = SeenEvent("k/a", "1", 2, 2, 1)
B3 = SeenEvent("k/b", "2", 3, 3, 1)
A4 = SeenEvent("k/a", "3", 4, 2, 2, ("1", 2))
B5 = SeenEvent("k/b", None, 5, 0, 0, ("2", 3))
A6 = SeenEvent("k/a", "4", 6, 2, 3, ("3", 4))
B6 = SeenEvent("k/b", "5", 6, 6, 1)


def whole(**fields: Any) -> Watcher:
    """A watcher that was told everything, right."""
    watching = watcher(1, **fields)
    events(watching, A2)
    events(watching, B3, A4)
    events(watching, B5)
    events(watching, A6, B6)
    watching.notices.append(Notice(0, "left", 6))
    return watching


def edited(change: Callable[[Watcher], object], **fields: Any) -> Watcher:
    """The same with one thing changed; notices: created, A2, B3+A4, B5, A6+B6, left at 6."""
    watching = whole(prev_kv=True, **fields)
    change(watching)
    return watching


def told(place: int, *seen: SeenEvent) -> Callable[[Watcher], object]:
    """Replace the events of one answer."""

    def change(watching: Watcher) -> None:
        watching.notices[place] = attrs.evolve(watching.notices[place], events=seen)

    return change


def inserted(place: int, notice: Notice) -> Callable[[Watcher], object]:
    return lambda watching: watching.notices.insert(place, notice)


def cut(place: int) -> Callable[[Watcher], object]:
    return lambda watching: watching.notices.pop(place)


def late_start() -> Watcher:
    """It asked for revision 4 on, and is told the deletion of 5 and the two of 6."""
    return events(events(events(watcher(1, start=4), A4), B5), A6, B6)


GOOD = {
    "everything": [whole()],
    "with the state before": [whole(prev_kv=True)],
    "from the past, in the middle": [late_start()],
    "from the future, silent": [watcher(1, start=99)],
    "resumed": [
        events(events(watcher(1), A2), B3, A4),
        events(events(watcher(2, start=5, resumes=1), B5), A6, B6),
    ],
    "without deletions": [events(events(events(watcher(1, skip=("delete",)), A2), B3, A4), A6, B6)],
    "progress where it was": [edited(inserted(3, Notice(0, "progress", 4)))],
    "ended by a compaction that came": [
        attrs.evolve(watcher(1), notices=[Notice(0, "canceled", 6, compact_revision=4)])
    ],
}

BAD: dict[str, tuple[list[Watcher], Kind]] = {
    "out of order": ([edited(lambda w: w.notices.insert(2, w.notices.pop(3)))], Kind.WATCH_ORDER),
    "the same again": (
        [edited(lambda w: w.notices.insert(2, w.notices[1]))],
        Kind.WATCH_DUPLICATE,
    ),
    "an event left out": ([edited(told(2, B3))], Kind.WATCH_GAP),
    "an answer left out": ([edited(cut(2))], Kind.WATCH_GAP),
    "a gap where it was resumed": (
        [
            events(watcher(1), A2),
            events(events(watcher(2, start=3, resumes=1), B5), A6, B6),
        ],
        Kind.WATCH_GAP,
    ),
    "the end left out": ([edited(cut(4))], Kind.WATCH_GAP),
    "half a revision": (
        [edited(lambda w: (told(4, A6)(w), w.notices.insert(5, Notice(0, "events", 6, (B6,)))))],
        Kind.WATCH_SPLIT,
    ),
    "before the start": ([edited(lambda w: None, start=3)], Kind.WATCH_TOO_OLD),
    "back in time when resumed": (
        [
            events(watcher(1), A2),
            events(events(events(events(watcher(2, start=3, resumes=1), A2), B3, A4), B5), A6, B6),
        ],
        Kind.WATCH_TOO_OLD,
    ),
    "a key of others": (
        [edited(lambda w: events(w, SeenEvent("other", "6", 7, 7, 1)))],
        Kind.WATCH_FILTER,
    ),
    "a kind not asked for": ([edited(lambda w: None, skip=("delete",))], Kind.WATCH_FILTER),
    "a value that was not written": (
        [edited(told(1, attrs.evolve(A2, value="9")))],
        Kind.WATCH_WRONG_EVENT,
    ),
    "a deletion that was a put": (
        [edited(told(1, attrs.evolve(A2, value=None)))],
        Kind.WATCH_WRONG_EVENT,
    ),
    "the state before is wrong": (
        [edited(told(3, attrs.evolve(B5, previous=("1", 2))))],
        Kind.WATCH_PREVIOUS,
    ),
    "the state before is missing": (
        [edited(told(2, B3, attrs.evolve(A4, previous=None)))],
        Kind.WATCH_PREVIOUS,
    ),
    "a creation that was none": (
        [edited(told(2, B3, attrs.evolve(A4, create=4, version=1)))],
        Kind.WATCH_PREVIOUS,
    ),
    "progress ahead of the events": (
        [edited(inserted(2, Notice(0, "progress", 4)))],
        Kind.WATCH_BOOKMARK,
    ),
    "ended by a compaction behind it": (
        [
            attrs.evolve(
                watcher(1, start=5),
                notices=[Notice(0, "created", 4), Notice(0, "canceled", 6, compact_revision=4)],
            )
        ],
        Kind.WATCH_CANCELED,
    ),
}

COMPACTION = op(50, "compact", (1, 2), {"revision": 4}, {})


@pytest.mark.parametrize("watchers", GOOD.values(), ids=GOOD.keys())
def test_good_watches(watchers: list[Watcher]) -> None:
    operations = [COMPACTION] if watchers[0].notices[-1].kind == "canceled" else []
    result = check_watches(history(operations, LOG, watchers))
    assert result.verdict is Verdict.OK, result.findings


@pytest.mark.parametrize(("watchers", "kind"), BAD.values(), ids=BAD.keys())
def test_bad_watches(watchers: list[Watcher], kind: Kind) -> None:
    operations = [COMPACTION] if kind is Kind.WATCH_CANCELED else []
    result = check_watches(history(operations, LOG, watchers))
    assert result.verdict is Verdict.VIOLATED
    assert kind in result.counts, result.findings


def test_a_compaction_that_nobody_asked_for_ends_no_watch() -> None:
    ended = attrs.evolve(watcher(1), notices=[Notice(0, "canceled", 6, compact_revision=4)])
    result = check_watches(history([], LOG, [ended]))
    assert result.counts == {Kind.WATCH_CANCELED: 1}


def test_the_administrator_may_compact_too() -> None:
    ended = attrs.evolve(watcher(1), notices=[Notice(0, "canceled", 6, compact_revision=4)])
    found = history([], LOG, [ended])
    found.administered.append(Compaction(1, 4, 0))
    assert check_watches(found).verdict is Verdict.OK
    found.administered[0].revision = 3
    assert check_watches(found).counts == {Kind.WATCH_CANCELED: 1}


def test_without_log_or_watch_nothing_is_known() -> None:
    assert check_watches(history([], None, [whole()])).verdict is Verdict.UNKNOWN
    assert check_watches(history([], LOG)).verdict is Verdict.UNKNOWN


def read(
    at: tuple[int, int],
    revision: int,
    *kvs: tuple[str, str, int],
    past: int = 0,
    serializable: bool = False,
    error: str = "",
    number: int = 9,
    known: int = 0,
) -> Operation:
    asked = {"prefix": "k/", "at": past, "serializable": serializable, "known": known}
    output = {"error": error} if error else {"kvs": [list(kv) for kv in kvs]}
    return op(number, "read", at, asked, output, revision=revision)


NOW = (("k/a", "4", 6), ("k/b", "5", 6))
THEN = (("k/a", "3", 4), ("k/b", "2", 3))

REPLAY_GOOD = {
    "now": [read((1, 2), 7, *NOW)],
    "before everything": [read((1, 2), 1)],
    "an old state, asked for": [read((1, 2), 7, *THEN, past=4)],
    "an old state, serializable": [
        read((1, 2), 7, *NOW, number=1),
        read((3, 4), 4, *THEN, serializable=True),
    ],
    "refused as compacted": [COMPACTION, read((3, 4), 7, past=3, error="compacted")],
    "at the compaction itself": [COMPACTION, read((3, 4), 7, *THEN, past=4)],
    "refused as future": [read((3, 4), 7, past=30, error="future")],
}
REPLAY_BAD: dict[str, tuple[list[Operation], Kind]] = {
    "stale": (
        [read((1, 2), 7, *NOW, number=1), read((3, 4), 4, *THEN)],
        Kind.STALE_READ,
    ),
    "a mix of two revisions": ([read((1, 2), 7, NOW[0], THEN[1])], Kind.WRONG_READ),
    "a serializable mix": (
        [read((1, 2), 5, THEN[0], THEN[1], serializable=True)],
        Kind.WRONG_READ,
    ),
    "the past is wrong": ([read((1, 2), 7, *NOW, past=4)], Kind.WRONG_READ),
    "a key is missing": ([read((1, 2), 7, NOW[0])], Kind.WRONG_READ),
    "beyond the newest": ([read((1, 2), 30, *NOW)], Kind.WRONG_READ),
    "compacted by nobody": ([read((1, 2), 7, past=3, error="compacted")], Kind.WRONG_REFUSAL),
    "compacted too far": (
        [COMPACTION, read((3, 4), 7, past=4, error="compacted")],
        Kind.WRONG_REFUSAL,
    ),
    "compacted by one that failed": (
        [
            attrs.evolve(COMPACTION, outcome=FAIL),
            read((3, 4), 7, past=3, error="compacted"),
        ],
        Kind.WRONG_REFUSAL,
    ),
    "future that was past": (
        [read((1, 2), 7, past=4, error="future", known=6)],
        Kind.WRONG_REFUSAL,
    ),
    "answered though compacted": (
        [COMPACTION, read((3, 4), 7, ("k/a", "1", 2), ("k/b", "2", 3), past=3)],
        Kind.WRONG_READ,
    ),
}


@pytest.mark.parametrize("operations", REPLAY_GOOD.values(), ids=REPLAY_GOOD.keys())
def test_good_reads(operations: list[Operation]) -> None:
    result = check_replay(history(operations, LOG))
    assert result.verdict is Verdict.OK, result.findings


@pytest.mark.parametrize(("operations", "kind"), REPLAY_BAD.values(), ids=REPLAY_BAD.keys())
def test_bad_reads(operations: list[Operation], kind: Kind) -> None:
    result = check_replay(history(operations, LOG))
    assert result.verdict is Verdict.VIOLATED
    assert kind in result.counts, result.findings


def test_reads_without_a_log_are_unknown() -> None:
    assert check_replay(history([read((1, 2), 7, *NOW)])).verdict is Verdict.UNKNOWN
