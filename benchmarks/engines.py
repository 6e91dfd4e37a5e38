"""The engines alone: ``python -m benchmarks.engines``.

A group of real processes, a machine that only counts, and no etcd protocol in front: commands per
second with 1, 64 and 1000 proposals under way, proposed at the leader and at a follower.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

import attrs
import click
from rich.console import Console

from benchmarks.counts import counts
from benchmarks.figures import LoadResult, cpu_seconds
from benchmarks.interrupts import end_on_signals, held_back
from benchmarks.machine import ROOT, describe
from benchmarks.member import ENGINES
from benchmarks.tables import MARK, Sheet, number, one_line
from consensus.node import PROPOSE_TIMEOUT_S
from tests.interop import free_ports

WINDOWS: Final = "1,64,1000"
COMMAND_BYTES: Final = 256
READY_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.05
SETTLE_S: Final = 10.0
"""How much longer than its load a member may take to answer."""


class GroupFailed(Exception):
    """A member did not do its part; the text says why."""


@attrs.frozen(slots=True)
class EngineFigures:
    """One stretch of load on one engine.

    ``where`` is "leader", "follower", or "alone" in a group of one; ``cpu_us`` the CPU time of all
    members for each command, the proposer's own work included.
    """

    engine: str
    where: str
    window: int
    load: LoadResult
    cpu_us: float | None


class MemberProcess:
    """One member's process, and the conversation with it."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                start_new_session=True,
            )

    def ask(self, what: str, timeout_s: float = SETTLE_S, **details: float) -> dict[str, Any]:
        """Return the member's answer.

        Raises:
            GroupFailed: there was none in ``timeout_s`` seconds, or the process ended.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        timer = threading.Timer(timeout_s, self.process.kill)
        timer.daemon = True
        try:
            timer.start()
            self.process.stdin.write(json.dumps({"ask": what, **details}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            said = self._log.read_text(errors="replace").strip()[-2000:]
            raise GroupFailed(f"a member ended or did not answer in {timeout_s:g} s: {said}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process: by the end of its input, and for certain."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Group:
    """All members of a group on one engine. A context manager that starts and ends them."""

    def __init__(self, engine: str, directory: Path) -> None:
        size = ENGINES[engine].members
        names = [f"member{number}" for number in range(size)]
        addresses = ",".join(
            f"{name}=127.0.0.1:{port}" for name, port in zip(names, free_ports(size), strict=True)
        )
        self._commands = {
            name: [
                *(sys.executable, "-m", "benchmarks.member"),
                *(engine, name, addresses, str(directory / name)),
            ]
            for name in names
        }
        self._directory = directory
        self.members: list[MemberProcess] = []

    @property
    def pids(self) -> list[int]:
        """The members' process ids."""
        return [member.process.pid for member in self.members]

    def __enter__(self) -> Group:
        try:
            with held_back():
                for name, command in self._commands.items():
                    self.members.append(MemberProcess(command, self._directory / f"{name}.log"))
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every member."""
        for member in self.members:
            member.stop()

    def places(self) -> dict[str, MemberProcess]:
        """Return where to propose now: at the leader, and at a follower where there is one."""
        if len(self.members) == 1:
            return {"alone": self.members[0]}
        leads = {member.ask("status")["leads"]: member for member in self.members}
        if set(leads) != {True, False}:
            raise GroupFailed("the group has no leader any more")
        return {"leader": leads[True], "follower": leads[False]}

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not all(member.ask("status", READY_TIMEOUT_S)["ready"] for member in self.members):
            if time.monotonic() > deadline:
                raise GroupFailed(f"no leader within {READY_TIMEOUT_S:g} s")
            time.sleep(POLL_S)


def measure(
    engine: str, windows: Sequence[int], seconds: float, warmup_s: float, size: int, data: Path
) -> Iterator[EngineFigures]:
    """Measure one engine and yield the figures as they come.

    Raises:
        GroupFailed: a member ended or did not answer.
    """
    data.mkdir()
    with Group(engine, data) as group:
        for window in windows:
            for where, member in group.places().items():
                # The warm-up is a request of its own: CPU time is counted around the other alone.
                for length in (warmup_s, seconds):
                    before = cpu_seconds(group.pids)
                    answer = member.ask(
                        "load",
                        length + PROPOSE_TIMEOUT_S + SETTLE_S,
                        window=window,
                        seconds=length,
                        bytes=size,
                    )
                load, used_s = LoadResult(**answer), cpu_seconds(group.pids) - before
                cpu_us = used_s / load.operations * 1e6 if load.operations else None
                yield EngineFigures(engine, where, window, load, cpu_us)


def sheet_of(figures: Sequence[EngineFigures]) -> Sheet:
    """Return the table."""
    return Sheet(
        headings=(
            *("engine", "proposed at", "under way"),
            *("commands/s", "p50 ms", "p99 ms", "max ms", "CPU µs"),
        ),
        rows=tuple(
            (
                one.engine,
                one.where,
                f"{one.window}{f' {MARK}' if one.load.errors else ''}",
                number(one.load.rate, ",.0f"),
                number(one.load.p50_ms, ".2f"),
                number(one.load.p99_ms, ".2f"),
                number(one.load.max_ms, ".1f"),
                number(one.cpu_us, ",.0f"),
            )
            for one in figures
        ),
        texts=3,
        notes=tuple(
            f"{MARK} {one.engine} at {one.where}, {one.window} under way: {one.load.errors} "
            f"proposals failed, the first with: {one.load.first_error}"
            for one in figures
            if one.load.errors
        ),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--engine", "engines", type=click.Choice(list(ENGINES)), multiple=True, default=list(ENGINES)
)
@click.option("--windows", callback=counts, default=WINDOWS, help="Proposals under way.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=4.0, help="Of a measurement.")
@click.option("--warmup", type=click.FloatRange(min=0.1), default=1.0, help="Seconds before it.")
@click.option("--bytes", "size", type=click.IntRange(0, 1_000_000), default=COMMAND_BYTES)
@click.option("--json", "json_file", type=click.File("w", lazy=False), help="Write JSON here.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def main(
    engines: tuple[str, ...],
    windows: tuple[int, ...],
    seconds: float,
    warmup: float,
    size: int,
    json_file: TextIO | None,
    markdown: bool,
) -> None:
    """Measure consensus engines alone: commands per second at the leader and at a follower."""
    end_on_signals()
    progress = Console(stderr=True)
    machine = describe(Path(tempfile.gettempdir()))
    figures: list[EngineFigures] = []
    with tempfile.TemporaryDirectory(prefix="raftyard-bench-") as directory:
        for engine in dict.fromkeys(engines):
            try:
                for one in measure(
                    engine, windows, seconds, warmup, size, Path(directory) / engine
                ):
                    figures.append(one)
                    text = f"{engine:10} {one.where:8} {one.window:5} {one_line(one.load)}"
                    progress.print(text, markup=False, highlight=False, soft_wrap=True)
            except GroupFailed as error:
                raise click.ClickException(f"{engine}: {error}") from None
    about = f"{size} bytes a command, {seconds:g} s each; CPU of all members for each command"
    sheet = sheet_of(figures)
    sheet.show(about, markdown=markdown)
    if json_file is not None:
        settings = {"seconds": seconds, "warmup_s": warmup, "bytes": size}
        rows = [{**attrs.asdict(one), "rate": one.load.rate} for one in figures]
        json.dump({"machine": machine, "settings": settings, "rows": rows}, json_file, indent=1)


if __name__ == "__main__":
    main()
