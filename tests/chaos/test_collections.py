"""Sets, banks, counters and queues: histories by hand, good and bad in every way."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest

from chaos.checkers.bank import check_bank
from chaos.checkers.exactlyonce import check_exactly_once
from chaos.checkers.queues import check_queue
from chaos.checkers.sets import check_set
from chaos.checkers.wgl import check_wgl
from chaos.history.format import Operation, Outcome
from chaos.verdict import Kind, Verdict
from tests.chaos.records import FAIL, UNKNOWN, history, op

SETS_GOOD = {
    "seen as soon as acknowledged": [
        op(0, "add", (1, 2), 1),
        op(1, "read", (3, 4), None, [1]),
        op(2, "add", (5, 9), 2),
        op(3, "read", (6, 7), None, [1]),
        op(4, "read", (10, 11), None, [1, 2]),
    ],
    "unknown adds may appear late or never, failed ones never": [
        op(0, "add", (1, None), 1),
        op(1, "add", (1, None), 2),
        op(2, "add", (1, 2), 3, outcome=FAIL),
        op(3, "read", (3, 4), None, []),
        op(4, "read", (5, 6), None, [2]),
    ],
}
SETS_BAD: dict[str, tuple[list[Operation], Kind]] = {
    "lost": (
        [op(0, "add", (1, 2), 1), op(1, "read", (3, 4), None, [])],
        Kind.LOST_ELEMENT,
    ),
    "seen and then lost": (
        [
            op(0, "add", (1, None), 1),
            op(1, "read", (3, 4), None, [1]),
            op(2, "read", (5, 6), None, []),
        ],
        Kind.LOST_ELEMENT,
    ),
    "stale": (
        [
            op(0, "add", (1, 2), 1),
            op(1, "read", (3, 4), None, []),
            op(2, "read", (5, 6), None, [1]),
        ],
        Kind.STALE_READ,
    ),
    "twice": (
        [op(0, "add", (1, 2), 1), op(1, "read", (3, 4), None, [1, 1])],
        Kind.DUPLICATE_ELEMENT,
    ),
    "of nobody": ([op(0, "read", (3, 4), None, [9])], Kind.READ_OF_NOTHING),
    "failed and there": (
        [op(0, "add", (1, 2), 1, outcome=FAIL), op(1, "read", (3, 4), None, [1])],
        Kind.FAILED_WRITE_APPLIED,
    ),
}

BANK = {"accounts": ["a", "b"], "total": 10}
BANK_GOOD = {
    "same total": [op(0, "read", (1, 2), None, {"a": 5, "b": 5})],
    "all in one": [
        op(0, "transfer", (1, 2), {"from": "a", "to": "b", "amount": 5}),
        op(1, "read", (3, 4), None, {"a": 0, "b": 10}),
    ],
}
BANK_BAD: dict[str, tuple[list[Operation], Kind]] = {
    "half a transfer": ([op(0, "read", (1, 2), None, {"a": 4, "b": 5})], Kind.WRONG_TOTAL),
    "too much": ([op(0, "read", (1, 2), None, {"a": 9, "b": 5})], Kind.WRONG_TOTAL),
    "debt": ([op(0, "read", (1, 2), None, {"a": -1, "b": 11})], Kind.WRONG_TOTAL),
    "an account is missing": ([op(0, "read", (1, 2), None, {"a": 10})], Kind.WRONG_READ),
}

COUNTER_GOOD = {
    "one after the other": [
        op(0, "add", (1, 2), None, 1),
        op(1, "add", (3, 4), None, 2),
        op(2, "read", (5, 6), None, 2),
    ],
    "an unknown addition took a number": [
        op(0, "add", (1, None)),
        op(1, "add", (3, 4), None, 2),
        op(2, "read", (5, 6), None, 2),
    ],
    "concurrent": [
        op(0, "add", (1, 9), None, 2),
        op(1, "add", (1, 9), None, 1),
        op(2, "read", (2, 8), None, 0),
        op(3, "read", (10, 11), None, 2),
    ],
}
COUNTER_BAD: dict[str, tuple[list[Operation], Kind]] = {
    "applied twice": (
        [op(0, "add", (1, 2), None, 1), op(1, "read", (3, 4), None, 2)],
        Kind.APPLIED_TWICE,
    ),
    "applied twice, the second answered": (
        [op(0, "add", (1, 2), None, 2), op(1, "read", (3, 4), None, 2)],
        Kind.APPLIED_TWICE,
    ),
    "an unknown addition that began too late to explain it": (
        [
            op(0, "add", (1, 2), None, 2),
            op(1, "add", (3, None)),
            op(2, "read", (5, 6), None, 2),
        ],
        Kind.APPLIED_TWICE,
    ),
    "one sum for two": (
        [
            op(0, "add", (1, 9), None, 1),
            op(1, "add", (1, 9), None, 1),
            op(2, "read", (10, 11), None, 1),
        ],
        Kind.LOST_WRITE,
    ),
    "addition lost": (
        [
            op(0, "add", (1, 2), None, 1),
            op(1, "add", (3, 4), None, 1),
            op(2, "read", (5, 6), None, 1),
        ],
        Kind.LOST_WRITE,
    ),
    "stale read": (
        [op(0, "add", (1, 2), None, 1), op(1, "read", (3, 4), None, 0)],
        Kind.STALE_READ,
    ),
}


def push(number: int, at: tuple[int, int | None], item: str, identity: int = 0) -> Operation:
    return op(number, "push", at, item, {"id": identity} if identity else None)


def pop(number: int, at: tuple[int, int | None], item: str = "", identity: int = 0) -> Operation:
    return op(number, "pop", at, None, {"id": identity, "item": item} if item else None)


QUEUE_GOOD = {
    "in order": [
        push(0, (1, 2), "x", 1),
        push(1, (3, 4), "y", 2),
        pop(2, (5, 6), "x", 1),
        pop(3, (7, 8), "y", 2),
        pop(4, (9, 10)),
    ],
    "an unknown pop took one, an unknown push brought one": [
        push(0, (1, 2), "x", 1),
        pop(1, (3, None)),
        push(2, (4, None), "y"),
        pop(3, (5, 6), "y", 2),
        pop(4, (7, 8)),
    ],
    "empty while the push goes on": [
        push(0, (1, 9), "x", 1),
        pop(1, (2, 3)),
        pop(2, (10, 11), "x", 1),
        pop(3, (12, 13)),
    ],
}
QUEUE_BAD: dict[str, tuple[list[Operation], Kind]] = {
    "twice": (
        [
            push(0, (1, 2), "x", 1),
            pop(1, (3, 9), "x", 1),
            pop(2, (3, 9), "x", 1),
            pop(3, (10, 11)),
        ],
        Kind.RECEIVED_TWICE,
    ),
    "lost": ([push(0, (1, 2), "x", 1), pop(1, (3, 4))], Kind.LOST_ITEM),
    "two lost, one unknown pop": (
        [
            push(0, (1, 2), "x", 1),
            push(1, (3, 4), "y", 2),
            pop(2, (5, None)),
            pop(3, (7, 8)),
        ],
        Kind.LOST_ITEM,
    ),
    "of nobody": ([pop(0, (1, 2), "z", 1), pop(1, (3, 4))], Kind.READ_OF_NOTHING),
    "failed and there": (
        [
            op(0, "push", (1, 2), "x", outcome=FAIL),
            pop(1, (3, 4), "x", 1),
            pop(2, (5, 6)),
        ],
        Kind.FAILED_WRITE_APPLIED,
    ),
    "popped out of order": (
        [
            push(0, (1, 2), "x", 1),
            push(1, (3, 4), "y", 2),
            pop(2, (5, 6), "y", 2),
            pop(3, (7, 8), "x", 1),
            pop(4, (9, 10)),
        ],
        Kind.OUT_OF_ORDER,
    ),
    "pushed out of order": (
        [
            push(0, (1, 2), "x", 2),
            push(1, (3, 4), "y", 1),
            pop(2, (5, 9), "y", 1),
            pop(3, (5, 9), "x", 2),
            pop(4, (10, 11)),
        ],
        Kind.OUT_OF_ORDER,
    ),
    "empty though an item was there": (
        [
            push(0, (1, 2), "x", 1),
            pop(1, (3, 4)),
            pop(2, (5, 6), "x", 1),
            pop(3, (7, 8)),
        ],
        Kind.WRONGLY_EMPTY,
    ),
}

CHECKS = {
    "set": (check_set, SETS_GOOD, SETS_BAD),
    "bank": (check_bank, BANK_GOOD, BANK_BAD),
    "counter": (check_exactly_once, COUNTER_GOOD, COUNTER_BAD),
    "queue": (check_queue, QUEUE_GOOD, QUEUE_BAD),
}


@pytest.mark.parametrize(
    ("check", "operations"),
    [
        pytest.param(check, operations, id=f"{name}: {title}")
        for name, (check, good, _) in CHECKS.items()
        for title, operations in good.items()
    ],
)
def test_good(check: Any, operations: list[Operation]) -> None:
    result = check(history(operations, bank=BANK))
    assert result.verdict is Verdict.OK, result.findings


@pytest.mark.parametrize(
    ("check", "operations", "kind"),
    [
        pytest.param(check, operations, kind, id=f"{name}: {title}")
        for name, (check, _, bad) in CHECKS.items()
        for title, (operations, kind) in bad.items()
    ],
)
def test_bad(check: Any, operations: list[Operation], kind: Kind) -> None:
    result = check(history(operations, bank=BANK))
    assert result.verdict is Verdict.VIOLATED
    assert kind in result.counts, result.findings
    finding = next(finding for finding in result.findings if finding.kind is kind)
    assert 1 <= len(finding.operations) <= 3


@pytest.mark.parametrize(
    ("check", "operations"),
    [
        (check_set, [op(0, "add", (1, 2), 1)]),
        (check_set, [op(0, "read", (1, 2), None, []), op(1, "add", (3, 4), 1)]),
        (check_bank, [op(0, "transfer", (1, 2))]),
        (check_exactly_once, [op(0, "add", (1, 2), None, 1)]),
        (check_queue, [push(0, (1, 2), "x", 1), pop(1, (3, 4), "x", 1)]),
    ],
)
def test_what_nobody_looked_at_is_unknown(check: Any, operations: list[Operation]) -> None:
    assert check(history(operations, bank=BANK)).verdict is Verdict.UNKNOWN


class CounterModel:
    """The counter as a model for the search, to compare the checker with."""

    per_key = False

    def initial(self) -> int:
        return 0

    def step(self, state: int, operation: Operation) -> int | None:
        certain = operation.outcome is Outcome.OK
        after = state + (operation.f == "add")
        return None if certain and operation.output != after else after


class QueueModel:
    """The queue as a model for the search: (items with their ids, the next id)."""

    per_key = False

    def initial(self) -> tuple[tuple[tuple[int, str], ...], int]:
        return (), 1

    def step(self, state: Any, operation: Operation) -> Any:
        items, following = state
        certain = operation.outcome is Outcome.OK
        if operation.f == "push":
            if certain and operation.output["id"] != following:
                return None
            return (*items, (following, operation.input)), following + 1
        told = operation.output and (operation.output["id"], operation.output["item"])
        if certain and told != (items[0] if items else None):
            return None
        return items[1:], following


def random_counter(rng: Random) -> list[Operation]:
    operations, count = [], 0
    for number in range(rng.randrange(2, 7)):
        start = rng.randrange(1, 20)
        end = start + rng.randrange(0, 8)
        f = rng.choice(("add", "read"))
        count += f == "add"
        output = max(0, count + rng.choice((0, 0, 0, 0, 1, -1)))
        unknown = f == "add" and rng.random() < 0.2
        operations.append(
            op(number, f, (start, None if unknown else end), None, None if unknown else output)
        )
    # Every number must be accounted for, so the last read is after all.
    return [*operations, op(99, "read", (50, 51), None, count + rng.choice((0, 0, 0, 1, -1)))]


def test_the_counter_against_the_search() -> None:
    verdicts = []
    for seed in range(600):
        operations = random_counter(Random(seed))
        result = check_exactly_once(history(operations))
        wanted = check_wgl(operations, CounterModel()).verdict
        assert result.verdict is wanted, (seed, operations, result.findings)
        verdicts.append(wanted is Verdict.OK)
    assert 30 < sum(verdicts) < 570


def random_queue(rng: Random) -> list[Operation]:
    """What a queue does one after the other, with intervals and answers bent a little."""
    operations: list[Operation] = []
    items: list[tuple[int, str]] = []
    ids = itertools.count(1)
    for number in range(rng.randrange(2, 6)):
        start = 4 * number + rng.randrange(0, 4)
        at = start, start + rng.randrange(0, 9)
        if rng.random() < 0.6:
            identity = next(ids)
            items.append((identity, f"i{identity}"))
            operations.append(push(number, at, f"i{identity}", identity))
        elif items:
            identity, item = items.pop(rng.choice((0, 0, 0, -1)))
            operations.append(pop(number, at, item, identity))
        else:
            operations.append(pop(number, at))
    for number, (identity, item) in enumerate(items):
        start = 50 + 2 * number
        operations.append(pop(50 + number, (start, start + 1), item, identity))
    return [*operations, pop(99, (90, 91))]


def test_the_queue_never_blames_what_the_search_explains() -> None:
    """The search is stricter about who was there in between; both agree on most."""
    blamed = explained = 0
    for seed in range(900):
        operations = random_queue(Random(seed))
        result = check_queue(history(operations))
        wanted = check_wgl(operations, QueueModel()).verdict
        if wanted is Verdict.OK:
            assert result.verdict is Verdict.OK, (seed, operations, result.findings)
            explained += 1
        blamed += result.verdict is Verdict.VIOLATED
    assert explained > 100
    assert blamed > 20


def test_unknown_operations_are_not_blamed() -> None:
    operations = [op(0, "add", (1, None), 1), op(1, "read", (3, 4), None, [])]
    assert operations[0].outcome is UNKNOWN
    assert check_set(history(operations)).verdict is Verdict.OK
