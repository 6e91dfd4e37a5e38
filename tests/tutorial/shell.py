"""Typing the tutorial's lines: kvstore stands for etcd, kvctl for etcdctl, nothing else changes.

The tutorial's machines are 10.0.1.10 to .12; here 127.0.1.10 to .12 are them. Its ports are fixed,
so tests that type its lines run one after another (``FIXED_PORTS``) and look first whether the
ports are free.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from tests.clusters import healthy
from tests.waiting import wait_until_sync

FIXED_PORTS = pytest.mark.xdist_group("fixed-ports")

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
TYPE_TIMEOUT_S = 30.0

TYPED_FOR = {"etcd": "kvstore", "./etcd": "kvstore", "etcdctl": "kvctl", "./etcdctl": "kvctl"}


def require_free(addresses: Sequence[str]) -> None:
    """Fail the test, by name, when one of "host:port" is taken."""
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            socket.create_server((host, int(port))).close()
        except OSError as error:
            pytest.fail(
                f"the tutorial uses {address}, and it cannot be listened on here "
                f"({error.strerror}): stop what runs there (`make run`, an etcd) and test again"
            )


def words(line: str) -> list[str]:
    """A line of the tutorial as it is typed here."""
    typed = shlex.split(line.replace("\\\n", " ").replace("10.0.1.", "127.0.1."))
    program = TYPED_FOR[typed[0]]
    path = shutil.which(program, path=str(Path(sys.executable).parent))
    assert path is not None, f"{program} is not installed beside {sys.executable}"
    return [path, *typed[1:]]


def environment(api: str = "2") -> dict[str, str]:
    """The environment of a terminal: of etcd's variables only ``ETCDCTL_API``."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("ETCD")}
    return {**kept, "ETCDCTL_API": api}


@attrs.frozen(slots=True)
class Typed:
    """What a line printed, and its exit status."""

    stdout: str
    stderr: str
    status: int


def typed(line: str, cwd: Path | None = None) -> Typed:
    """Type a line and wait for its end."""
    done = subprocess.run(
        words(line),
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TYPE_TIMEOUT_S,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return Typed(done.stdout.decode(), done.stderr.decode(), done.returncode)


class Running:
    """A line that goes on in a terminal of its own; its output grows in a file.

    Args:
        command: the words to run (``words`` gives them).
        path: where its output goes.
        cwd: where it is typed.
    """

    def __init__(self, command: Sequence[str], path: Path, cwd: Path | None = None) -> None:
        self.path = path
        with path.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        """What it has printed so far."""
        return self.path.read_text()

    def wait_for(self, text: str, timeout_s: float = 20.0) -> None:
        """Wait until it has printed ``text``; fail when it ends before."""
        wait_until_sync(
            lambda: text in self.output() or self.process.poll() is not None,
            timeout_s,
            f"{text!r} in {self.path}",
        )
        assert text in self.output(), f"it ended with {self.process.poll()}: {self.output()}"

    def wait_healthy(self, client: str) -> None:
        """Wait until the server that this is answers at "host:port"."""

        def answers() -> bool:
            assert self.process.poll() is None, self.output()
            return healthy(client)

        wait_until_sync(answers, START_TIMEOUT_S, f"{client} is healthy, see {self.path}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and return its exit status."""
        self.process.send_signal(how)
        return self.process.wait(STOP_TIMEOUT_S)

    def make_sure_that_it_ended(self) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
