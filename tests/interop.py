"""Finding the real programs that some tests run against: etcd, etcdctl, Go.

Where one cannot be had the test is skipped with the reason; in CI (``CI=true``) that is a failure.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest

SETUP_BIN = Path(__file__).resolve().parent.parent / ".setup" / "bin"
"""Where ``tests/setup.sh`` puts programs that it builds."""


def require_program(name: str) -> str:
    """Return the path of ``name``, or skip (in CI: fail) the calling test."""
    path = shutil.which(name) or shutil.which(name, path=str(SETUP_BIN))
    if path is None:
        unavailable(f"{name} is not installed; `make setup` tries to install it")
    return path


def unavailable(reason: str) -> NoReturn:
    """Skip (in CI: fail) the calling test, because something real cannot be had here."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return ``count`` TCP ports that were free a moment ago."""
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    try:
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
