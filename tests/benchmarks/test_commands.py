"""Each benchmark command runs on real processes, in a tiny mode, and its figures make sense."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop import SETUP_BIN, require_program, unavailable
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.xdist_group("benchmarks")

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ("python", "go")
TIMEOUT_S = 100.0


def environment(directory: Path, path: str | None = None) -> dict[str, str]:
    """The environment of a command that keeps its data below ``directory``."""
    return {**os.environ, "TMPDIR": str(directory), "PATH": path or os.environ["PATH"]}


def command(module: str, *options: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{module}", *options]


def run(directory: Path, module: str, *options: str, path: str | None = None) -> dict[str, Any]:
    """Run a benchmark and return what it wrote as JSON."""
    out = directory / "out.json"
    done = subprocess.run(
        command(module, *options, "--json", str(out)),
        env=environment(directory, path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert users_of(directory) == []
    report: dict[str, Any] = {"stdout": done.stdout, "stderr": done.stderr}
    return report | json.loads(out.read_text())


def users_of(directory: Path) -> list[str]:
    """Command lines of living processes that name ``directory``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it ended meanwhile
            if str(directory) in line:
                found.append(line)
    return found


@pytest.mark.interop
def test_side_by_side_with_both_clients(tmp_path: Path) -> None:
    require_program("etcd")
    if not (SETUP_BIN / "load").exists():
        unavailable("the Go load generator is not built; `make setup` tries to build it")
    options = ("--rounds", "1", "--seconds", "0.3", "--warmup", "0.1", "--callers", "8")
    report = run(tmp_path, "sidebyside", *options, "--operation", "put")
    order = [(one["client"], one["system"]) for one in report["measurements"]]
    assert order == [(client, name) for client in CLIENTS for name in ("kvstore", "etcd")]
    for one in report["measurements"]:
        load = one["load"]
        assert load["operations"] > 0
        assert load["errors"] == 0, load["first_error"]
        assert 0 < load["p50_ms"] <= load["p99_ms"] <= load["max_ms"]
        assert 0.25 < load["seconds"] < 5
        assert one["server_cpu_s"] > 0
        assert (one["loop_gap_s"] is not None) == (one["system"] == "kvstore")
    assert [row["client"] for row in report["rows"]] == list(CLIENTS)
    for row in report["rows"]:
        assert row["rate_ratio"] > 0
        assert row["p50_ratio"] > 0
        assert row["cpu_ratio"] > 0
        assert row["loop_gap_worst_ms"] >= row["loop_gap_ms"] > 0
    assert "cores" in report["machine"]["CPU"]
    assert "[  4/4," in report["stderr"]


def test_side_by_side_without_etcd_reads_from_kvstore_alone(tmp_path: Path) -> None:
    empty = tmp_path / "path"
    empty.mkdir()
    for name in ("stat", "git"):
        program = shutil.which(name)
        if program is not None:
            (empty / name).symlink_to(program)
    options = ("--quick", "--client", "python", "--seconds", "0.3", "--warmup", "0.1")
    reads = ("--operation", "get", "--operation", "serializable", "--callers", "4")
    report = run(tmp_path, "sidebyside", *options, *reads, "--markdown", path=str(empty))
    assert "etcd is not on PATH" in report["stderr"]
    assert [(row["operation"], row["callers"]) for row in report["rows"]] == [
        ("get", 4),
        ("serializable", 4),
    ]
    for row in report["rows"]:
        assert row["ours"]["operations"] > 0
        assert row["ours"]["errors"] == 0
        assert row["rate_ratio"] is None
    assert "| python | get | 4 | kvstore |" in report["stdout"]


