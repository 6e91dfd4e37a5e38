"""Leases, locks and elections: histories by hand, good and bad in every way."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.checkers.assumptions import HEAL, check_recovery
from chaos.checkers.fencing import check_fencing
from chaos.checkers.leases import check_leases
from chaos.history.format import FaultEvent, Notice, Operation, SeenEvent, Watcher, WatchEvent
from chaos.verdict import Kind, Verdict
from tests.chaos.records import history, log_of, op, watcher

S = 1_000_000_000


def grant(at: tuple[float, float], ttl: int = 2, number: int = 0) -> Operation:
    return op(number, "grant", span(at), {"lease": 7, "ttl": ttl}, {"ttl": ttl})


def keepalive(at: tuple[float, float], ttl: int = 2, number: int = 5) -> Operation:
    return op(number, "keepalive", span(at), {"lease": 7, "ttl": 2}, {"ttl": ttl})


def attach(at: tuple[float, float], key: str = "lease/7/a", number: int = 1) -> Operation:
    return op(number, "put", span(at), {"lease": 7}, key=key, revision=2)


def span(at: tuple[float, float]) -> tuple[int, int]:
    return int(at[0] * S), int(at[1] * S)


def deleted(t: float, *places: tuple[str, int]) -> Watcher:
    """A watch that told deletions at ``t`` seconds."""
    watching = watcher(90, "lease/")
    for key, revision in places:
        seen = (SeenEvent(key, None, revision),)
        watching.notices.append(Notice(int(t * S), "events", revision, seen))
    return watching


A, B = "lease/7/a", "lease/7/b"
START = [grant((0, 0.1)), attach((0.2, 0.3)), attach((0.4, 0.5), B, 2)]
MENDED = [FaultEvent(int(3 * S), HEAL, "end", ("n1",))]


def left(t: float, *keys: str, revision: int = 9) -> Operation:
    return op(9, "read", span((t, t + 0.1)), None, {"keys": list(keys)}, revision=revision)


LEASES_GOOD: dict[str, tuple[list[Operation], Watcher]] = {
    "it lived its time": (START, deleted(2.5, (A, 5), (B, 5))),
    "kept alive, then left": (
        [*START, keepalive((1.5, 1.6)), left(40)],
        deleted(3.6, (A, 5), (B, 5)),
    ),
    "revoked early": (
        [*START, op(6, "revoke", span((0.6, 0.7)), {"lease": 7})],
        deleted(0.8, (A, 5), (B, 5)),
    ),
    "a renewal of what is gone is told so": (
        [*START, keepalive((3.0, 3.1), ttl=0)],
        deleted(2.5, (A, 5), (B, 5)),
    ),
    "still there, within the bound": ([*START, left(6, A, B)], deleted(30, (A, 15), (B, 15))),
}
LEASES_BAD: dict[str, tuple[list[Operation], Watcher, Kind]] = {
    "gone before its time": (START, deleted(1.5, (A, 5), (B, 5)), Kind.LEASE_EARLY),
    "gone though it was kept alive": (
        [*START, keepalive((1.5, 1.6))],
        deleted(2.5, (A, 5), (B, 5)),
        Kind.LEASE_EARLY,
    ),
    "a revocation that came later does not excuse": (
        [*START, op(6, "revoke", span((1.6, 1.7)), {"lease": 7})],
        deleted(1.5, (A, 5), (B, 5)),
        Kind.LEASE_EARLY,
    ),
    "renewed after its end": (
        [*START, keepalive((3.0, 3.1))],
        deleted(2.5, (A, 5), (B, 5)),
        Kind.LEASE_REVIVED,
    ),
    "a key that came back": (
        [*START, left(4, A, revision=6)],
        deleted(2.5, (A, 5), (B, 5)),
        Kind.LEASE_REVIVED,
    ),
    "one key after the other": (START, deleted(2.5, (A, 5), (B, 6)), Kind.LEASE_PARTIAL),
    "it outlives its time": ([*START, left(30, A, B)], deleted(0), Kind.LEASE_LATE),
}


@pytest.mark.parametrize(("operations", "watching"), LEASES_GOOD.values(), ids=LEASES_GOOD.keys())
def test_good_leases(operations: list[Operation], watching: Watcher) -> None:
    result = check_leases(history(operations, [], [watching], MENDED))
    assert result.verdict is Verdict.OK, result.findings


@pytest.mark.parametrize(
    ("operations", "watching", "kind"), LEASES_BAD.values(), ids=LEASES_BAD.keys()
)
def test_bad_leases(operations: list[Operation], watching: Watcher, kind: Kind) -> None:
    result = check_leases(history(operations, [], [watching], MENDED))
    assert result.verdict is Verdict.VIOLATED
    assert result.counts == {kind: 1} or kind in result.counts, result.findings


def test_leases_that_nobody_watched_are_unknown() -> None:
    assert check_leases(history(START)).verdict is Verdict.UNKNOWN


LOCK_LOG = log_of(
    (2, "lock/p", ""),
    (3, "lock/q", ""),
    (4, "data", "x"),
    (5, "lock/p", None),
    (6, "data", "y"),
    (7, "lock/q", None),
)


def acquire(number: int, at: tuple[int, int], key: str, token: int) -> Operation:
    return op(number, "acquire", at, {"name": "lock"}, {"key": key, "token": token})


def write(number: int, key: str, token: int, revision: int, applied: bool = True) -> Operation:
    asked = {"name": "lock", "key": key, "token": token}
    at = 10 * revision, 10 * revision + 1
    return op(number, "write", at, asked, {"applied": applied}, revision=revision)


def observed(number: int, revision: int, seen: Any) -> Operation:
    at = 10 * revision, 10 * revision + 1
    return op(number, "read", at, {"name": "lock"}, seen, revision=revision)


TURNS = [
    acquire(0, (20, 21), "lock/p", 2),
    write(1, "lock/p", 2, 4),
    acquire(2, (30, 51), "lock/q", 3),
    write(3, "lock/q", 3, 6),
]
FIRST = {"key": "lock/p", "token": 2, "value": ""}

LOCKS_GOOD = {
    "in turns": TURNS,
    "a refused write of one who lost it": [*TURNS, write(4, "lock/p", 2, 6, applied=False)],
    "observers": [*TURNS, observed(5, 4, FIRST), observed(6, 7, None)],
}
LOCKS_BAD: dict[str, tuple[list[Operation], list[WatchEvent], Kind]] = {
    "a write after the lock was lost": (
        [*TURNS[:2], write(3, "lock/p", 2, 6)],
        LOCK_LOG,
        Kind.NOT_THE_HOLDER,
    ),
    "a write before its turn": (
        [*TURNS[:1], write(3, "lock/q", 3, 4)],
        LOCK_LOG,
        Kind.NOT_THE_HOLDER,
    ),
    "a write when nobody held it": (
        [write(3, "lock/q", 3, 9)],
        LOCK_LOG,
        Kind.NOT_THE_HOLDER,
    ),
    "an old token after a new one": (
        [*TURNS, write(4, "lock/p", 2, 8)],
        LOCK_LOG,
        Kind.TOKEN_ORDER,
    ),
    "a later grant with a smaller token": (
        [acquire(0, (20, 21), "lock/q", 3), acquire(1, (30, 31), "lock/p", 2), *TURNS[1:2]],
        LOCK_LOG,
        Kind.TOKEN_ORDER,
    ),
    "an observer who saw another": (
        [*TURNS, observed(5, 6, FIRST)],
        LOCK_LOG,
        Kind.WRONG_LEADER,
    ),
    "an observer who heard another word": (
        [*TURNS, observed(5, 4, {**FIRST, "value": "z"})],
        LOCK_LOG,
        Kind.WRONG_LEADER,
    ),
}


@pytest.mark.parametrize("operations", LOCKS_GOOD.values(), ids=LOCKS_GOOD.keys())
def test_good_locks(operations: list[Operation]) -> None:
    result = check_fencing(history(operations, LOCK_LOG))
    assert result.verdict is Verdict.OK, result.findings


@pytest.mark.parametrize(("operations", "log", "kind"), LOCKS_BAD.values(), ids=LOCKS_BAD.keys())
def test_bad_locks(operations: list[Operation], log: list[WatchEvent], kind: Kind) -> None:
    result = check_fencing(history(operations, log))
    assert result.verdict is Verdict.VIOLATED
    assert kind in result.counts, result.findings


def test_locks_without_a_log_or_a_write_are_unknown() -> None:
    assert check_fencing(history(TURNS)).verdict is Verdict.UNKNOWN
    assert check_fencing(history(TURNS[:1], LOCK_LOG)).verdict is Verdict.UNKNOWN


def test_liveness_needs_an_operation_after_healing() -> None:
    before, after = op(0, "get", (1 * S, 2 * S)), op(1, "get", (4 * S, 5 * S))
    assert check_recovery(history([before], faults=MENDED)).counts == {Kind.NOT_RECOVERED: 1}
    assert check_recovery(history([before, after], faults=MENDED)).verdict is Verdict.OK
    stuck = op(1, "get", (4 * S, None))
    assert check_recovery(history([before, stuck], faults=MENDED)).verdict is Verdict.VIOLATED
