"""Listen and advertise URLs, checked as etcd checks them."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

import attrs

from consensus.errors import ConfigError

SCHEMES: Final = ("http", "https", "unix", "unixs")
PORT_MAX: Final = 65_535


@attrs.frozen(slots=True)
class Url:
    """One URL of a flag. ``text`` is as it was written; ``host`` is without brackets."""

    text: str
    scheme: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address; for unix:// the socket's path."""
        if self.scheme == "unix":
            return self.text.removeprefix("unix://")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        if self.scheme == "unix" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_url(text: str, flag: str) -> Url:
    """Return one URL.

    Raises:
        ConfigError: it is not one that etcd would take; the text names ``flag`` and the reason.
    """
    wrong = f"--{flag}: "
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{wrong}{text!r} is not a URL ({error})") from None
    if parts.scheme not in SCHEMES:
        raise ConfigError(
            f"{wrong}URL scheme must be http, https, unix, or unixs: {text}"
            + ("" if parts.scheme and "://" in text else f" (did you mean http://{text}?)")
        )
    if parts.scheme == "unixs":
        raise ConfigError(f"{wrong}{text}: there is no TLS on unix sockets here; use unix://")
    if parts.scheme == "unix":
        if not text.removeprefix("unix://"):
            raise ConfigError(f"{wrong}{text} has no path to a socket")
        return Url(text, "unix", "", 0)
    if not parts.hostname or port is None:
        raise ConfigError(f'{wrong}URL address does not have the form "host:port": {text}')
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(f"{wrong}URL must not contain a path: {text}")
    if parts.username is not None:
        raise ConfigError(f"{wrong}URL must not contain a user name: {text}")
    return Url(text.rstrip("/"), parts.scheme, parts.hostname, port)


def parse_urls(text: str, flag: str) -> tuple[Url, ...]:
    """Return the URLs of a comma-separated list; at least one, none twice.

    Raises:
        ConfigError: see ``parse_url``.
    """
    parts = [part.strip() for part in text.split(",")]
    urls = tuple(parse_url(part, flag) for part in parts if part)
    if not urls:
        raise ConfigError(f"--{flag}: expected at least one URL, got {text!r}")
    seen: set[str] = set()
    for url in urls:
        if url.address in seen:
            raise ConfigError(f"--{flag}: {url.text} is given twice")
        seen.add(url.address)
    return urls


def check_can_bind(urls: tuple[Url, ...], flag: str) -> None:
    """Refuse names in listen URLs: a listener needs an address (etcd refuses them too).

    Raises:
        ConfigError: a host is neither an IP address nor localhost.
    """
    for url in urls:
        if url.scheme == "unix" or url.host == "localhost":
            continue
        try:
            ipaddress.ip_address(url.host)
        except ValueError:
            raise ConfigError(
                f"--{flag}: expected IP in URL for binding ({url.text}); names belong into the "
                "advertise flags"
            ) from None
