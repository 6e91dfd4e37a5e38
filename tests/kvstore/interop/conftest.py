"""One cluster of three for each module, and etcdctl as a person calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.clusters import Cluster, Program
from tests.interop import require_program
from tests.waiting import wait_until_sync

TIMEOUT_S = 30.0


@attrs.frozen(slots=True)
class Done:
    """What a command printed, and its exit status."""

    stdout: str
    stderr: str
    status: int

    @property
    def error(self) -> str:
        """The line that says what went wrong; etcdctl logs retries before it."""
        lines = [line for line in self.stderr.splitlines() if not line.startswith("{")]
        return lines[-1] if lines else ""


class Etcdctl:
    """The real etcdctl, API 3, on one cluster."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self._program = require_program("etcdctl")
        self._directory = directory
        self._started: list[subprocess.Popen[bytes]] = []

    def _words(self, arguments: Sequence[str], endpoints: Sequence[str] | None) -> list[str]:
        chosen = ",".join(endpoints or self.cluster.endpoints)
        return [self._program, "--endpoints", chosen, *arguments]

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("ETCD")}
        return {**kept, "ETCDCTL_API": "3"}

    def run(self, *arguments: str, stdin: str = "", endpoints: Sequence[str] | None = None) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            self._words(arguments, endpoints),
            env=self._environment(),
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            text=True,
        )
        return Done(done.stdout, done.stderr, done.returncode)

    def __call__(
        self, *arguments: str, stdin: str = "", endpoints: Sequence[str] | None = None
    ) -> str:
        """Run a command that must succeed and return what it printed."""
        done = self.run(*arguments, stdin=stdin, endpoints=endpoints)
        assert done.status == 0, (arguments, done.stderr)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The same with ``-w json``, parsed."""
        return json.loads(self(*arguments, "-w", "json"))

    def revision(self) -> int:
        """The current revision."""
        found: int = self.json("get", "nothing")["header"]["revision"]
        return found

    def start(self, *arguments: str) -> Endless:
        """Start a command that ends only when it is told to."""
        path = self._directory / f"endless{len(self._started)}"
        with path.open("wb") as out:
            process = subprocess.Popen(
                self._words(arguments, None),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return Endless(process, path)

    def close(self) -> None:
        """End what a test left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()


@attrs.frozen(slots=True)
class Endless:
    """A command that goes on, and the file that its output grows in."""

    process: subprocess.Popen[bytes]
    path: Path

    def output(self) -> str:
        """What it has printed so far."""
        return self.path.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until its output ends with ``text``."""
        wait_until_sync(lambda: self.output().endswith(text), 20, f"{text!r} in {self.path}")

    def interrupt(self) -> None:
        """Ctrl-C, and wait for its end."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three members; at the end their logs must hold no traceback."""
    with Cluster(Program.kvstore(), tmp_path_factory.mktemp("interop")) as running:
        yield running
    for member in running.members:
        assert "Traceback" not in member.log.read_text(), member.log


@pytest.fixture
def etcdctl(cluster: Cluster, tmp_path: Path) -> Iterator[Etcdctl]:
    """etcdctl on the three members."""
    found = Etcdctl(cluster, tmp_path)
    yield found
    found.close()
