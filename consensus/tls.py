"""TLS contexts from certificate files, for both sides of every port.

The rules are etcd's. A server that names certificates to trust asks every client for one that they
have signed. A client checks the server's certificate against them, or against the system's where
none are named, and checks that it is made out to the host that was dialled.

What is wrong with a file is said when a context is made, by the flag that names the file.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import attrs

from consensus.errors import ConfigError


class Settings(Protocol):
    """Settings by the names of their flags."""

    def __getitem__(self, name: str, /) -> Any:
        """Return what was given, or the flag's default."""


@attrs.frozen(slots=True, kw_only=True)
class TlsFiles:
    """The files of one side of a port, all PEM.

    Args:
        cert: its own certificate, with the chain below the root after it.
        key: the certificate's private key, not encrypted.
        trusted_ca: the certificates that sign those of the other side.
        require_client_cert: a server asks for clients' certificates (implied by ``trusted_ca``).
        flags: what the user calls cert, key and trusted_ca, for errors.
    """

    cert: Path | None = None
    key: Path | None = None
    trusted_ca: Path | None = None
    require_client_cert: bool = False
    flags: tuple[str, str, str] = ("--cert-file", "--key-file", "--trusted-ca-file")

    @classmethod
    def of(cls, settings: Settings, prefix: str = "") -> TlsFiles:
        """Return the files that a server's settings name by the flags with this prefix."""
        names = [f"{prefix}{name}" for name in ("cert-file", "key-file", "trusted-ca-file")]
        cert, key, trusted_ca = (Path(settings[name]) if settings[name] else None for name in names)
        return cls(
            cert=cert,
            key=key,
            trusted_ca=trusted_ca,
            require_client_cert=settings[f"{prefix}client-cert-auth"],
            flags=(f"--{names[0]}", f"--{names[1]}", f"--{names[2]}"),
        )

    @property
    def empty(self) -> bool:
        """Whether nothing of it was asked for."""
        return not (self.cert or self.key or self.trusted_ca or self.require_client_cert)


def check_peer_urls(files: TlsFiles, urls: Sequence[str]) -> None:
    """Compare the files for https:// between members with the members' URLs.

    Args:
        urls: where this member listens, and where each member is reached.

    Raises:
        ConfigError: some URLs are https:// and some are not, or they do not go with the files.
    """
    secure = [url for url in urls if urlsplit(url).scheme == "https"]
    plain = [url for url in urls if urlsplit(url).scheme != "https"]
    if secure and plain:
        raise ConfigError(
            f"peer URLs must all be https:// or none of them: {secure[0]} is, {plain[0]} is not"
        )
    if plain and not files.empty:
        raise ConfigError(
            f"certificates for peers are given, but {plain[0]} is not an https:// URL: what "
            "members say would not be encrypted"
        )
    cert_flag, key_flag, _ = files.flags
    if secure and (files.cert is None or files.key is None):
        raise ConfigError(
            f"TLS key/cert ({cert_flag}, {key_flag}) must be provided for peer url {secure[0]} "
            "with HTTPS scheme"
        )


def server_context(files: TlsFiles, protocols: Sequence[str] = ()) -> ssl.SSLContext:
    """Return the context of a server with these files.

    Args:
        protocols: what it speaks (ALPN), in the order of preference.

    Raises:
        ConfigError: a file is missing or wrong; the text names its flag.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if files.cert is None:
        raise ConfigError(f"{files.flags[0]} and {files.flags[1]} are needed for https://")
    load_pair(context, files)
    if files.trusted_ca is not None or files.require_client_cert:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_trusted(context, files, ssl.Purpose.CLIENT_AUTH)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def client_context(files: TlsFiles, protocols: Sequence[str] = ()) -> ssl.SSLContext:
    """Return the context of a client with these files; without a certificate it shows none.

    Raises:
        ConfigError: a file is missing or wrong; the text names its flag.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if files.cert is not None or files.key is not None:
        load_pair(context, files)
    _load_trusted(context, files, ssl.Purpose.SERVER_AUTH)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Have a context show a certificate, in handshakes from now on.

    Raises:
        ConfigError: as ``server_context``.
    """
    cert_flag, key_flag, _ = files.flags
    if files.cert is None or files.key is None:
        given, missing = (cert_flag, key_flag) if files.cert else (key_flag, cert_flag)
        raise ConfigError(f"{given} is given without {missing}; a certificate needs its key")
    _check_readable(files.cert, cert_flag)
    _check_readable(files.key, key_flag)
    try:
        # Without a password of ours the library would ask for one on the terminal.
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except _Encrypted:
        raise ConfigError(
            f"{key_flag}: {files.key} is encrypted; give a key without a password (openssl pkey "
            f"-in {files.key} -out plain.pem)"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"{key_flag}: {files.key} is not the key of the certificate in {files.cert}"
            ) from None
        raise ConfigError(
            f"{cert_flag}, {key_flag}: {files.cert} and {files.key} cannot be used: "
            f"{_reason(error)}; both must be PEM"
        ) from None
    except OSError as error:  # it went while it was read
        raise ConfigError(f"{cert_flag}, {key_flag}: {error.strerror}") from None


def _load_trusted(context: ssl.SSLContext, files: TlsFiles, purpose: ssl.Purpose) -> None:
    if files.trusted_ca is None:
        context.load_default_certs(purpose)
        return
    flag = files.flags[2]
    _check_readable(files.trusted_ca, flag)
    try:
        context.load_verify_locations(files.trusted_ca)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{flag}: {files.trusted_ca} has no certificates that can be used: {_reason(error)}"
        ) from None


def _check_readable(path: Path, flag: str) -> None:
    try:
        with path.open("rb") as file:
            os.read(file.fileno(), 1)
    except OSError as error:
        raise ConfigError(f"{flag}: cannot read {path}: {error.strerror}") from None


class _Encrypted(Exception):
    """A key asks for a password."""


def _no_password() -> str:
    raise _Encrypted


def _reason(error: ssl.SSLError) -> str:
    """What the library says, in words; its own source's line is no news."""
    said = error.reason or str(error).partition("(")[0].replace("[SSL]", "").strip()
    return said.lower().replace("_", " ")
