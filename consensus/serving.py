"""From the flags of ``raftyard serve`` to the engine of one member.

Flags are looked up by their names without the leading dashes, as a person writes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from consensus.certificates import Certificates
from consensus.engine import Engine
from consensus.engines.local import LocalEngine
from consensus.engines.native import NativeEngine
from consensus.engines.pysyncobj import PySyncObjEngine
from consensus.errors import ConfigError
from consensus.peerdial import PEER_DIAL_VARIABLE, read_peer_dial
from consensus.tls import TlsFiles, check_peer_urls

Flags = Mapping[str, Any]

PEER_SCHEMES: Final = ("http", "https")


def client_addresses(flags: Flags) -> list[str]:
    """Return where clients are listened for, each "host:port".

    Raises:
        ConfigError: a URL is none that can be listened on.
    """
    urls = flags["listen-client-urls"].split(",")
    return [urlsplit(_checked(url, "listen-client-urls", ("http",))).netloc for url in urls]


def peer_certificates(flags: Flags) -> Certificates:
    """Return what this member shows the others, and trusts.

    Raises:
        ConfigError: a file is missing or wrong, or does not go with the members' URLs.
    """
    files = TlsFiles.of(flags, "peer-")
    urls = [_listen_url(flags), *_members(flags).values()]
    secure = [url for url in urls if urlsplit(url).scheme == "https"]
    if flags["engine"] != "native" and (secure or not files.empty):
        what = f"{secure[0]} cannot be served" if secure else "remove the --peer-*-file flags"
        raise ConfigError(f"--engine {flags['engine']} has no TLS between members: {what}")
    check_peer_urls(files, urls)
    return Certificates(peers=files)


def engine_of(flags: Flags, directory: Path, certificates: Certificates) -> Engine:
    """Return this member's engine, not yet started.

    Args:
        directory: where it keeps its data.
        certificates: those for peers are used.

    Raises:
        ConfigError: a flag is wrong, or two of them do not go together.
    """
    kind, name = flags["engine"], flags["name"]
    listen = urlsplit(_listen_url(flags)).netloc
    members = {member: urlsplit(url).netloc for member, url in _members(flags).items()}
    if kind == "local":
        if len(members) > 1:
            raise ConfigError("--engine local is one member in memory; it cannot be a cluster")
        return LocalEngine(name)
    common: dict[str, Any] = {
        "election_timeout_ms": flags["election-timeout"],
        "heartbeat_interval_ms": flags["heartbeat-interval"],
        "snapshot_entries": flags["snapshot-count"],
        "listen": listen,
        "dial": read_peer_dial(os.environ.get(PEER_DIAL_VARIABLE, "")),
    }
    if kind == "native":
        if flags["peer-password-file"] is not None:
            raise ConfigError("--peer-password-file belongs to --engine pysyncobj; remove it")
        return NativeEngine(
            name,
            members,
            directory,
            tls_server=certificates.peers_in,
            tls_client=certificates.peers_out,
            **common,
        )
    password = _password(flags["peer-password-file"])
    return PySyncObjEngine(name, members, directory, password=password, **common)


def _listen_url(flags: Flags) -> str:
    """Return the URL that peers are listened for at."""
    urls = flags["listen-peer-urls"].split(",")
    if len(urls) > 1:
        raise ConfigError(f"--listen-peer-urls: one URL is served, not {len(urls)}")
    return _checked(urls[0], "listen-peer-urls", PEER_SCHEMES)


def _members(flags: Flags) -> dict[str, str]:
    """Return each member's peer URL from ``--initial-cluster``."""
    text, name = flags["initial-cluster"], flags["name"]
    if not text:
        return {name: _listen_url(flags)}
    members: dict[str, str] = {}
    for part in text.split(","):
        member, equals, url = part.strip().partition("=")
        if not equals or not member:
            raise ConfigError(
                f"--initial-cluster: {part!r} is not name=http://host:port, or https://"
            )
        if member in members:
            raise ConfigError(f"--initial-cluster: {member!r} is named twice")
        members[member] = _checked(url, "initial-cluster", PEER_SCHEMES)
    if name not in members:
        raise ConfigError(
            f"--initial-cluster does not name this member, {name!r} (--name); "
            f"it names {', '.join(members)}"
        )
    return members


def _checked(url: str, flag: str, schemes: tuple[str, ...]) -> str:
    """Return a URL that has a host and a port."""
    try:
        parsed = urlsplit(url)
        if parsed.scheme in schemes and parsed.hostname and parsed.port:
            return url
    except ValueError:
        pass
    wanted = " or ".join(f"{scheme}://host:port" for scheme in schemes)
    raise ConfigError(f"--{flag}: {url!r} is not {wanted}")


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        password = path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"--peer-password-file: {path}: {error.strerror}") from None
    if not password:
        raise ConfigError(f"--peer-password-file: {path} is empty")
    return password
