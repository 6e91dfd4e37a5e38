"""Starting the proxy server of a run: toxid as a child process, or a real ``toxiproxy-server``."""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import requests

from chaos.cluster.process import ManagedProcess, ProcessFailed

START_TIMEOUT_S: Final = 60.0
TOXIPROXY_PROGRAM: Final = "toxiproxy-server"


PORTS: Final = range(15_000, 32_000)
"""Below the ports that the kernel gives to connections going out: a stopped member's port would
otherwise be taken by somebody's connection before the member is started again."""

PORT_ATTEMPTS_MAX: Final = 1000


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return different TCP ports that were free a moment ago.

    Raises:
        OSError: nothing could be listened on.
    """
    with ExitStack() as held:
        found: list[int] = []
        for _ in range(PORT_ATTEMPTS_MAX):
            port = secrets.choice(PORTS)
            with suppress(OSError):
                held.enter_context(socket.create_server((host, port)))
                found.append(port)
            if len(found) == count:
                return found
        raise OSError(f"{host} has no {count} ports left between {PORTS[0]} and {PORTS[-1]}")


class ProxyServer:
    """A running proxy server.

    Args:
        log_path: where its output goes.
        seed: for its random choices.
        program: path of a ``toxiproxy-server``; None runs toxid.
    """

    def __init__(self, log_path: Path, seed: int = 0, program: str | None = None) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        if program is None:
            command = [sys.executable, "-m", "chaos.toxid", "--port", str(port)]
            command += ["--seed", str(seed)]
        else:
            command = [program, "-host", "127.0.0.1", "-port", str(port), "-seed", str(seed)]
        self._process = ManagedProcess(Path(command[0]).name, command, log_path)

    def start(self) -> None:
        """Start it and wait until its API answers.

        Raises:
            ProcessFailed: it ended, or did not answer in ``START_TIMEOUT_S`` seconds.
        """
        self._process.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                requests.get(f"http://{self.address}/version", timeout=1.0).raise_for_status()
                return
            except requests.RequestException as error:
                if not self._process.running or time.monotonic() > deadline:
                    self.stop()
                    raise ProcessFailed(
                        f"the proxy server did not start: {error}\n{self._process.log_tail()}"
                    ) from error
                time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        self._process.stop()


def find_toxiproxy() -> str | None:
    """Return the path of a real ``toxiproxy-server`` on PATH, or None."""
    return shutil.which(TOXIPROXY_PROGRAM)
