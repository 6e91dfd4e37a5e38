"""Alternating rounds: the same load on one system, then on the other, then on the first again.

A cell is (client, operation, callers). In each round each cell is measured on every system, one
right after the other, and the order turns around from round to round, so that what else the machine
does in those minutes falls on all of them alike. Every measurement has a cluster of its own, fresh
and filled with the same keys: nothing of the other system runs beside it, and the longest gap of
the event loop "since start" belongs to that measurement alone.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import attrs

from benchmarks.figures import LoadResult, cpu_seconds
from benchmarks.interrupts import held_back
from benchmarks.load import CALL_TIMEOUT_S, key_of
from benchmarks.machine import ROOT
from tests.clusters import Cluster, Program, tail

MEASURING: Final = "measuring"
"""The line with which a generator says that its warm-up is over."""

START_TIMEOUT_S: Final = 20.0
FILL_TXN_PUTS: Final = 100
"""etcd takes at most 128 operations in a transaction."""

HTTP_TIMEOUT_S: Final = 10.0
GAP_METRIC: Final = "raftyard_event_loop_gap_max_seconds"
ERROR_BYTES_MAX: Final = 2000


class BenchmarkFailed(Exception):
    """A measurement could not be made; the text says why."""


@attrs.frozen(slots=True)
class Client:
    """A load generator: its name in reports and how it is called."""

    name: str
    command: tuple[str, ...]
    option: str
    """How its options begin: "--" or, as Go has it, "-"."""

    @classmethod
    def python(cls) -> Client:
        """``kvstore.client``, in a process of its own."""
        return cls("python", (sys.executable, "-m", "benchmarks.load"), "--")

    @classmethod
    def go(cls) -> Client | None:
        """etcd's own Go client; None where it was not built."""
        binary = ROOT / ".setup" / "bin" / "load"
        return cls("go", (str(binary),), "-") if binary.exists() else None


@attrs.frozen(slots=True)
class Cell:
    """One kind of load."""

    client: Client
    operation: str
    callers: int


@attrs.frozen(slots=True)
class Settings:
    """What all measurements of a run share."""

    warmup_s: float
    seconds: float
    keys: int
    value_bytes: int
    members: int = 3


@attrs.frozen(slots=True)
class Measurement:
    """One cell on one system in one round.

    ``server_cpu_s`` is the CPU time of all members together while the load was measured.
    ``loop_gap_s`` is the longest time that any member's event loop was away from its timers since
    that member started (None for a system that does not tell).
    """

    round: int
    system: str
    client: str
    operation: str
    callers: int
    load: LoadResult
    server_cpu_s: float
    loop_gap_s: float | None

    @property
    def cpu_us(self) -> float | None:
        """Microseconds of server CPU for each successful operation."""
        done = self.load.operations
        return self.server_cpu_s / done * 1e6 if done else None


def run_rounds(
    programs: Sequence[Program],
    cells: Sequence[Cell],
    rounds: int,
    settings: Settings,
    directory: Path,
) -> Iterator[Measurement]:
    """Measure every cell on every program ``rounds`` times, and yield each figure as it comes.

    Raises:
        BenchmarkFailed: a server or a generator did not do its part.
    """
    for number in range(1, rounds + 1):
        for cell in cells:
            for program in in_turn(programs, number):
                yield measure(number, program, cell, settings, directory)


def in_turn(programs: Sequence[Program], number: int) -> list[Program]:
    """Return the programs in the order of round ``number``: the even ones turn it around."""
    return list(programs) if number % 2 else list(reversed(programs))


def measure(
    number: int, program: Program, cell: Cell, settings: Settings, directory: Path
) -> Measurement:
    """Start a cluster, fill it, put the load on it, look at it, and end it."""
    with fresh_cluster(program, settings.members, directory) as cluster:
        fill(cluster.endpoints[0], settings)
        load, cpu_s = run_load(cell, cluster, settings)
        gap_s = longest_gap(cluster)
    return Measurement(
        round=number,
        system=program.name,
        client=cell.client.name,
        operation=cell.operation,
        callers=cell.callers,
        load=load,
        server_cpu_s=cpu_s,
        loop_gap_s=gap_s,
    )


@contextlib.contextmanager
def fresh_cluster(program: Program, size: int, directory: Path) -> Iterator[Cluster]:
    """A cluster for one measurement, healthy, with data of its own below ``directory``.

    Raises:
        BenchmarkFailed: a member did not start.
    """
    with tempfile.TemporaryDirectory(dir=directory, prefix="round-") as data:
        cluster = Cluster(program, Path(data), size=size)
        try:
            start(cluster)
            yield cluster
        finally:
            # Without ceremony: the data is thrown away, and a polite etcd takes seconds.
            for member in cluster.members:
                cluster.kill(member)


def start(cluster: Cluster) -> None:
    """Start every member and wait until each is healthy.

    Raises:
        BenchmarkFailed: one is not; the text has its log's end.
    """
    with held_back():
        for member in cluster.members:
            cluster.launch(member)
    try:
        cluster.wait_ready()
    except RuntimeError as error:
        raise BenchmarkFailed(str(error)) from None


