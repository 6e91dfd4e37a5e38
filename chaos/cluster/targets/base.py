"""The contract of a target."""

from __future__ import annotations

import abc
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import attrs

from chaos.cluster.rpc import MemberClient, MemberStatus
from chaos.nemesis.vocabulary import Want


class Api(enum.Enum):
    """What a target answers, and so which workloads can be run against it."""

    KV = "kv"
    """etcd's v3 API: kvstore, and etcd."""

    MACHINE = "machine"
    """The client API of ``raftyard serve``."""


class Control(Protocol):
    """A client straight to one member, on no proxied link. Calls raise ``CallFailed``."""

    address: str

    async def status(self) -> MemberStatus:
        """Ask the member about itself."""

    async def probe(self, timeout_s: float | None = None) -> None:
        """Make a linearizable read, to see whether the member serves."""

    async def close(self) -> None:
        """Close the connection."""


@attrs.frozen(slots=True)
class MemberAddresses:
    """Where a member listens: "host:port" for its peers, and for clients."""

    peer: str
    client: str


@attrs.frozen(slots=True)
class Layout:
    """Everything that a target needs to start one member.

    Args:
        members: addresses by name, of everyone there may ever be.
        dial: (source, target) to the "host:port" on which source reaches target: its own link.
        directory: of this run.
        heartbeat_ms: leader's heartbeat.
        election_ms: election timeout.
        snapshot_count: commands between snapshots of the log.
        group: who is in the group when a member starts for the first time.
        joins: whether that group is there already, and the member new in it.
    """

    members: Mapping[str, MemberAddresses]
    dial: Mapping[tuple[str, str], str]
    directory: Path
    heartbeat_ms: int
    election_ms: int
    snapshot_count: int
    group: tuple[str, ...]
    joins: bool = False

    def data_directory(self, member: str) -> Path:
        """Where a member keeps its data."""
        return self.directory / "data" / member


@attrs.frozen(slots=True)
class Launch:
    """A command line and what to add to the environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = attrs.field(factory=dict)


class TargetUnavailable(Exception):
    """This target cannot be run here; the text says what is missing and what to do."""


class Target(abc.ABC):
    """A kind of server."""

    name: str
    """As ``chaos run --target`` takes it."""

    engine: str
    """What replicates inside it: the key into ``chaos.expectations``."""

    api: Api = Api.KV
    """What it answers."""

    machine: str = ""
    """The machine that it serves, "module:Machine", if it is one that serves any."""

    @property
    def words(self) -> str:
        """The options of ``chaos run`` that mean it."""
        return f"--target {self.name}"

    @property
    def provides(self) -> frozenset[Want]:
        """What faults may ask of it."""
        wants = set()
        if self.engine != "etcd":
            wants.add(Want.CLOCK)
        if self.engine == "native":
            wants |= {Want.FRAMES, Want.FAILPOINTS}
        if self.api is Api.KV:
            wants.add(Want.ADMIN)
            if self.engine in ("native", "etcd"):
                wants |= {Want.TRANSFER, Want.MEMBERSHIP}
        return frozenset(wants)

    def control(self, address: str, timeout_s: float) -> Control:
        """A client straight to the member whose client address this is."""
        return MemberClient(address, timeout_s)

    @abc.abstractmethod
    def check(self) -> None:
        """See whether it can be run here.

        Raises:
            TargetUnavailable: something is missing.
        """

    @abc.abstractmethod
    def link_address(self, source: str, target: str, number: int, peer: str) -> str:
        """The "host:port" for the link's proxy to listen on (port 0: any).

        Args:
            source: the member that dials.
            target: the member that is dialled.
            number: the source's place in the cluster, from 1.
            peer: the target's own peer address.
        """

    def peer_url(self, member: str, layout: Layout) -> str:
        """The URL under which a member is added to the group."""
        return f"http://{layout.members[member].peer}"

    @abc.abstractmethod
    def launch(self, member: str, layout: Layout) -> Launch:
        """The command that starts ``member``, again after a crash too."""

    @abc.abstractmethod
    def version(self) -> str:
        """The version of the program, for the history's header."""
