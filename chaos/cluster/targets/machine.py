"""Any state machine as the target, served by ``raftyard serve`` on any engine."""

from __future__ import annotations

import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import grpc
import httpx

from chaos.cluster.rpc import CallFailed, MemberStatus
from chaos.cluster.targets.base import Api, Control, Launch, Layout, Target, TargetUnavailable
from consensus import __version__
from consensus.client import Client
from consensus.errors import ConfigError, ConsensusError
from consensus.loading import load_machine
from consensus.peerdial import PEER_DIAL_VARIABLE
from consensus.wire import BadRequest

MODULE = "consensus.cli"


class MachineControl:
    """A client straight to one member of ``raftyard serve``; see ``Control``."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._client = Client([address])

    async def status(self) -> MemberStatus:
        """See ``Control``. Members have names here, so ids are made of them."""
        found = next(iter((await self._client.status(self.timeout_s)).values()))
        if "error" in found:
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, str(found["error"]))
        leads = found["role"] == "leader"
        return MemberStatus(
            _identity(found["name"]),
            _identity(found["name"] if leads else found["leader"]),
            int(found["term"]),
            int(found["applied_index"]),
        )

    async def probe(self, timeout_s: float | None = None) -> None:
        """See ``Control``. A machine that does not understand the question was asked, too."""
        try:
            await self._client.query(b"", timeout_s=timeout_s or self.timeout_s)
        except BadRequest:
            return
        except ConsensusError as error:
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, str(error)) from error

    async def close(self) -> None:
        """See ``Control``."""
        await self._client.close()


async def machine_hash(address: str, timeout_s: float) -> tuple[int, str]:
    """Return the applied index and the state's hash of one member.

    Raises:
        CallFailed: it did not answer.
    """
    async with httpx.AsyncClient(trust_env=False) as http:
        try:
            found: dict[str, Any] = (
                await http.get(f"http://{address}/hash", timeout=timeout_s)
            ).json()
        except (httpx.HTTPError, ValueError) as error:
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, str(error)) from error
    if "hash" not in found:
        raise CallFailed(grpc.StatusCode.UNAVAILABLE, str(found))
    return int(found["applied_index"]), str(found["hash"])


class MachineTarget(Target):
    """Members are ``python -m consensus.cli serve MODULE:MACHINE --engine ENGINE``.

    Args:
        machine: "module:Machine", as ``raftyard serve`` takes it.
        engine: what replicates it.
    """

    name = "machine"
    api = Api.MACHINE

    def __init__(self, machine: str, engine: str = "native") -> None:
        self.machine = machine
        self.engine = engine

    @property
    def words(self) -> str:
        """See ``Target``."""
        return f"--machine {self.machine} --engine {self.engine}"

    def check(self) -> None:
        """See ``Target``."""
        try:
            with tempfile.TemporaryDirectory() as directory:
                load_machine(self.machine, Path(directory)).close()
        except ConfigError as error:
            raise TargetUnavailable(f"--machine: {error}") from error

    def control(self, address: str, timeout_s: float) -> Control:
        """See ``Target``."""
        return MachineControl(address, timeout_s)

    def link_address(self, source: str, target: str, number: int, peer: str) -> str:
        """See ``Target``."""
        return "127.0.0.1:0"

    def launch(self, member: str, layout: Layout) -> Launch:
        """See ``Target``."""
        own = layout.members[member]
        cluster = ",".join(f"{name}={self.peer_url(name, layout)}" for name in layout.group)
        dial = ",".join(
            f"{layout.members[target].peer}={address}"
            for (source, target), address in layout.dial.items()
            if source == member
        )
        command = (
            *(sys.executable, "-m", MODULE, "serve", self.machine),
            *("--name", member),
            *("--data-dir", str(layout.data_directory(member))),
            *("--listen-peer-urls", f"http://{own.peer}"),
            *("--listen-client-urls", f"http://{own.client}"),
            *("--initial-cluster", cluster),
            *("--heartbeat-interval", str(layout.heartbeat_ms)),
            *("--election-timeout", str(layout.election_ms)),
            *("--snapshot-count", str(layout.snapshot_count)),
            *("--engine", self.engine),
        )
        return Launch(command, {PEER_DIAL_VARIABLE: dial})

    def version(self) -> str:
        """See ``Target``."""
        return __version__


def _identity(name: str | None) -> int:
    return zlib.crc32(name.encode()) or 1 if name else 0
