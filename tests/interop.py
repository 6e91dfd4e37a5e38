"""Finding the real programs that some tests run against: etcd, etcdctl, Go.

Where one cannot be had the test is skipped with the reason; in CI (``CI=true``) that is a failure.
"""

from __future__ import annotations

import os
import shutil
import socket

import pytest


def require_program(name: str) -> str:
    """Return the path of ``name``, or skip (in CI: fail) the calling test."""
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"{name} is not installed; `make setup` tries to install it"
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
