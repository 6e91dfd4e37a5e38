"""A real etcd as the target: the control that shows what the harness sees when all is well.

etcd members dial each other by the URL that each advertises to all, so one URL must lead each
source through its own link. The URLs name hosts (``n2.chaos.test``), and each member runs in a
mount namespace whose /etc/hosts maps them to that member's own links (127.77.SOURCE.TARGET). The
port is the same everywhere. No network is configured: all of 127.0.0.0/8 is loopback.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from chaos.cluster.targets.base import Launch, Layout, Target, TargetUnavailable

PROGRAM: Final = "etcd"
PROBE_TIMEOUT_S: Final = 5.0


@functools.cache
def namespace_command() -> tuple[str, ...] | None:
    """The ``unshare`` call that gives a process its own mounts, or None where that is refused."""
    own = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--mount")
    try:
        subprocess.run(
            [*own, "true"],
            check=True,
            timeout=PROBE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return own


class EtcdTarget(Target):
    """Members are ``etcd`` from PATH."""

    name = "etcd"
    engine = "etcd"

    def check(self) -> None:
        """See ``Target``."""
        if shutil.which(PROGRAM) is None:
            raise TargetUnavailable("etcd is not on PATH (Debian: apt-get install etcd-server)")
        if namespace_command() is None:
            raise TargetUnavailable(
                "etcd's peer links need a mount namespace of their own, and `unshare --mount` is "
                "refused here; run as root, or allow user namespaces"
            )

    def link_address(self, source: str, target: str, number: int, peer: str) -> str:
        """See ``Target``."""
        port = peer.rpartition(":")[2]
        place = int("".join(filter(str.isdigit, target)))
        return f"127.77.{number}.{place}:{port}"

    def peer_url(self, member: str, layout: Layout) -> str:
        """See ``Target``; each source resolves the host to its own link."""
        return f"http://{member}.chaos.test:{layout.members[member].peer.rpartition(':')[2]}"

    def launch(self, member: str, layout: Layout) -> Launch:
        """See ``Target``."""
        own = layout.members[member]
        cluster = ",".join(f"{name}={self.peer_url(name, layout)}" for name in layout.group)
        command = (
            *self._with_hosts(member, layout),
            *(PROGRAM, "--name", member),
            *("--data-dir", str(layout.data_directory(member))),
            *("--listen-peer-urls", f"http://{own.peer}"),
            *("--initial-advertise-peer-urls", self.peer_url(member, layout)),
            *("--listen-client-urls", f"http://{own.client}"),
            *("--advertise-client-urls", f"http://{own.client}"),
            *("--initial-cluster", cluster),
            *("--initial-cluster-state", "existing" if layout.joins else "new"),
            *("--initial-cluster-token", "chaos"),
            *("--heartbeat-interval", str(layout.heartbeat_ms)),
            *("--election-timeout", str(layout.election_ms)),
            *("--snapshot-count", str(layout.snapshot_count)),
            *("--logger", "zap"),
        )
        return Launch(command)

    def version(self) -> str:
        """See ``Target``."""
        try:
            text = subprocess.run(
                [PROGRAM, "--version"], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return "unknown"
        return text.partition("\n")[0].rpartition(" ")[2]

    def _with_hosts(self, member: str, layout: Layout) -> tuple[str, ...]:
        """The command prefix under which host names lead into the member's own links."""
        lines = ["127.0.0.1 localhost", f"127.0.0.1 {member}.chaos.test"]
        lines += [
            f"{address.rpartition(':')[0]} {target}.chaos.test"
            for (source, target), address in layout.dial.items()
            if source == member
        ]
        hosts: Path = layout.directory / f"hosts-{member}"
        hosts.write_text("\n".join(lines) + "\n", encoding="ascii")
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        return (*(namespace_command() or ()), "sh", "-c", script, str(hosts))
