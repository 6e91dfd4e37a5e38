"""The search: models without revisions, unknown outcomes, and its budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

import pytest

from chaos.checkers.wgl import RegisterModel, StoreModel, check_wgl
from chaos.history.format import Operation, Outcome
from chaos.verdict import Kind, Verdict
from tests.chaos.histories import generate


def op(
    number: int,
    f: str,
    start: int,
    end: int | None,
    value: str | None = None,
    seen: str | None = None,
    key: str = "a",
    expected: str | None = None,
    applied: bool = False,
) -> Operation:
    outcome = Outcome.UNKNOWN if end is None else Outcome.OK
    return Operation(
        number,
        number,
        f,
        key,
        start,
        value=value,
        seen=seen,
        end=end,
        outcome=outcome,
        expected_value=expected,
        applied=applied,
    )


GOOD = {
    "nothing": [],
    "overlapping write and read": [
        op(0, "put", 1, 9, "x"),
        op(1, "get", 2, 3, seen=None),
        op(2, "get", 4, 5, seen="x"),
    ],
    "unknown write seen, or never": [
        op(0, "put", 1, 2, "x"),
        op(1, "put", 3, None, "y"),
        op(2, "put", 3, None, "z"),
        op(3, "get", 4, 5, seen="x"),
        op(4, "get", 6, 7, seen="y"),
    ],
    "cas": [
        op(0, "put", 1, 2, "x"),
        op(1, "cas", 3, 4, "y", expected="x", applied=True),
        op(2, "cas", 5, 6, "z", expected="x", applied=False, seen="y"),
    ],
    "keys are independent": [
        op(0, "put", 1, 2, "x"),
        op(1, "get", 3, 4, seen=None, key="b"),
    ],
}

BAD = {
    "stale read": [
        op(0, "put", 1, 2, "x"),
        op(1, "put", 3, 4, "y"),
        op(2, "get", 5, 6, seen="x"),
    ],
    "two reads in different orders": [
        op(0, "put", 1, 9, "x"),
        op(1, "put", 1, 9, "y"),
        op(2, "get", 10, 11, seen="x"),
        op(3, "get", 12, 13, seen="y"),
    ],
    "unknown write comes and goes": [
        op(0, "put", 1, 2, "x"),
        op(1, "put", 3, None, "y"),
        op(2, "get", 4, 5, seen="y"),
        op(3, "get", 6, 7, seen="x"),
    ],
    "two cas win on one value": [
        op(0, "put", 1, 2, "x"),
        op(1, "cas", 3, 9, "y", expected="x", applied=True),
        op(2, "cas", 3, 9, "z", expected="x", applied=True),
    ],
    "cas refused though equal": [
        op(0, "put", 1, 2, "x"),
        op(1, "cas", 3, 4, "y", expected="x", applied=False, seen="x"),
    ],
    "lost write": [op(0, "put", 1, 2, "x"), op(1, "get", 3, 4, seen=None)],
}


@pytest.mark.parametrize("operations", GOOD.values(), ids=GOOD.keys())
def test_good(operations: list[Operation]) -> None:
    assert check_wgl(operations, RegisterModel()).verdict is Verdict.OK


@pytest.mark.parametrize("operations", BAD.values(), ids=BAD.keys())
def test_bad(operations: list[Operation]) -> None:
    result = check_wgl(operations, RegisterModel())
    assert result.verdict is Verdict.VIOLATED
    assert result.findings[0].kind is Kind.NOT_LINEARIZABLE


def test_an_exhausted_budget_is_unknown_never_ok() -> None:
    operations = [op(n, "put", 0, 100, f"v{n}") for n in range(14)]
    operations.append(op(14, "get", 101, 102, seen="never"))
    assert check_wgl(operations, RegisterModel(), steps_max=500).verdict is Verdict.UNKNOWN


def test_a_violation_on_one_key_outweighs_an_undecided_other() -> None:
    hard = [op(n, "put", 0, 100, f"v{n}", key="hard") for n in range(14)]
    hard.append(op(14, "get", 101, 102, seen="never", key="hard"))
    easy = [op(20, "put", 1, 2, "x", key="easy"), op(21, "get", 3, 4, seen=None, key="easy")]
    result = check_wgl(hard + easy, RegisterModel(), steps_max=2000)
    assert result.verdict is Verdict.VIOLATED


def test_thousands_of_operations() -> None:
    operations, _ = generate(Random(3), 5_000, keys=4, clients=5)
    assert check_wgl(operations, StoreModel()).verdict is Verdict.OK


def in_some_order(operations: Sequence[Operation]) -> bool:
    """Try every order of what was done, with any of the unknown: no cleverness at all."""
    sure = [each for each in operations if each.outcome is Outcome.OK]
    maybe = [each for each in operations if each.outcome is Outcome.UNKNOWN]
    model = RegisterModel()

    def explained(order: Sequence[Operation]) -> bool:
        state: str | None = model.initial()
        for place, each in enumerate(order):
            later = order[place + 1 :]
            if any(other.end is not None and other.end < each.start for other in later):
                return False
            state = model.step(state or "", each)
            if state is None:
                return False
        return True

    return any(
        explained(order)
        for count in range(len(maybe) + 1)
        for extra in itertools.combinations(maybe, count)
        for order in itertools.permutations([*sure, *extra])
    )


def tiny_history(rng: Random) -> list[Operation]:
    """Up to five overlapping operations on one register, with answers that may be right."""
    operations = []
    written: list[str | None] = [None]
    for number in range(rng.randrange(2, 6)):
        start = rng.randrange(1, 15)
        end = start + rng.randrange(0, 8)
        f = rng.choice(("put", "put", "get", "get", "cas"))
        old = rng.choice(written[-2:])
        if f == "get":
            operations.append(op(number, f, start, end, seen=old))
            continue
        value = f"v{number}"
        written.append(value)
        lost = rng.random() < 0.2
        if f == "put":
            operations.append(op(number, f, start, None if lost else end, value))
            continue
        applied = rng.random() < 0.7
        operations.append(
            op(
                *(number, f, start, None if lost else end, value),
                seen=None if applied or lost else rng.choice(written[:-1]),
                expected=old,
                applied=applied and not lost,
            )
        )
    return operations


def test_against_every_order() -> None:
    verdicts = []
    for seed in range(700):
        operations = tiny_history(Random(seed))
        wanted = in_some_order(operations)
        found = check_wgl(operations, RegisterModel()).verdict
        assert found is (Verdict.OK if wanted else Verdict.VIOLATED), (seed, operations)
        verdicts.append(wanted)
    assert 100 < sum(verdicts) < 600
