"""The state machine suite over the framework's own machines, and over machines that are wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consensus import BytesSnapshot, Entry, MethodMachine, Position, StateMachine, command, query
from consensus.testing import RecordingMachine, StateMachineContract


class Votes(MethodMachine):
    """A machine in memory, written the short way."""

    def __init__(self) -> None:
        self.votes: dict[str, int] = {}
        self.last_ms = 0

    @command
    def vote(self, name: str) -> int:
        self.votes[name] = self.votes.get(name, 0) + 1
        self.last_ms = self.entry.clock_ms
        return self.votes[name]

    @query
    def count(self, name: str) -> int:
        return self.votes.get(name, 0)


class TestMethodMachine(StateMachineContract):
    def make_machine(self, directory: Path) -> StateMachine:
        return Votes()

    def commands(self) -> list[bytes]:
        names = ["ann", "bob", "ann", "cas"]
        return [*(Votes.encode("vote", name=name) for name in names), b"not a call"]

    def queries(self) -> list[Any]:
        return [Votes.encode("count", name=name) for name in ("ann", "bob", "cas", "dan")]


class TestMemory(StateMachineContract):
    def make_machine(self, directory: Path) -> StateMachine:
        return RecordingMachine()

    def commands(self) -> list[bytes]:
        return [b"%d" % number for number in range(6)]

    def queries(self) -> list[Any]:
        return [None]


class TestDurable(TestMemory):
    def make_machine(self, directory: Path) -> StateMachine:
        return RecordingMachine(directory)


class BySet(RecordingMachine):
    """Wrong: its state depends on the order of a set."""

    def apply(self, entry: Entry) -> int:
        entries = {f"{entry.command!r}{letter}" for letter in "abcdefgh"}
        return super().apply(
            Entry(entry.term, entry.index, entry.clock_ms, "".join(entries).encode())
        )


class ByClock(RecordingMachine):
    """Wrong: it looks at the clock."""

    def apply(self, entry: Entry) -> int:
        return super().apply(
            Entry(entry.term, entry.index, entry.clock_ms, b"%d" % time.perf_counter_ns())
        )


class InPlace(RecordingMachine):
    """Wrong: it restores into the live state, step by step."""

    def restore_steps(self, chunks: Iterable[bytes], position: Position) -> Iterator[None]:
        self.commands = []
        self._save()
        yield
        data = b"".join(chunks)
        yield
        for text in json.loads(data):
            self.commands.append(bytes.fromhex(text))
            self._save()
            yield
        self._position = position
        self._save()


class Thawed(RecordingMachine):
    """Wrong: its snapshot shows what came later."""

    def snapshot(self) -> BytesSnapshot:
        machine = self

        class Late(BytesSnapshot):
            def chunks(self) -> Iterator[bytes]:
                yield b""
                yield from RecordingMachine.snapshot(machine).chunks()

        return Late(b"")


class Stubborn(RecordingMachine):
    """Wrong: it keeps its state when told to discard it."""

    def discard(self) -> None:
        self.discarded += 1


@pytest.mark.parametrize(
    ("machine", "durable", "test"),
    [
        (BySet, False, "test_hash_seeds_change_nothing"),
        (ByClock, False, "test_equal_logs_make_equal_machines"),
        (InPlace, False, "test_a_failed_restore_leaves_old_or_new"),
        (InPlace, True, "test_a_killed_restore_leaves_old_or_new"),
        (Thawed, False, "test_a_snapshot_is_frozen"),
        (Stubborn, True, "test_discarding_empties_it"),
    ],
)
def test_the_suite_finds_machines_that_are_wrong(
    tmp_path: Path, machine: type[RecordingMachine], durable: bool, test: str
) -> None:
    suite = globals()[f"Suite{machine.__name__}{'Durable' if durable else ''}"]()
    with pytest.raises(AssertionError):
        getattr(suite, test)(tmp_path)


def _suite(machine: type[RecordingMachine], durable: bool) -> type[StateMachineContract]:
    """A suite over a wrong machine, found by name from a child process and not run by pytest."""

    def make_machine(self: StateMachineContract, directory: Path) -> StateMachine:
        return machine(directory if durable else None)

    name = f"Suite{machine.__name__}{'Durable' if durable else ''}"
    return type(name, (TestMemory,), {"make_machine": make_machine, "__module__": __name__})


SuiteBySet = _suite(BySet, False)
SuiteByClock = _suite(ByClock, False)
SuiteInPlace = _suite(InPlace, False)
SuiteInPlaceDurable = _suite(InPlace, True)
SuiteThawed = _suite(Thawed, False)
SuiteStubbornDurable = _suite(Stubborn, True)