def fill(endpoint: str, settings: Settings) -> None:
    """Put every key once, in transactions through the JSON gateway that both systems have."""
    value = encoded(b"v" * settings.value_bytes)
    for first in range(0, settings.keys, FILL_TXN_PUTS):
        numbers = range(first, min(first + FILL_TXN_PUTS, settings.keys))
        puts = [
            {"requestPut": {"key": encoded(key_of(number).encode()), "value": value}}
            for number in numbers
        ]
        request = urllib.request.Request(
            f"http://{endpoint}/v3/kv/txn",
            json.dumps({"success": puts}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as answer:
                answer.read()
        except (urllib.error.URLError, OSError) as error:
            raise BenchmarkFailed(f"filling {endpoint} failed: {error}") from None


def encoded(data: bytes) -> str:
    """Return bytes as the JSON gateway takes them."""
    return base64.b64encode(data).decode()


def run_load(cell: Cell, cluster: Cluster, settings: Settings) -> tuple[LoadResult, float]:
    """Run a generator against the cluster; return its figures and the servers' CPU seconds."""
    options = {
        "endpoints": ",".join(cluster.endpoints),
        "operation": cell.operation,
        "callers": cell.callers,
        "warmup": settings.warmup_s,
        "seconds": settings.seconds,
        "keys": settings.keys,
        "value": settings.value_bytes,
    }
    limit_s = START_TIMEOUT_S + settings.warmup_s + settings.seconds + 2 * CALL_TIMEOUT_S
    result, used_s = generate(cell.client, options, cluster, limit_s)
    return LoadResult(**result), used_s


def generate(
    client: Client, options: Mapping[str, object], cluster: Cluster, limit_s: float
) -> tuple[dict[str, Any], float]:
    """Run a load generator to its end; return its report and the servers' CPU seconds meanwhile.

    Args:
        client: the generator.
        options: its options' names and values.
        cluster: whose CPU time counts, from the end of the warm-up on.
        limit_s: after so many seconds it is killed.

    Raises:
        BenchmarkFailed: the generator or a server ended; the text has its last words.
    """
    command = list(client.command)
    for name, value in options.items():
        command += [f"{client.option}{name}", str(value)]
    pids = [member.process.pid for member in cluster.members if member.process is not None]
    with tempfile.TemporaryFile() as errors, generator(command, errors, limit_s) as process:
        assert process.stdout is not None
        read_line(process.stdout, errors, lambda text: text == MEASURING)
        try:
            before = cpu_seconds(pids)
            result = read_line(process.stdout, errors, lambda text: text.startswith("{"))
            used = cpu_seconds(pids) - before
        except FileNotFoundError:
            raise BenchmarkFailed("a server ended under load") from None
    for member in cluster.members:
        if not member.running:
            raise BenchmarkFailed(f"{member.name} ended under load:\n{tail(member)}")
    return json.loads(result), used


@contextlib.contextmanager
def generator(
    command: Sequence[str], errors: IO[bytes], limit_s: float
) -> Iterator[subprocess.Popen[str]]:
    """A load generator, in its own session so that Ctrl-C reaches only us, and ended for certain.

    Args:
        errors: a file for what it says on standard error.
        limit_s: after so many seconds it is killed.
    """
    with contextlib.ExitStack() as stack:
        with held_back():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                start_new_session=True,
            )
            stack.callback(end, process)
        timer = threading.Timer(limit_s, process.kill)
        timer.daemon = True
        stack.callback(timer.cancel)
        timer.start()
        yield process


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and take its last word."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def read_line(source: IO[str], errors: IO[bytes], expected: Callable[[str], bool]) -> str:
    """Return the generator's next line.

    Raises:
        BenchmarkFailed: it is not what is expected, or the generator ended; with its last words.
    """
    line = source.readline().strip()
    if not expected(line):
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()[-ERROR_BYTES_MAX:]
        raise BenchmarkFailed(f"the load generator failed: {said or line or 'it took too long'}")
    return line


def longest_gap(cluster: Cluster) -> float | None:
    """Return the longest event loop gap of any member since its start, in seconds, if they tell."""
    gaps = [gap for gap in map(loop_gap, cluster.endpoints) if gap is not None]
    return max(gaps, default=None)


def loop_gap(endpoint: str) -> float | None:
    """Return a member's longest event loop gap since its start, in seconds; None without one.

    The gauge of the last 30 to 60 s would do for a long round only: it cannot be reset, and a
    round is shorter than its window.
    """
    try:
        with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=HTTP_TIMEOUT_S) as answer:
            page = answer.read().decode()
    except (urllib.error.URLError, OSError) as error:
        raise BenchmarkFailed(f"reading {endpoint}/metrics failed: {error}") from None
    for line in page.splitlines():
        name, _, value = line.partition(" ")
        if name == GAP_METRIC:
            return float(value)
    return None
