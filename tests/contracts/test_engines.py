"""Every engine keeps the engine contract."""

from __future__ import annotations

from pathlib import Path

from consensus.engine import Engine
from consensus.engines.local import LocalEngine, LocalLog
from consensus.engines.native import NativeEngine
from consensus.engines.pysyncobj import PySyncObjEngine
from consensus.testing import EngineContract, EngineGroup, MembershipContract
from tests.interop import free_ports

NAMES = ("ann", "bob", "cas")


class LocalGroup(EngineGroup):
    names = NAMES

    def __init__(self) -> None:
        self.log = LocalLog()

    def engine(self, name: str) -> Engine:
        return LocalEngine(name, self.log)


class LoopbackGroup(EngineGroup):
    """Members of a real engine on loopback ports, each with a directory of its own."""

    names = NAMES

    def __init__(
        self,
        kind: type[NativeEngine | PySyncObjEngine],
        directory: Path,
        snapshot_entries: int = 10_000,
    ) -> None:
        self.kind = kind
        self.members = {
            name: f"127.0.0.1:{port}"
            for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)
        }
        self.newcomers: dict[str, str] = {}
        self.directory = directory
        self.snapshot_entries = snapshot_entries

    def engine(self, name: str) -> Engine:
        return self.kind(
            name,
            self.members,
            self.directory / name,
            election_timeout_ms=500,
            heartbeat_interval_ms=50,
            snapshot_entries=self.snapshot_entries,
        )


class NativeGroup(LoopbackGroup):
    """Members of the native engine, and newcomers."""

    def __init__(self, directory: Path, snapshot_entries: int = 10_000) -> None:
        super().__init__(NativeEngine, directory, snapshot_entries)

    def address(self, name: str) -> str:
        if name in self.members:
            return self.members[name]
        if name not in self.newcomers:
            (port,) = free_ports(1)
            self.newcomers[name] = f"127.0.0.1:{port}"
        return self.newcomers[name]

    def joining(self, name: str) -> Engine:
        return NativeEngine(
            name,
            {name: self.address(name)},
            self.directory / name,
            join=True,
            election_timeout_ms=500,
            heartbeat_interval_ms=50,
            snapshot_entries=self.snapshot_entries,
        )


class TestLocalEngine(EngineContract):
    def make_group(self, directory: Path) -> EngineGroup:
        return LocalGroup()


class TestPySyncObjEngine(EngineContract):
    def make_group(self, directory: Path) -> EngineGroup:
        return LoopbackGroup(PySyncObjEngine, directory)


class TestPySyncObjEngineThatCompactsAllTheTime(EngineContract):
    def make_group(self, directory: Path) -> EngineGroup:
        return LoopbackGroup(PySyncObjEngine, directory, snapshot_entries=2)


class TestNativeEngine(MembershipContract):
    def make_group(self, directory: Path) -> EngineGroup:
        return NativeGroup(directory)


class TestNativeEngineThatCompactsAllTheTime(MembershipContract):
    def make_group(self, directory: Path) -> EngineGroup:
        return NativeGroup(directory, snapshot_entries=2)
