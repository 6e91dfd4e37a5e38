"""Real servers for the client's tests: etcd and kvstore, single or in threes, as processes.

Both take the same flags, so that one helper starts either; that itself is part of the promise.
"""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from tests.interop import free_ports, require_program
from tests.waiting import wait_until_sync

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


def program_of(kind: str) -> list[str]:
    """Return the command that starts a server of ``kind`` (``etcd`` or ``kvstore``)."""
    if kind == "etcd":
        return [require_program("etcd"), "--logger=zap", "--log-outputs=stderr"]
    return [sys.executable, "-m", "kvstore.cli.server"]


@attrs.define
class Server:
    """One member as a process that can be killed and started again."""

    command: list[str]
    client_port: int
    log_path: Path
    process: subprocess.Popen[bytes] | None = None
    tls: ssl.SSLContext | None = None
    """How to ask it over https://; None: over http://."""

    @property
    def endpoint(self) -> str:
        """The address of its clients."""
        return f"127.0.0.1:{self.client_port}"

    def launch(self) -> None:
        """Start the process without waiting for it to serve."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )

    def wait_healthy(self) -> None:
        """Return once the member serves linearizable requests."""
        wait_until_sync(self.is_healthy, START_TIMEOUT_S, f"healthy: see {self.log_path}")

    def is_healthy(self) -> bool:
        """Ask the member itself; fails the test if its process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text(errors="replace")[-2000:]
        url = f"{'http' if self.tls is None else 'https'}://{self.endpoint}/health"
        try:
            with urllib.request.urlopen(url, timeout=2, context=self.tls) as answer:
                return b'"true"' in answer.read()
        except (urllib.error.URLError, OSError):
            return False

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the process and wait until it has."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.send_signal(how)
            self.process.wait(STOP_TIMEOUT_S)
            self.process = None


@contextlib.contextmanager
def cluster(
    kind: str,
    directory: Path,
    size: int = 1,
    *flags: str,
    prepare: Callable[[list[Server]], None] = lambda _: None,
) -> Iterator[list[Server]]:
    """Run ``size`` members of ``kind`` with their data under ``directory``.

    ``prepare`` is called with the members before they are started.
    """
    ports = free_ports(2 * size)
    peers = [f"http://127.0.0.1:{port}" for port in ports[size:]]
    initial = ",".join(f"infra{index}={peer}" for index, peer in enumerate(peers))
    servers = []
    for index in range(size):
        client = f"http://127.0.0.1:{ports[index]}"
        servers.append(
            Server(
                [
                    *program_of(kind),
                    f"--name=infra{index}",
                    f"--data-dir={directory / f'infra{index}.etcd'}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={peers[index]}",
                    f"--initial-advertise-peer-urls={peers[index]}",
                    f"--initial-cluster={initial}",
                    "--initial-cluster-state=new",
                    *flags,
                ],
                ports[index],
                directory / f"infra{index}.log",
            )
        )
    prepare(servers)
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_healthy()
        yield servers
    finally:
        for server in servers:
            server.kill()
