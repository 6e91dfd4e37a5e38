"""The engine that ``--engine`` names, built from the server's settings.

A server runs one engine, so each is imported where it is built: the other one's modules would make
every start slower.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from consensus.certificates import Certificates
from consensus.engine import Engine
from consensus.errors import ConfigError, StorageError
from consensus.peerdial import PEER_DIAL_VARIABLE, read_peer_dial
from consensus.types import NodeId
from kvstore.config import ServerConfig
from kvstore.identity import Identity, node_of
from kvstore.members import encode_context

CHANGES_MEMBERS: Final = frozenset({"native"})
"""Engines whose members can change while they run, so that one can join."""

CONVERSIONS: Final = frozenset({("pysyncobj", "native")})
"""From which engine to which a log can be converted."""


def build_engine(
    config: ServerConfig, identity: Identity, directory: Path, certificates: Certificates
) -> Engine:
    """Return the engine, not yet started.

    Args:
        config: the server's settings.
        identity: this member's and the founding members' IDs.
        directory: where the engine keeps its log.
        certificates: those for peers are used.

    Raises:
        ConfigError: an address or the password file cannot be used.
    """
    if config.engine == "local":
        from consensus.engines.local import LocalEngine

        return LocalEngine(identity.node_id)
    founders = identity.founders.values()
    members = {node_of(founder.id): founder.address for founder in founders}
    dial = read_peer_dial(os.environ.get(PEER_DIAL_VARIABLE, ""))
    contexts = _contexts(identity)
    if config.engine == "native":
        if config.peer_password_file is not None:
            raise ConfigError(
                "--peer-password-file is for --engine pysyncobj; what native members say is "
                "encrypted with https:// peer URLs and --peer-cert-file, --peer-key-file, "
                "--peer-trusted-ca-file"
            )
        from consensus.engines.native import NativeEngine

        return NativeEngine(
            identity.node_id,
            members,
            directory,
            cluster=config.cluster_token,
            listen=config.peer_urls[0].address,
            election_timeout_ms=config.election_timeout_ms,
            heartbeat_interval_ms=config.heartbeat_interval_ms,
            snapshot_entries=max(2, config.snapshot_count),
            dial=dial,
            join=identity.joined,
            contexts=contexts,
            pre_vote=config.pre_vote,
            strict_reconfig_check=config.strict_reconfig_check,
            learners_max=config.learners_max,
            force_new_cluster=config.force_new_cluster,
            tls_server=certificates.peers_in,
            tls_client=certificates.peers_out,
        )
    from consensus.engines.pysyncobj import PySyncObjEngine

    return PySyncObjEngine(
        identity.node_id,
        members,
        directory,
        listen=config.peer_urls[0].address,
        election_timeout_ms=config.election_timeout_ms,
        heartbeat_interval_ms=config.heartbeat_interval_ms,
        password=read_password(config.peer_password_file),
        snapshot_entries=max(2, config.snapshot_count),
        dial=dial,
    )


def convert_log(
    found: str, source: Path, target: Path, config: ServerConfig, identity: Identity
) -> tuple[int, int]:
    """Convert the log that engine ``found`` left in ``source`` to ``config.engine``.

    Returns:
        index and term of the last entry.

    Raises:
        StorageError: something cannot be read or written.
    """
    if (found, config.engine) not in CONVERSIONS:
        raise StorageError(f"there is no conversion from {found} to {config.engine}")
    from consensus.engines.conversion import pysyncobj_to_native

    members = {node_of(each.id): each.address for each in identity.founders.values()}
    return pysyncobj_to_native(
        source, target, config.cluster_token, identity.node_id, members, _contexts(identity)
    )


def _contexts(identity: Identity) -> dict[NodeId, bytes]:
    """Return what the engine's configuration keeps with each founding member."""
    return {
        node_of(each.id): encode_context(identity.cluster_id, each.peer_urls)
        for each in identity.founders.values()
    }


def seed_engine(
    config: ServerConfig, identity: Identity, directory: Path, chunks: Iterable[bytes]
) -> None:
    """Make a new engine's directory begin with a backup; every member gets the same.

    Raises:
        ConfigError: this engine keeps nothing on disk.
        StorageError, OSError: it cannot be written. What ``chunks`` raises passes through.
    """
    members = {node_of(each.id): each.address for each in identity.founders.values()}
    if config.engine == "native":
        from consensus.engines.native.bootstrap import from_backup, write_beginning

        beginning = from_backup(members, _contexts(identity), chunks)
        write_beginning(directory, config.cluster_token, identity.node_id, beginning)
    elif config.engine == "pysyncobj":
        from consensus.engines.pysyncobj.bootstrap import write_base

        write_base(directory, sorted(members), chunks)
    else:
        raise ConfigError(f"--engine {config.engine} keeps no log on disk to restore into")


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
