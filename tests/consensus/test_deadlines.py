"""Deadlines on one timer: they come in order, once, and never when cancelled."""

from __future__ import annotations

import asyncio

from consensus.deadlines import CANCELLED_KEPT_MAX, Deadlines
from tests.waiting import wait_until


async def test_deadlines_come_in_their_order_whatever_order_they_were_added_in() -> None:
    deadlines = Deadlines()
    came: list[float] = []
    for delay_s in (0.03, 0.01, 0.05, 0.0, 0.02, 0.04, 0.01):
        deadlines.add(delay_s, lambda delay_s=delay_s: came.append(delay_s))
    await wait_until(lambda: len(came) == 7)
    assert came == sorted(came)
    assert len(deadlines) == 0


async def test_a_deadline_does_not_come_early() -> None:
    deadlines = Deadlines()
    loop = asyncio.get_running_loop()
    came: list[float] = []
    due = loop.time() + 0.05
    deadlines.add(0.05, lambda: came.append(loop.time()))
    await wait_until(lambda: bool(came))
    assert came[0] >= due - 0.002, "one tick of the loop's own clock"


async def test_one_that_is_cancelled_does_not_come_and_those_behind_it_do() -> None:
    deadlines = Deadlines()
    came: list[str] = []
    first = deadlines.add(0.0, lambda: came.append("first"))
    deadlines.add(0.01, lambda: came.append("second"))
    first.cancel()
    first.cancel()
    await wait_until(lambda: bool(came))
    assert came == ["second"]


async def test_one_may_cancel_another_and_add_a_third() -> None:
    deadlines = Deadlines()
    came: list[str] = []

    def first() -> None:
        came.append("first")
        second.cancel()
        deadlines.add(0.0, lambda: came.append("third"))

    deadlines.add(0.0, first)
    second = deadlines.add(0.0, lambda: came.append("second"))
    await wait_until(lambda: "third" in came)
    assert came == ["first", "third"]


async def test_a_call_that_raises_does_not_keep_the_others() -> None:
    deadlines = Deadlines()
    came: list[str] = []
    failures: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def fail() -> None:
        raise RuntimeError("a bug")

    deadlines.add(0.0, fail)
    deadlines.add(0.0, lambda: came.append("second"))
    await wait_until(lambda: bool(came))
    assert [str(failure) for failure in failures] == ["a bug"]


async def test_cancelled_deadlines_do_not_pile_up() -> None:
    deadlines = Deadlines()
    kept = [deadlines.add(60.0, lambda: None) for _ in range(10)]
    for _ in range(5 * CANCELLED_KEPT_MAX):
        deadlines.add(60.0, lambda: None).cancel()
    assert len(deadlines) <= CANCELLED_KEPT_MAX + len(kept) + 1
    for deadline in kept:
        deadline.cancel()
