"""Clusters of real server processes on loopback: kvstore, or the etcd that it is measured against.

Both take the same flags, so one launcher starts either. Ports are free ones, data directories are
the caller's, every process is ended by its own id.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import attrs

from tests.interop import free_ports

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
LOG_TAIL_BYTES = 4000


@attrs.frozen(slots=True)
class Program:
    """A server program: how it is called in reports, its command line, and its environment.

    ``ends_with`` is the signal that ends it when a test is over. etcd gets SIGKILL: asked politely,
    the last of its members waits seconds for somebody to hand leadership to.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = attrs.field(factory=dict)
    ends_with: signal.Signals = signal.SIGTERM

    @classmethod
    def kvstore(cls, engine: str = "native") -> Program:
        """Our server, run by this Python."""
        return cls("kvstore", (sys.executable, "-m", "kvstore.cli.server", "--engine", engine))

    @classmethod
    def etcd(cls) -> Program:
        """The real etcd on PATH."""
        path = shutil.which("etcd")
        if path is None:
            raise FileNotFoundError("etcd is not installed; `make setup` tries to install it")
        return cls("etcd", (path,), ends_with=signal.SIGKILL)


@attrs.define(slots=True)
class Member:
    """One process of a cluster. ``client`` and ``peer`` are "host:port"."""

    name: str
    client: str
    peer: str
    data: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None


class Cluster:
    """``size`` members of one program. A context manager that starts and stops them all.

    Args:
        program: what to run.
        directory: where data directories and logs go.
        flags: further flags for every member.
    """

    def __init__(
        self, program: Program, directory: Path, size: int = 3, flags: Sequence[str] = ()
    ) -> None:
        self.program = program
        self.flags = tuple(flags)
        ports = free_ports(2 * size)
        self.members = [
            Member(
                name=f"{program.name}{number}",
                client=f"127.0.0.1:{ports[2 * number]}",
                peer=f"127.0.0.1:{ports[2 * number + 1]}",
                data=directory / f"{program.name}{number}.etcd",
                log=directory / f"{program.name}{number}.log",
            )
            for number in range(size)
        ]
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def endpoints(self) -> list[str]:
        """Every member's client address, "host:port"."""
        return [member.client for member in self.members]

    def command(self, member: Member) -> list[str]:
        """The member's whole command line, in etcd's flags."""
        peers = ",".join(f"{other.name}=http://{other.peer}" for other in self.members)
        return [
            *self.program.command,
            *("--name", member.name),
            *("--data-dir", str(member.data)),
            *("--listen-client-urls", f"http://{member.client}"),
            *("--advertise-client-urls", f"http://{member.client}"),
            *("--listen-peer-urls", f"http://{member.peer}"),
            *("--initial-advertise-peer-urls", f"http://{member.peer}"),
            *("--initial-cluster", peers),
            *("--initial-cluster-state", "new"),
            *self.flags,
        ]

    def launch(self, member: Member) -> None:
        """Start one member and return at once."""
        with member.log.open("ab") as log:
            member.process = subprocess.Popen(
                self.command(member),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.program.environment},
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once every running member says that it is healthy.

        Raises:
            RuntimeError: a member ended, or was not healthy in time; the text has its log's tail.
        """
        deadline = time.monotonic() + timeout_s
        for member in self.members:
            while member.process is not None and not healthy(member.client):
                if not member.running or time.monotonic() > deadline:
                    state = "not healthy" if member.running else "ended"
                    raise RuntimeError(
                        f"{member.name} {state} within {timeout_s} s:\n{tail(member)}"
                    )
                time.sleep(0.02)

    def start(self) -> Cluster:
        """Start all members and wait until each is healthy; stop them all when one is not."""
        for member in self.members:
            self.launch(member)
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self, member: Member, how: signal.Signals = signal.SIGKILL) -> None:
        """Send ``how`` to one member and wait for its end."""
        if member.process is not None:
            member.process.send_signal(how)
            member.process.wait(STOP_TIMEOUT_S)
            member.process = None

    def stop(self) -> None:
        """End every member: politely, then not."""
        alive = [member.process for member in self.members if member.process is not None]
        for process in alive:
            process.send_signal(self.program.ends_with)
        for process in alive:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for member in self.members:
            member.process = None

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def healthy(client: str) -> bool:
    """Whether the member at "host:port" answers /health with 200."""
    try:
        with urllib.request.urlopen(f"http://{client}/health", timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def tail(member: Member) -> str:
    """The end of the member's log, for a person."""
    try:
        return member.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
    except OSError as error:
        return f"(no log: {error})"
