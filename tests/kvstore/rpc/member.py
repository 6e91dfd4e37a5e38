"""A whole kvstore member inside the test's process, on the local engine and a free port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from kvstore.config import load
from kvstore.server import Server
from tests.interop import free_ports


@contextlib.asynccontextmanager
async def running_member(tmp_path: Path, *flags: str) -> AsyncIterator[tuple[Server, str]]:
    """Start a member; yields it and its client address, "host:port"."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    config = load(
        (
            *("--engine", "local", "--data-dir", str(tmp_path / "data")),
            *("--listen-client-urls", f"http://{address}"),
            *("--advertise-client-urls", f"http://{address}"),
            *flags,
        ),
        {},
    )
    server = Server(config)
    try:
        await server.start()
        yield server, address
    finally:
        await server.stop()
