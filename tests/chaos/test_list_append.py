"""Transactions on lists: each anomaly by hand, and every small history against a serial search."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from chaos.checkers.listappend import check_list_append
from chaos.history.format import Operation, Outcome
from chaos.verdict import Kind, Verdict
from tests.chaos.records import FAIL, UNKNOWN, history, op


def txn(
    number: int,
    at: tuple[int, int | None],
    *steps: tuple[str, str, Any],
    outcome: Outcome | None = None,
) -> Operation:
    """A transaction: ("a", list, element) appends, ("r", list, what was read) reads."""
    asked = [[{"a": "append", "r": "r"}[f], k, v if f == "a" else None] for f, k, v in steps]
    told = [[{"a": "append", "r": "r"}[f], k, v] for f, k, v in steps]
    writes = any(f == "a" for f, _, _ in steps)
    known = at[1] is not None and outcome is None
    return op(
        number, "txn" if writes else "read", at, asked, told if known else None, outcome=outcome
    )


GOOD = {
    "one after the other": [
        txn(0, (1, 2), ("a", "x", 1)),
        txn(1, (3, 4), ("r", "x", [1]), ("a", "x", 2)),
        txn(2, (5, 6), ("r", "x", [1, 2])),
    ],
    "own appends are read": [
        txn(0, (1, 2), ("a", "x", 1), ("r", "x", [1]), ("a", "x", 2), ("r", "x", [1, 2])),
        txn(1, (3, 4), ("r", "x", [1, 2])),
    ],
    "concurrent, in either order": [
        txn(0, (1, 9), ("a", "x", 1), ("r", "y", [])),
        txn(1, (2, 8), ("a", "y", 1), ("r", "x", [1])),
        txn(2, (10, 11), ("r", "x", [1]), ("r", "y", [1])),
    ],
    "unknown, seen later": [
        txn(0, (1, None), ("a", "x", 1)),
        txn(1, (3, 4), ("r", "x", [])),
        txn(2, (5, 6), ("r", "x", [1])),
    ],
    "unknown and aborted, never seen": [
        txn(0, (1, None), ("a", "x", 1)),
        txn(1, (1, 2), ("a", "x", 2), outcome=FAIL),
        txn(2, (5, 6), ("r", "x", [])),
    ],
}

BAD: dict[str, tuple[list[Operation], Kind]] = {
    "G0: writes in different orders": (
        [
            txn(0, (1, 9), ("a", "x", 1), ("a", "y", 1)),
            txn(1, (1, 9), ("a", "x", 2), ("a", "y", 2)),
            txn(2, (10, 11), ("r", "x", [1, 2]), ("r", "y", [2, 1])),
        ],
        Kind.G0,
    ),
    "G0 with real time: the later write lies first": (
        [
            txn(0, (1, 2), ("a", "x", 1)),
            txn(1, (3, 4), ("a", "x", 2)),
            txn(2, (5, 6), ("r", "x", [2, 1])),
        ],
        Kind.G0,
    ),
    "G1a": (
        [txn(0, (1, 2), ("a", "x", 1), outcome=FAIL), txn(1, (3, 4), ("r", "x", [1]))],
        Kind.G1A,
    ),
    "G1b": (
        [
            txn(0, (1, 9), ("a", "x", 1), ("a", "x", 2)),
            txn(1, (2, 3), ("r", "x", [1])),
            txn(2, (10, 11), ("r", "x", [1, 2])),
        ],
        Kind.G1B,
    ),
    "G1c: each read the other": (
        [
            txn(0, (1, 9), ("a", "x", 1), ("r", "y", [1])),
            txn(1, (1, 9), ("a", "y", 1), ("r", "x", [1])),
        ],
        Kind.G1C,
    ),
    "G1c with real time: read before it was written": (
        [
            txn(0, (1, 2), ("r", "x", [1])),
            txn(1, (3, 4), ("a", "x", 1)),
        ],
        Kind.G1C,
    ),
    "G-single: lost update": (
        [
            txn(0, (1, 9), ("r", "x", []), ("a", "x", 1)),
            txn(1, (1, 9), ("r", "x", []), ("a", "x", 2)),
            txn(2, (10, 11), ("r", "x", [1, 2])),
        ],
        Kind.G_SINGLE,
    ),
    "G-single: read skew": (
        [
            txn(0, (1, 9), ("a", "x", 1), ("a", "y", 1)),
            txn(1, (1, 9), ("r", "x", [1]), ("r", "y", [])),
            txn(2, (10, 11), ("r", "x", [1]), ("r", "y", [1])),
        ],
        Kind.G_SINGLE,
    ),
    "G-single with real time: stale read": (
        [
            txn(0, (1, 2), ("a", "x", 1)),
            txn(1, (3, 4), ("r", "x", [])),
            txn(2, (5, 6), ("r", "x", [1])),
        ],
        Kind.G_SINGLE,
    ),
    "G-single with real time: acknowledged and lost": (
        [txn(0, (1, 2), ("a", "x", 1)), txn(1, (3, 4), ("r", "x", []))],
        Kind.G_SINGLE,
    ),
    "G2: write skew": (
        [
            txn(0, (1, 9), ("r", "x", []), ("a", "y", 1)),
            txn(1, (1, 9), ("r", "y", []), ("a", "x", 1)),
            txn(2, (10, 11), ("r", "x", [1]), ("r", "y", [1])),
        ],
        Kind.G2,
    ),
    "two orders": (
        [
            txn(0, (1, 9), ("a", "x", 1)),
            txn(1, (1, 9), ("a", "x", 2)),
            txn(2, (1, 9), ("r", "x", [1, 2])),
            txn(3, (1, 9), ("r", "x", [2, 1])),
        ],
        Kind.INCOMPATIBLE_ORDER,
    ),
    "an element twice": (
        [txn(0, (1, 2), ("a", "x", 1)), txn(1, (3, 4), ("r", "x", [1, 1]))],
        Kind.DUPLICATE_ELEMENT,
    ),
    "an element of nobody": ([txn(0, (1, 2), ("r", "x", [7]))], Kind.READ_OF_NOTHING),
    "own append not read": (
        [txn(0, (1, 2), ("a", "x", 1), ("r", "x", []))],
        Kind.INTERNAL,
    ),
}


@pytest.mark.parametrize("operations", GOOD.values(), ids=GOOD.keys())
def test_good(operations: list[Operation]) -> None:
    result = check_list_append(history(operations))
    assert result.verdict is Verdict.OK, result.findings


@pytest.mark.parametrize(("operations", "kind"), BAD.values(), ids=BAD.keys())
def test_bad(operations: list[Operation], kind: Kind) -> None:
    result = check_list_append(history(operations))
    assert result.verdict is Verdict.VIOLATED
    assert kind in result.counts, result.findings
    finding = next(finding for finding in result.findings if finding.kind is kind)
    assert 1 <= len(finding.operations) <= 3
    assert all(str(number) in finding.text for number in finding.operations)


def test_nothing_read_is_unknown() -> None:
    assert check_list_append(history([txn(0, (1, 2), ("a", "x", 1))])).verdict is Verdict.UNKNOWN


def serializable(operations: Sequence[Operation]) -> bool:
    """Is there an order of all that was done, with any of the unknown, that explains every read?"""
    sure = [each for each in operations if each.outcome is Outcome.OK]
    maybe = [each for each in operations if each.outcome is UNKNOWN]
    for count in range(len(maybe) + 1):
        for extra in itertools.combinations(maybe, count):
            for order in itertools.permutations([*sure, *extra]):
                if _in_real_time(order) and _explained(order):
                    return True
    return False


def _in_real_time(order: Sequence[Operation]) -> bool:
    return all(
        not (later.end is not None and later.end < sooner.start)
        for place, sooner in enumerate(order)
        for later in order[place + 1 :]
    )


def _explained(order: Sequence[Operation]) -> bool:
    lists: dict[str, list[int]] = {}
    for each in order:
        for step, (f, key, element) in enumerate(each.input):
            if f == "append":
                lists.setdefault(key, []).append(element)
            elif each.output is not None and each.output[step][2] != lists.get(key, []):
                return False
    return True


def random_history(rng: Random) -> list[Operation]:
    """Up to four transactions that read something like the truth, and a last read of all."""
    elements = itertools.count(1)
    lists: dict[str, list[int]] = {"x": [], "y": []}
    operations = []
    for number in range(rng.randrange(2, 5)):
        start = rng.randrange(1, 12)
        steps: list[tuple[str, str, Any]] = []
        for key in rng.sample(["x", "y"], rng.randrange(1, 3)):
            if rng.random() < 0.5:
                element = next(elements)
                lists[key].insert(rng.choice([len(lists[key]), len(lists[key]), 0]), element)
                steps.append(("a", key, element))
            else:
                steps.append(("r", key, lists[key][: rng.randrange(len(lists[key]) + 1)]))
        end = None if rng.random() < 0.1 else start + rng.randrange(0, 6)
        operations.append(txn(number, (start, end), *steps))
    steps = [("r", key, list(lists[key])) for key in ("x", "y")]
    operations.append(txn(99, (50, 51), *steps))
    return operations


def test_against_a_search_through_every_order() -> None:
    """With a last read of all, no circle means that an order exists, and the other way round."""
    verdicts = []
    for seed in range(400):
        operations = random_history(Random(seed))
        result = check_list_append(history(operations))
        wanted = serializable(operations)
        assert (result.verdict is Verdict.OK) == wanted, (seed, operations, result.findings)
        verdicts.append(wanted)
    assert 50 < sum(verdicts) < 350


def serial_history(count: int) -> list[Operation]:
    rng = Random(5)
    lists: dict[str, list[int]] = {}
    operations = []
    for number in range(count):
        key = f"l{number // 100}"  # a list for every hundred transactions, so that reads stay short
        held = lists.setdefault(key, [])
        start = 10 * number
        end = start + rng.randrange(1, 60)
        if rng.random() < 0.5:
            held.append(number)
            operations.append(txn(number, (start, end), ("r", key, held[:-1]), ("a", key, number)))
        else:
            operations.append(txn(number, (start, end), ("r", key, list(held))))
    return operations


def test_thousands_of_transactions() -> None:
    assert check_list_append(history(serial_history(3_000))).verdict is Verdict.OK
