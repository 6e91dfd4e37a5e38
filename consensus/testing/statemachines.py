"""StateMachineContract: the text of ``consensus.statemachine`` as tests.

Three methods say what to test; everything else follows from the contract. Some tests run the
machine in a process of its own, to kill it there or to give it another hash seed, so the test class
must be importable by its module's name (true for any test file that pytest can import).
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from consensus.engines.local import LocalEngine, LocalLog
from consensus.node import Node
from consensus.statemachine import SNAPSHOT_CHUNK_BYTES_MAX, StateMachine
from consensus.types import Entry, Position, Proposal, ProposalId

CHILD_TIMEOUT_S: Final = 60.0
KILLS_MAX: Final = 4
"""A restore is killed at so many of its steps; raising is tried at every step."""
STEPS_MAX: Final = 200

CLOCK_MS: Final = 1_700_000_000_000
TERM: Final = 3


def entries_of(commands: Sequence[bytes], first_index: int = 1) -> list[Entry]:
    """Return log entries for commands: one term, one second apart."""
    return [
        Entry(TERM, index, CLOCK_MS + 1000 * index, command)
        for index, command in enumerate(commands, first_index)
    ]


def position_of(entry: Entry) -> Position:
    """Where a machine stands that has applied ``entry``."""
    return Position(entry.index, entry.term, entry.clock_ms)


def chunks_of(machine: StateMachine) -> list[bytes]:
    """Return all chunks of a snapshot taken now, and release it."""
    frozen = machine.snapshot()
    try:
        return list(frozen.chunks())
    finally:
        frozen.release()


def restore(machine: StateMachine, chunks: Sequence[bytes], position: Position) -> None:
    """Restore in as many steps as the machine takes."""
    for _ in machine.restore_steps(chunks, position):
        pass


class Interrupted(Exception):
    """Raised by the suite in the middle of a restore."""


def failing_chunks(chunks: Sequence[bytes], good: int) -> Iterator[bytes]:
    """Yield ``good`` chunks, then raise: a snapshot file that turns out damaged."""
    yield from chunks[:good]
    raise Interrupted


class StateMachineContract(abc.ABC):
    """Run against a machine by subclassing."""

    @abc.abstractmethod
    def make_machine(self, directory: Path) -> StateMachine:
        """Return a machine; one that keeps state on disk keeps it in ``directory``, and finds there
        what an earlier one left."""

    @abc.abstractmethod
    def commands(self) -> list[bytes]:
        """Return at least four commands that together touch all of the state, errors included."""

    @abc.abstractmethod
    def queries(self) -> list[Any]:
        """Return requests whose answers show the state."""

    # -- determinism --------------------------------------------------------------------------

    def test_equal_logs_make_equal_machines(self, tmp_path: Path) -> None:
        """Two machines that apply the same entries have the same hash after each, and answers."""
        one = self.make_machine(_directory(tmp_path, "one"))
        two = self.make_machine(_directory(tmp_path, "two"))
        for entry in entries_of(self.commands()):
            one.apply_batch([entry])
            two.apply_batch([entry])
            assert one.state_hash() == two.state_hash(), f"they differ after {entry}"
        assert self._answers(one) == self._answers(two)
        one.close()
        two.close()

    def test_batches_change_nothing(self, tmp_path: Path) -> None:
        """All entries in one batch lead where one by one leads."""
        entries = entries_of(self.commands())
        one = self.make_machine(_directory(tmp_path, "one"))
        singly = [one.apply_batch([entry])[0] for entry in entries]
        many = self.make_machine(_directory(tmp_path, "many"))
        together = many.apply_batch(entries)
        assert len(together) == len(entries)
        assert [type(result) for result in together] == [type(result) for result in singly]
        assert one.state_hash() == many.state_hash()
        assert self._answers(one) == self._answers(many)
        one.close()
        many.close()

    def test_commands_change_the_state(self, tmp_path: Path) -> None:
        """The suite's own check: with commands that do nothing it could find nothing."""
        machine = self.make_machine(_directory(tmp_path, "machine"))
        empty = machine.state_hash()
        commands = self.commands()
        assert len(commands) >= 4, "give the suite at least four commands"
        seen = {empty}
        for entry in entries_of(commands):
            machine.apply_batch([entry])
            seen.add(machine.state_hash())
        assert len(seen) > len(commands) // 2, "most commands leave the state as it was"
        machine.close()

    def test_hash_seeds_change_nothing(self, tmp_path: Path) -> None:
        """The same log in two processes with different PYTHONHASHSEED leads to the same hash."""
        hashes = {
            seed: self._child("hash", _directory(tmp_path, f"seed{seed}"), seed=seed)
            for seed in ("1", "4242")
        }
        assert len(set(hashes.values())) == 1, f"state_hash by PYTHONHASHSEED: {hashes}"
        here = self.make_machine(_directory(tmp_path, "here"))
        here.apply_batch(entries_of(self.commands()))
        assert here.state_hash().hex() in hashes.values()
        here.close()

    def test_queries_change_nothing(self, tmp_path: Path) -> None:
        """Answering leaves the state as it was, and the same question has the same answer."""
        machine = self._full(tmp_path, "machine")
        before = machine.state_hash()
        first = self._answers(machine)
        assert self._answers(machine) == first
        assert machine.state_hash() == before
        machine.close()

    # -- snapshots ----------------------------------------------------------------------------

    def test_a_snapshot_restores_the_state(self, tmp_path: Path) -> None:
        """Into an empty machine and over another state alike; and it goes on equally from there."""
        source = self._full(tmp_path, "source")
        chunks = chunks_of(source)
        last = entries_of(self.commands())[-1]
        for name, applied in (("empty", 0), ("half", len(self.commands()) // 2)):
            target = self.make_machine(_directory(tmp_path, name))
            if applied:
                target.apply_batch(entries_of(self.commands()[:applied]))
            restore(target, chunks, position_of(last))
            assert target.state_hash() == source.state_hash()
            assert self._answers(target) == self._answers(source)
            if target.position().index:
                assert target.position() == position_of(last)
            more = entries_of(self.commands(), last.index + 1)
            ahead = self._full(tmp_path, f"ahead-of-{name}")
            ahead.apply_batch(more)
            target.apply_batch(more)
            assert target.state_hash() == ahead.state_hash()
            target.close()
            ahead.close()
        source.close()

    def test_a_snapshot_is_frozen(self, tmp_path: Path) -> None:
        """What is applied after it was taken is not in it, however late and often it is read."""
        commands = self.commands()
        half = len(commands) // 2
        machine = self.make_machine(_directory(tmp_path, "machine"))
        machine.apply_batch(entries_of(commands[:half]))
        before = machine.state_hash()
        frozen = machine.snapshot()
        pieces = frozen.chunks()
        first = next(pieces, b"")
        machine.apply_batch(entries_of(commands[half:], half + 1))
        chunks = [first, *pieces]
        assert b"".join(frozen.chunks()) == b"".join(chunks)
        frozen.release()
        target = self.make_machine(_directory(tmp_path, "target"))
        restore(target, chunks, position_of(entries_of(commands[:half])[-1]))
        assert target.state_hash() == before
        machine.close()
        target.close()

    def test_chunks_are_bounded(self, tmp_path: Path) -> None:
        """No chunk is so large that writing or sending it would hold the loop."""
        machine = self._full(tmp_path, "machine")
        assert max(map(len, chunks_of(machine)), default=0) <= SNAPSHOT_CHUNK_BYTES_MAX
        machine.close()

    # -- interrupted restores -----------------------------------------------------------------

    def test_a_failed_restore_leaves_old_or_new(self, tmp_path: Path) -> None:
        """A snapshot that breaks off, and a restore that is abandoned, at every step."""
        chunks, position, old, new = self._two_states(tmp_path)
        steps = self._count_steps(tmp_path, chunks, position)
        for kept in range(len(chunks) + 1):
            machine = self._old(tmp_path, f"raised{kept}")
            with contextlib.suppress(Interrupted):
                restore(machine, failing_chunks(chunks, kept), position)  # type: ignore[arg-type]
            self._check_old_or_new(machine, old, new, f"chunks end after {kept}")
        for stop in range(min(steps, STEPS_MAX)):
            machine = self._old(tmp_path, f"closed{stop}")
            under_way = machine.restore_steps(chunks, position)
            for _ in range(stop + 1):
                next(under_way, None)
            close = getattr(under_way, "close", None)
            if close is not None:
                close()
            self._check_old_or_new(machine, old, new, f"abandoned at step {stop + 1} of {steps}")

    def test_a_killed_restore_leaves_old_or_new(self, tmp_path: Path) -> None:
        """SIGKILL at a step of the restore; what the disk has then is one state or the other."""
        chunks, position, old, new = self._two_states(tmp_path)
        steps = self._count_steps(tmp_path, chunks, position)
        if not self._durable(tmp_path):
            pytest.skip("a machine in memory has nothing left after a kill")
        for number in sorted({steps * kill // KILLS_MAX for kill in range(KILLS_MAX + 1)}):
            directory = _directory(tmp_path, f"killed{number}")
            status = self._child(f"kill-restore-{number}", directory)
            assert status in ("killed", "done")
            machine = self.make_machine(directory)
            self._check_old_or_new(machine, old, new, f"killed at step {number} of {steps}")

    # -- durable machines ---------------------------------------------------------------------

    def test_a_durable_machine_is_a_prefix_of_its_log(self, tmp_path: Path) -> None:
        """Reopened, it stands at a position, with what the log up to there leads to."""
        if not self._durable(tmp_path):
            pytest.skip("not a durable machine")
        directory = _directory(tmp_path, "machine")
        machine = self.make_machine(directory)
        entries = entries_of(self.commands())
        machine.apply_batch(entries)
        machine.close()
        again = self.make_machine(directory)
        at = again.position()
        assert 0 < at.index <= len(entries)
        assert at == position_of(entries[at.index - 1])
        twin = self.make_machine(_directory(tmp_path, "twin"))
        twin.apply_batch(entries[: at.index])
        assert again.state_hash() == twin.state_hash()
        again.close()
        twin.close()

    def test_discarding_empties_it(self, tmp_path: Path) -> None:
        """Discarded, a machine is like new, at index 0, and stays so when opened again."""
        fresh = self.make_machine(_directory(tmp_path, "fresh"))
        directory = _directory(tmp_path, "machine")
        machine = self.make_machine(directory)
        machine.apply_batch(entries_of(self.commands()))
        durable = machine.position().index > 0
        machine.discard()
        assert machine.position() == Position()
        if durable:
            assert machine.state_hash() == fresh.state_hash()
            machine.close()
            machine = self.make_machine(directory)
            assert machine.position() == Position()
            assert machine.state_hash() == fresh.state_hash()
        machine.close()
        fresh.close()

    @pytest.mark.parametrize("case", ["same log", "another term", "a shorter log", "another group"])
    def test_the_log_decides(self, tmp_path: Path, case: str) -> None:
        """After a restart over any log the machine is what that log leads to, and nothing else."""
        directory = _directory(tmp_path, "machine")
        machine = self.make_machine(directory)
        entries = entries_of(self.commands())
        machine.apply_batch(entries)
        machine.close()
        kept = len(entries) - 1 if case == "a shorter log" else len(entries)
        log = LocalLog(group_id=9 if case == "another group" else 0)
        log.term = TERM + 1 if case == "another term" else TERM
        log.append(
            [
                Proposal(ProposalId(1, 1, entry.index), entry.clock_ms, entry.command)
                for entry in entries[:kept]
            ]
        )
        expected = self.make_machine(_directory(tmp_path, "expected"))
        for entry in entries[:kept]:
            expected.apply_batch([Entry(log.term, entry.index, entry.clock_ms, entry.command)])
        wanted = expected.state_hash()
        expected.close()

        async def run() -> None:
            again = self.make_machine(directory)
            async with Node(again, LocalEngine("one", log)) as node:
                assert node.status().applied_index == kept
                assert again.state_hash() == wanted

        asyncio.run(run())

    # -- inside -------------------------------------------------------------------------------

    def _answers(self, machine: StateMachine) -> list[Any]:
        return [machine.query(request) for request in self.queries()]

    def _full(self, tmp_path: Path, name: str) -> StateMachine:
        machine = self.make_machine(_directory(tmp_path, name))
        machine.apply_batch(entries_of(self.commands()))
        return machine

    def _old(self, tmp_path: Path, name: str) -> StateMachine:
        machine = self.make_machine(_directory(tmp_path, name))
        machine.apply_batch(entries_of(self.commands()[:1]))
        return machine

    def _two_states(self, tmp_path: Path) -> tuple[list[bytes], Position, bytes, bytes]:
        """Return a snapshot of all commands with its position, and the hashes of old and new."""
        old = self._old(tmp_path, "old")
        new = self._full(tmp_path, "new")
        hashes = old.state_hash(), new.state_hash()
        assert hashes[0] != hashes[1]
        chunks = chunks_of(new)
        old.close()
        new.close()
        return chunks, position_of(entries_of(self.commands())[-1]), *hashes

    def _count_steps(self, tmp_path: Path, chunks: list[bytes], position: Position) -> int:
        machine = self._old(tmp_path, "counted")
        steps = sum(1 for _ in machine.restore_steps(chunks, position))
        machine.close()
        return steps

    def _durable(self, tmp_path: Path) -> bool:
        machine = self._full(tmp_path, "is-durable")
        durable = machine.position().index > 0
        machine.close()
        return durable

    def _check_old_or_new(self, machine: StateMachine, old: bytes, new: bytes, when: str) -> None:
        found = machine.state_hash()
        at = machine.position()
        machine.close()
        assert found in (old, new), f"{when}: neither the old state nor the new"
        if at.index:
            wanted = 1 if found == old else len(self.commands())
            assert at.index == wanted, f"{when}: position {at} does not belong to the state"

    def _child(self, task: str, directory: Path, seed: str = "0") -> str:
        """Run a task of ``run_child`` in a process of its own and return what it says."""
        kind = type(self)
        code = (
            "from consensus.testing.statemachines import run_child;"
            f"run_child({kind.__module__!r}, {kind.__qualname__!r}, {task!r}, {str(directory)!r})"
        )
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
        if done.returncode == -signal.SIGKILL:
            return "killed"
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]


def _directory(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir(exist_ok=True)
    return path


def run_child(module: str, qualname: str, task: str, directory: str) -> None:
    """Do one task of the suite in this process, and print what came of it."""
    import importlib

    kind: Any = importlib.import_module(module)
    for part in qualname.split("."):
        kind = getattr(kind, part)
    suite: StateMachineContract = kind()
    if task == "hash":
        machine = suite.make_machine(Path(directory))
        machine.apply_batch(entries_of(suite.commands()))
        print(machine.state_hash().hex())
        machine.close()
        return
    number = int(task.removeprefix("kill-restore-"))
    source = suite.make_machine(_directory(Path(directory).parent, f"source-of-{number}"))
    entries = entries_of(suite.commands())
    source.apply_batch(entries)
    chunks = chunks_of(source)
    source.close()
    machine = suite.make_machine(Path(directory))
    machine.apply_batch(entries[:1])
    machine.close()  # the old state is safely on disk
    machine = suite.make_machine(Path(directory))
    for step, _ in enumerate(machine.restore_steps(chunks, position_of(entries[-1]))):
        if step == number:
            os.kill(os.getpid(), signal.SIGKILL)
    machine.close()
    print("done")
