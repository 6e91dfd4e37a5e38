"""The etcd release that kvstore is compatible with, in the places where etcd tells its own.

Clients split these on dots and read numbers (Patroni), or compare them (kube-apiserver asks for
watch progress from 3.5.13 on). So they are plain dotted integers, and the product's own version
stands beside them, never in them.
"""

from __future__ import annotations

import platform
from typing import Final

from consensus import __version__

ETCD_VERSION: Final = "3.6.5"
CLUSTER_VERSION: Final = "3.6.0"
STORAGE_VERSION: Final = "3.6.0"

MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def version_text() -> str:
    """Return what ``kvstore --version`` prints: etcd's four lines, then the product's own."""
    machine = platform.machine()
    return (
        f"etcd Version: {ETCD_VERSION}\n"
        "Git SHA: none (compatible with etcd; not built from its source)\n"
        f"Go Version: none ({platform.python_implementation()} {platform.python_version()})\n"
        f"Go OS/Arch: {platform.system().lower()}/{MACHINES.get(machine, machine)}\n"
        f"Raftyard Version: {__version__}\n"
    )
