"""kvstore as the target, on either engine.

Each member reaches each other through its own link: the environment variable ``RAFTYARD_PEER_DIAL``
("host:port=host:port,...") gives the addresses to dial in place of the members' own.
"""

from __future__ import annotations

import importlib.util
import sys

from chaos.cluster.targets.base import Launch, Layout, Target, TargetUnavailable
from consensus import __version__

MODULE = "kvstore.cli.server"


class KvstoreTarget(Target):
    """Members are ``python -m kvstore.cli.server --engine ENGINE``."""

    name = "kvstore"

    def __init__(self, engine: str = "native") -> None:
        self.engine = engine

    @property
    def words(self) -> str:
        """See ``Target``."""
        return f"--target {self.name} --engine {self.engine}"

    def check(self) -> None:
        """See ``Target``."""
        if importlib.util.find_spec(MODULE) is None:
            raise TargetUnavailable(f"the module {MODULE} is not installed")

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
            *(sys.executable, "-m", MODULE),
            *("--name", member),
            *("--data-dir", str(layout.data_directory(member))),
            *("--listen-peer-urls", f"http://{own.peer}"),
            *("--initial-advertise-peer-urls", f"http://{own.peer}"),
            *("--listen-client-urls", f"http://{own.client}"),
            *("--advertise-client-urls", f"http://{own.client}"),
            *("--initial-cluster", cluster),
            *("--initial-cluster-state", "existing" if layout.joins else "new"),
            *("--initial-cluster-token", "chaos"),
            *("--heartbeat-interval", str(layout.heartbeat_ms)),
            *("--election-timeout", str(layout.election_ms)),
            *("--snapshot-count", str(layout.snapshot_count)),
            *("--engine", self.engine),
        )
        return Launch(command, {"RAFTYARD_PEER_DIAL": dial})

    def version(self) -> str:
        """See ``Target``."""
        return __version__
