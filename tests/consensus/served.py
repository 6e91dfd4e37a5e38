"""A machine to be served in tests, and three real processes that serve it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from consensus import MethodMachine, Refused, command, query
from statemachines import SessionMachine
from tests.interop import free_ports

NAMES = ("ann", "bob", "cas")
MACHINE = "tests.consensus.served:Notes"


class Notes(MethodMachine):
    """Keeps texts in the order in which they were added."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @command
    def add(self, text: str) -> int:
        if not text:
            raise Refused("a note needs a text")
        self.notes.append(text)
        return len(self.notes)

    @command
    def fail(self) -> None:
        raise RuntimeError("this command is broken")

    @query
    def all(self) -> list[str]:
        return self.notes


class Served:
    """``size`` processes of ``raftyard serve``. A context manager that ends them all."""

    def __init__(
        self,
        directory: Path,
        *flags: str,
        machine: str = MACHINE,
        size: int = 3,
        peer_scheme: str = "http",
    ) -> None:
        names = NAMES[:size]
        ports = free_ports(2 * size)
        self.peers = {name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=False)}
        self.clients = {
            name: f"127.0.0.1:{port}" for name, port in zip(names, ports[size:], strict=True)
        }
        self.directory = directory
        self.flags = flags
        self.machine = machine
        self.peer_scheme = peer_scheme
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def endpoints(self) -> list[str]:
        return list(self.clients.values())

    def launch(self, name: str) -> None:
        """Start one member."""
        urls = {peer: f"{self.peer_scheme}://{address}" for peer, address in self.peers.items()}
        cluster = ",".join(f"{peer}={url}" for peer, url in urls.items())
        flags = [
            *("--name", name),
            *("--initial-cluster", cluster),
            *("--listen-peer-urls", urls[name]),
            *("--listen-client-urls", f"http://{self.clients[name]}"),
            *("--data-dir", str(self.directory / name)),
            *("--election-timeout", "400", "--heartbeat-interval", "50"),
        ]
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "consensus.cli", "serve", self.machine, *flags, *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.getcwd()},
            )

    def log(self, name: str) -> Path:
        """What the member's processes said."""
        return self.directory / f"{name}.log"

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End one member and wait for its end."""
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(15)

    def __enter__(self) -> Served:
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in self.peers:
            self.launch(name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in list(self.processes):
            self.kill(name)


def noted_once() -> SessionMachine:
    """Notes with sessions around them."""
    return SessionMachine(Notes())