def children(pid: int) -> list[int]:
    """Process ids of a living process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def side_by_side_for_long(directory: Path) -> subprocess.Popen[bytes]:
    """Start a benchmark that would take minutes."""
    return subprocess.Popen(
        command("sidebyside", "--client", "python", "--callers", "2", "--seconds", "60"),
        env=environment(directory),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("how", "processes"),
    [
        pytest.param(signal.SIGINT, 4, id="Ctrl-C while the servers start"),
        pytest.param(signal.SIGTERM, 5, id="SIGTERM while the generator runs"),
    ],
)
def test_interrupted_it_leaves_no_process(
    tmp_path: Path, how: signal.Signals, processes: int
) -> None:
    """``processes`` are the servers, the generator, and the guardian."""
    started: list[int] = []
    with side_by_side_for_long(tmp_path) as process:
        try:
            wait_until_sync(lambda: len(users_of(tmp_path)) == 3, 30, "three servers")
            wait_until_sync(
                lambda: len(children(process.pid)) == processes, 30, f"{processes} processes"
            )
            started = children(process.pid)
            process.send_signal(how)
            assert process.wait(30) != 0
            assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
        finally:
            process.kill()
            for pid in started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    with side_by_side_for_long(tmp_path) as process:
        try:
            wait_until_sync(lambda: len(users_of(tmp_path)) == 3, 30, "three servers")
        finally:
            process.kill()
    wait_until_sync(lambda: not users_of(tmp_path), 30, "no server is left")


def rows(tmp_path: Path, *arguments: str) -> list[list[str]]:
    """Run a command that prints a table, and return the table's cells."""
    done = subprocess.run(
        command(*arguments, "--markdown"),
        env=environment(tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line[:2] == "| "]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_syncs(tmp_path: Path) -> None:
    """Each way syncs a real file and comes to its end."""
    ways = [row[0] for row in rows(tmp_path, "syncs", "--count", "3", "--rounds", "1")]
    assert ways == ["inline", "Linux AIO", "thread", "thread, quick", "process"]


def test_floor(tmp_path: Path) -> None:
    """Commands are committed with and without a disk, and nothing is left behind."""
    found = rows(tmp_path, "floor", "--count", "20", "--rounds", "2")
    assert [row[:2] for row in found] == [["1", "yes"], ["1", "no"], ["2", "yes"], ["2", "no"]]
    for row in found:
        times = [float(cell) for cell in row[2:]]
        assert 0 < times[0] <= times[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.interop
def test_watches(tmp_path: Path) -> None:
    """Every event reaches every watcher, or the generator ends with an error."""
    if not (SETUP_BIN / "load").exists():
        unavailable("the Go load generator is not built; `make setup` tries to build it")
    options = ("--no-etcd", "--watchers", "20", "--streams", "3", "--rounds", "1")
    report = run(tmp_path, "watches", *options, "--seconds", "0.3", "--warmup", "0.1")
    (one,) = report["measurements"]
    assert one["puts"] > 0
    assert one["events"] == 20 * one["puts"]
    assert one["event_seconds"] >= one["put_seconds"] > 0
    assert 0 < one["event_p50_ms"] <= one["event_p99_ms"]
    assert one["server_cpu_s"] > 0
    assert one["loop_gap_s"] > 0
    (row,) = report["rows"]
    assert row["streams"] == 3
    assert row["ratios"]["events_rate"] is None
    assert "events/s" in report["stdout"]


def test_engines(tmp_path: Path) -> None:
    options = ("--windows", "1,16", "--seconds", "0.3", "--warmup", "0.1")
    report = run(tmp_path, "engines", *options)
    places = [(row["engine"], row["where"], row["window"]) for row in report["rows"]]
    assert places[:6] == [
        ("local", "alone", 1),
        ("local", "alone", 16),
        ("pysyncobj", "leader", 1),
        ("pysyncobj", "follower", 1),
        ("pysyncobj", "leader", 16),
        ("pysyncobj", "follower", 16),
    ]
    for row in report["rows"]:
        assert row["load"]["operations"] > 0
        assert row["load"]["errors"] == 0, row["load"]["first_error"]
        assert row["rate"] > 0
        assert row["cpu_us"] > 0
        assert 0 < row["load"]["p50_ms"] <= row["load"]["p99_ms"]
    assert "commands/s" in report["stdout"]


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("sidebyside", ["--callers", "1,x"], "'x' is not a number from 1 to"),
        ("sidebyside", ["--engine", "paxos", "--client", "python"], "--engine"),
        ("sidebyside", ["--json", "/nowhere/at/all.json"], "No such file"),
        ("watches", ["--streams", "0"], "'0' is not a number from 1 to"),
        ("engines", ["--windows", "0"], "'0' is not a number from 1 to"),
        ("engines", ["--engine", "paxos"], "'paxos' is not one of"),
    ],
)
def test_bad_options_are_explained(
    tmp_path: Path, module: str, options: list[str], message: str
) -> None:
    done = subprocess.run(
        command(module, *options),
        env=environment(tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
