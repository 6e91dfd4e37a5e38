"""A harness that is killed leaves nothing running, whatever state it is in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import guardian
from tests.waiting import wait_until_sync

FAMILY = """
import sys, time
from pathlib import Path
from chaos.cluster.process import ManagedProcess
ManagedProcess("parent", ["sh", "-c", "sleep 61 & wait"], Path(sys.argv[1])).start()
time.sleep(60)
"""
"""A harness with a child and a grandchild."""


def token_below(pid: int) -> str:
    """The token of the harness with this pid, as its children have it; "" before there are any."""
    for line in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(line.read_text(errors="replace").rpartition(")")[2].split()[1])
            environment = (
                (line.parent / "environ").read_bytes().split(b"\0") if parent == pid else []
            )
        except OSError:
            continue
        for one in environment:
            if one.startswith(guardian.VARIABLE.encode()):
                return one.rpartition(b":")[2].rpartition(b"=")[2].decode()
    return ""


def guardians_of(token: str) -> list[int]:
    """The pids of processes that have the token among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if token.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A harness that has no token of others: these tests may have engaged a guardian themselves."""
    command = [word.replace("TMP", str(tmp_path)) for word in request.param]
    own = {name: value for name, value in os.environ.items() if name != guardian.VARIABLE}
    if "pytest" in command:
        (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = " + os.getcwd())
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests" / "conftest.py").write_text("from tests.conftest import *")
        (tmp_path / "tests" / "test_long.py").write_text(A_TEST)
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, env=own
    ) as process:
        yield process
        process.kill()


RUN = ["-m", "chaos.cli", "run", "--seconds", "60", "--faults", "kill", "--out", "TMP", "--json"]


@pytest.mark.parametrize("harness", [RUN], indirect=True)
def test_a_run_that_is_killed_leaves_no_process(
    harness: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    logs = tmp_path / "control" / "logs"
    wait_until_sync(lambda: len(list(logs.glob("n*.log"))) == 3, 60.0, "three members began")
    wait_until_sync(lambda: bool(token_below(harness.pid)), 30.0, "children with a token")
    token = token_below(harness.pid)
    wait_until_sync(lambda: len(guardian.bearers(token)) >= 4, 30.0, "the proxy and the members")
    os.kill(guardian.bearers(token)[-1], signal.SIGSTOP)
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    wait_until_sync(lambda: not guardian.bearers(token), 30.0, "all that it started is gone")
    wait_until_sync(lambda: not guardians_of(token), 30.0, "and so is the guardian")


TESTS = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "TMP/pytest.ini", "TMP/tests"]
A_TEST = """
import subprocess
def test_that_takes_long():
    subprocess.run(["sleep", "61"], start_new_session=True)
"""


@pytest.mark.parametrize("harness", [TESTS], indirect=True)
def test_tests_that_are_killed_leave_no_process(
    harness: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    wait_until_sync(lambda: bool(token_below(harness.pid)), 60.0, "children with a token")
    token = token_below(harness.pid)
    wait_until_sync(lambda: bool(guardian.bearers(token)), 30.0, "the test's child")
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    wait_until_sync(lambda: not guardian.bearers(token), 30.0, "all that it started is gone")


@pytest.mark.parametrize("harness", [["-c", FAMILY, "TMP/log"]], indirect=True)
def test_grandchildren_go_too_and_nobody_else(
    harness: subprocess.Popen[bytes],
) -> None:
    wait_until_sync(lambda: bool(token_below(harness.pid)), 30.0, "a child with a token")
    token = token_below(harness.pid)
    wait_until_sync(lambda: len(guardian.bearers(token)) == 2, 30.0, "child and grandchild")
    other = {**os.environ, guardian.VARIABLE: "0" * 32}
    with subprocess.Popen(["sleep", "60"], env=other) as stranger:
        harness.send_signal(signal.SIGKILL)
        harness.wait()
        wait_until_sync(lambda: not guardian.bearers(token), 30.0, "both are gone")
        wait_until_sync(lambda: not guardians_of(token), 30.0, "and so is the guardian")
        assert stranger.poll() is None
        stranger.kill()


def test_a_harness_that_ends_well_waits_for_its_guardian() -> None:
    script = (
        "import os; from chaos import guardian; guardian.engage(); "
        f"print(os.environ['{guardian.VARIABLE}'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    token = done.stdout.strip().rpartition(":")[2]
    assert len(token) == 32
    assert not guardians_of(token)
