"""The engine that ``--engine`` names, built from the server's settings."""

from __future__ import annotations

import os
from pathlib import Path

from consensus.engine import Engine
from consensus.engines.local import LocalEngine
from consensus.engines.native import NativeEngine
from consensus.engines.pysyncobj import PySyncObjEngine
from consensus.errors import ConfigError
from consensus.peerdial import PEER_DIAL_VARIABLE, read_peer_dial
from kvstore.config import ServerConfig


def build_engine(config: ServerConfig, directory: Path) -> Engine:
    """Return the engine, not yet started.

    Args:
        config: the server's settings.
        directory: where the engine keeps its log.

    Raises:
        ConfigError: an address or the password file cannot be used.
    """
    if config.engine == "local":
        return LocalEngine(config.name)
    members = {name: urls[0].address for name, urls in config.initial_cluster.items()}
    dial = read_peer_dial(os.environ.get(PEER_DIAL_VARIABLE, ""), members)
    if config.engine == "native":
        return NativeEngine(
            config.name,
            members,
            directory,
            cluster=config.cluster_token,
            listen=config.peer_urls[0].address,
            election_timeout_ms=config.election_timeout_ms,
            heartbeat_interval_ms=config.heartbeat_interval_ms,
            snapshot_entries=max(2, config.snapshot_count),
            dial=dial,
        )
    return PySyncObjEngine(
        config.name,
        members,
        directory,
        listen=config.peer_urls[0].address,
        election_timeout_ms=config.election_timeout_ms,
        heartbeat_interval_ms=config.heartbeat_interval_ms,
        password=read_password(config.peer_password_file),
        snapshot_entries=max(2, config.snapshot_count),
        dial=dial,
    )


def read_password(path: Path | None) -> str | None:
    """Return the password that encrypts peer links, or None without ``path``.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    if path is None:
        return None
    try:
        password = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"--peer-password-file: cannot read {path}: {reason}") from None
    if not password:
        raise ConfigError(f"--peer-password-file: {path} is empty")
    return password
