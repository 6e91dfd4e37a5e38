"""The native engine keeps the engine contract."""

from __future__ import annotations

from pathlib import Path

from consensus.engine import Engine
from consensus.engines.native import NativeEngine
from consensus.testing import EngineContract, EngineGroup
from tests.interop import free_ports

NAMES = ("ann", "bob", "cas")


class NativeGroup(EngineGroup):
    names = NAMES

    def __init__(self, directory: Path, snapshot_entries: int = 10_000) -> None:
        self.members = {
            name: f"127.0.0.1:{port}"
            for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)
        }
        self.directory = directory
        self.snapshot_entries = snapshot_entries

    def engine(self, name: str) -> Engine:
        return NativeEngine(
            name,
            self.members,
            self.directory / name,
            election_timeout_ms=300,
            heartbeat_interval_ms=50,
            snapshot_entries=self.snapshot_entries,
        )


class TestNativeEngine(EngineContract):
    def make_group(self, directory: Path) -> EngineGroup:
        return NativeGroup(directory)


class TestNativeEngineThatCompactsAllTheTime(EngineContract):
    def make_group(self, directory: Path) -> EngineGroup:
        return NativeGroup(directory, snapshot_entries=2)
