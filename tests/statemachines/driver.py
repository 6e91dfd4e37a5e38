"""Drives a machine as a node would, beside a twin that is restored from snapshots now and then.

Members of a group differ in one way only: some applied every command, some were restored on the
way. So each answer and each state is compared with the twin's at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consensus import Entry, MethodMachine, Position, StateMachine
from consensus.methods import encode_call

START_MS = 1_000_000
PIECE_BYTES = 7

STATEFUL = settings(max_examples=40, stateful_step_count=40, deadline=None)


def pieces(data: bytes, size: int = PIECE_BYTES) -> Iterator[bytes]:
    """Cut ``data`` where no line or record ends."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def snapshot_bytes(machine: StateMachine) -> bytes:
    """The machine's whole snapshot."""
    frozen = machine.snapshot()
    try:
        return b"".join(frozen.chunks())
    finally:
        frozen.release()


class Driver:
    """A machine with a clock and a log index of its own, and its twin."""

    def __init__(self, make: Callable[[], StateMachine]) -> None:
        self._make = make
        self.machine = make()
        self._twin = make()
        self.index = 0
        self.clock_ms = START_MS

    def apply(self, command: bytes) -> Any:
        """Apply one entry to both and return the answer that both gave."""
        self.index += 1
        entry = Entry(1, self.index, self.clock_ms, command)
        result = self.machine.apply(entry)
        assert self._twin.apply(entry) == result
        return result

    def do(self, method: str, /, **arguments: Any) -> Any:
        """Run a command of a method machine; the result may be a refusal."""
        return self.apply(encode_call(method, arguments))

    def ask(self, method: str, /, **arguments: Any) -> Any:
        """Run a query of a method machine."""
        request = encode_call(method, arguments)
        result = self.machine.query(request)
        assert self._twin.query(request) == result
        return result

    def restart(self) -> None:
        """Replace the twin with a new one, restored in small pieces from the other's snapshot."""
        self._twin = self._make()
        frozen = snapshot_bytes(self.machine)
        for _ in self._twin.restore_steps(pieces(frozen), Position(self.index, 1, self.clock_ms)):
            pass
        self.check()

    def check(self) -> None:
        """Both are in the same state."""
        assert self._twin.state_hash() == self.machine.state_hash()


class MachineRules(RuleBasedStateMachine):
    """Base of stateful tests: time passes, the twin restarts, states stay equal."""

    machine: type[MethodMachine]

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver(self.machine)
        self.do = self.driver.do
        self.ask = self.driver.ask

    @property
    def now_ms(self) -> int:
        """The clock of the next entry."""
        return self.driver.clock_ms

    @rule(ms=st.integers(0, 12))
    def pass_time(self, ms: int) -> None:
        self.driver.clock_ms += ms

    @rule()
    def restart(self) -> None:
        self.driver.restart()

    @invariant()
    def twins_agree(self) -> None:
        self.driver.check()


def refused(result: Any) -> bool:
    """Whether a result is a refusal."""
    return isinstance(result, dict) and result.keys() == {"refused"}
