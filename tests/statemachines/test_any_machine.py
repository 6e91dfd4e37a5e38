"""What holds for every machine: no input breaks it, and no member differs from another."""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import Entry, Handle, MethodMachine, Node, Refused
from consensus.engines.local import LocalEngine, LocalLog
from statemachines import (
    Counter,
    Elections,
    Locks,
    Map,
    Queue,
    Register,
    Scheduler,
    Semaphores,
    ServiceRegistry,
    tick_while_leading,
)
from statemachines.timed import Deadlines
from tests.statemachines.driver import Driver, refused
from tests.waiting import wait_until

MACHINES = [
    Counter,
    Elections,
    Locks,
    Map,
    Queue,
    Register,
    Scheduler,
    Semaphores,
    ServiceRegistry,
]

ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.integers(),
    st.floats(),
    st.sampled_from(["a", "b", "", "\ud800", "x" * 300]),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
)


def calls(machine: type[MethodMachine]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """Calls of the machine's own methods with arguments that may be anything."""
    methods = sorted(name for name, _ in inspect.getmembers(machine) if machine.kind(name))
    return st.sampled_from(methods).flatmap(
        lambda method: st.tuples(
            st.just(method),
            st.fixed_dictionaries(
                {},
                optional={
                    name: ANY
                    for name in inspect.signature(getattr(machine, method)).parameters
                    if name != "self"
                },
            ),
        )
    )


@pytest.mark.parametrize("machine", MACHINES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_command_breaks_it_and_a_restored_member_agrees(
    machine: type[MethodMachine], data: st.DataObject
) -> None:
    driver = Driver(machine)
    for method, arguments in data.draw(st.lists(calls(machine), max_size=25)):
        if machine.kind(method) == "query":
            driver.ask(method, **arguments)
        else:
            before = driver.machine.state_hash()
            if refused(driver.do(method, **arguments)):
                assert driver.machine.state_hash() == before  # time stands still here
        driver.check()
    driver.restart()


@pytest.mark.parametrize("machine", MACHINES)
@settings(max_examples=30, deadline=None)
@given(command=st.binary(max_size=60))
def test_bytes_that_are_no_call_are_refused(machine: type[MethodMachine], command: bytes) -> None:
    assert refused(machine().apply(Entry(1, 1, 1, command)))
    assert refused(machine().query(command))


@pytest.mark.parametrize("machine", MACHINES)
def test_a_snapshot_of_another_machine_or_a_cut_one_is_refused(
    machine: type[MethodMachine],
) -> None:
    name = json.dumps(machine.__name__).encode()
    for data in (b"", b'["Other",1]\n', b"[" + name + b",2]\n", b"[" + name + b",1]"):
        with pytest.raises(ValueError, match="snapshot"):
            machine().restore(data)


@pytest.mark.parametrize("machine", MACHINES)
def test_its_docstring_shows_an_example_and_says_what_is_guaranteed(
    machine: type[MethodMachine],
) -> None:
    text = inspect.getdoc(machine) or ""
    assert f"async with Node({machine.__name__}(), engine) as node:" in text
    assert "Guarantees:" in text


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.one_of(st.none(), st.integers(0, 30))), max_size=300
    )
)
def test_deadlines_against_a_dictionary(steps: list[tuple[str, int | None]]) -> None:
    deadlines = Deadlines()
    model: dict[tuple[str, ...], int] = {}
    for name, deadline_ms in steps:
        if deadline_ms is None:
            deadlines.cancel((name,))
            model.pop((name,), None)
        else:
            deadlines.set((name,), deadline_ms)
            model[(name,)] = deadline_ms
        assert len(deadlines) == len(model)
        assert deadlines.next_ms() == min(model.values(), default=None)
    due = [key for _, key in sorted((ms, key) for key, ms in model.items()) if model[key] <= 15]
    assert list(deadlines.pop_due(15)) == due
    assert deadlines.next_ms() == min((ms for ms in model.values() if ms > 15), default=None)


async def test_a_leaders_ticks_end_a_lock_that_nobody_asks_about() -> None:
    shared = LocalLog()
    nodes = [Node(Locks(), LocalEngine(f"n{number}", shared)) for number in range(3)]
    for node in nodes:
        await node.start()
    tickers = [asyncio.create_task(tick_while_leading(node, Locks, 0.01)) for node in nodes]
    try:
        locks = Handle(nodes[1], Locks)
        await locks.acquire(name="l", owner="a", ttl_ms=50)
        assert (await locks.holder(name="l"))["owner"] == "a"

        async def free() -> bool:
            return await locks.holder(name="l") is None

        await wait_until(free)
        assert shared.last_index == 2  # one acquire, one tick: nothing due, nothing proposed
        await nodes[0].stop()
        await locks.acquire(name="l", owner="b", ttl_ms=50)
        await wait_until(free, what="the next leader ticks")
    finally:
        for ticker in tickers:
            ticker.cancel()
        await asyncio.gather(*tickers, return_exceptions=True)
        for node in nodes:
            await node.stop()


async def test_a_handle_raises_what_the_machine_refuses_and_knows_its_methods() -> None:
    async with Node(Locks(), LocalEngine()) as node:
        locks = Handle(node, Locks)
        with pytest.raises(Refused, match="ttl_ms must be between 1 and"):
            await locks.acquire(name="l", owner="a", ttl_ms=0)
        with pytest.raises(TypeError, match="missing a required argument: 'owner'"):
            await locks.acquire(name="l", ttl_ms=1)
        with pytest.raises(AttributeError, match="Locks has no command or query 'take'"):
            await locks.take(name="l")
