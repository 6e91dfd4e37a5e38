"""The register and the counter against plain variables."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from statemachines import Counter, Register
from statemachines.counter import COUNT_MAX
from statemachines.register import VALUE_BYTES_MAX
from tests.statemachines.driver import STATEFUL, Driver, MachineRules, refused

VALUES = st.sampled_from([None, True, 1, 1.0, "1", [1], {"a": [1, None]}, {}])


def same(left: Any, right: Any) -> bool:
    """JSON equality: Python takes 1, 1.0 and True for equal."""
    return repr(left) == repr(right)


class RegisterRules(MachineRules):
    machine = Register

    def __init__(self) -> None:
        super().__init__()
        self.value: Any = None
        self.version = 0

    @rule(value=VALUES)
    def write(self, value: Any) -> None:
        self.value = value
        self.version += 1
        assert self.do("write", value=value) == {"version": self.version}

    @rule(expected=VALUES, value=VALUES)
    def compare_and_set(self, expected: Any, value: Any) -> None:
        succeeded = same(expected, self.value)
        if succeeded:
            self.value = value
            self.version += 1
        answer = self.do("compare_and_set", expected=expected, value=value)
        assert answer["succeeded"] is succeeded
        assert same(answer["value"], self.value)

    @rule()
    def read(self) -> None:
        answer = self.ask("read")
        assert same(answer["value"], self.value)
        assert answer["version"] == self.version


class CounterRules(MachineRules):
    machine = Counter

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @rule(amount=st.one_of(st.integers(-9, 9), st.integers(-COUNT_MAX, COUNT_MAX)))
    def add(self, amount: int) -> None:
        answer = self.do("add", amount=amount)
        if abs(self.count + amount) > COUNT_MAX:
            assert refused(answer)
        else:
            self.count += amount
            assert answer == self.count

    @rule()
    def read(self) -> None:
        assert self.ask("read") == self.count


TestRegister = RegisterRules.TestCase
TestRegister.settings = STATEFUL
TestCounter = CounterRules.TestCase
TestCounter.settings = STATEFUL


def test_register_refuses_a_value_over_its_bound() -> None:
    driver = Driver(Register)
    assert driver.do("write", value="x" * (VALUE_BYTES_MAX - 2)) == {"version": 1}
    assert refused(driver.do("write", value="x" * (VALUE_BYTES_MAX - 1)))
    assert driver.ask("read")["version"] == 1


def test_a_reader_cannot_reach_into_the_register_through_its_answer() -> None:
    driver = Driver(Register)
    driver.do("write", value=[1])
    driver.machine.query(Register.encode("read"))["value"].append(2)
    driver.check()


@pytest.mark.parametrize("amount", ["1", True, None, 1.5, [1], 2**70])
def test_counter_refuses_what_is_no_amount(amount: Any) -> None:
    driver = Driver(Counter)
    answer = driver.do("add", amount=amount)
    assert refused(answer)
    assert "amount" in answer["refused"]
    assert driver.ask("read") == 0
