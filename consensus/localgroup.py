"""A group of real processes on this machine, for a first look, an example, or a test.

Each member is a ``raftyard serve`` process on loopback with free ports; what they write goes to a
temporary directory that is removed with the group. Members are ended by the id they were started
with.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from consensus.client import SyncClient
from consensus.errors import ConsensusError
from consensus.types import NodeId

NAMES: Final = ("ann", "bob", "cas")
STOP_TIMEOUT_S: Final = 5.0


class LocalGroup:
    """Members of one group, each a process of its own.

    Example::

        with LocalGroup("counter:Counter", Path(__file__).parent) as group:
            group.client.propose(Counter.encode("add", amount=1))
            group.kill(group.leader())

    Args:
        machine: what they replicate, "module:Machine", as ``raftyard serve`` takes it.
        directory: where that module is found.
        names: the members' names.
    """

    def __init__(self, machine: str, directory: Path, names: Sequence[NodeId] = NAMES) -> None:
        free = _free_addresses(2 * len(names))
        self._machine = machine
        self._directory = directory
        self._peers = dict(zip(names, free[: len(names)], strict=True))
        self._clients = dict(zip(names, free[len(names) :], strict=True))
        self._data = tempfile.TemporaryDirectory(prefix="raftyard-")
        self._processes: dict[NodeId, subprocess.Popen[bytes]] = {}
        self.client = SyncClient([*self._clients.values()])

    def __enter__(self) -> LocalGroup:
        for name in self._peers:
            self.start(name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.close()
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._data.cleanup()

    def start(self, name: NodeId) -> None:
        """Start a member, or start it again after ``kill``; its data are as it left them."""
        cluster = ",".join(f"{peer}=http://{address}" for peer, address in self._peers.items())
        command = [sys.executable, "-m", "consensus.cli", "serve", self._machine, "--name", name]
        command += [f"--initial-cluster={cluster}", f"--data-dir={self._data.name}/{name}"]
        command += [f"--listen-peer-urls=http://{self._peers[name]}"]
        command += [f"--listen-client-urls=http://{self._clients[name]}"]
        with open(f"{self._data.name}/{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                command, cwd=self._directory, stdout=log, stderr=log
            )

    def kill(self, name: NodeId) -> None:
        """Kill a member at once (SIGKILL)."""
        self._processes[name].kill()
        self._processes[name].wait()

    def leader(self) -> NodeId:
        """Return who leads, as the members that answer say.

        Raises:
            ConsensusError: none of them knows a leader now.
        """
        said = [status for status in self.client.status().values() if status.get("leader")]
        if not said:
            raise ConsensusError("no member knows a leader now")
        return str(max(said, key=lambda status: int(status["term"]))["leader"])


def _free_addresses(count: int) -> list[str]:
    """Return loopback addresses that were free a moment ago."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]
