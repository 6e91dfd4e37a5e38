"""Where fault tests make members dial each other: through proxies, one for each link.

Members know each other by the addresses of ``--initial-cluster``. With ``RAFTYARD_PEER_DIAL`` in
its environment a member dials others elsewhere; what it says of itself stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from consensus.errors import ConfigError

PEER_DIAL_VARIABLE: Final = "RAFTYARD_PEER_DIAL"
"""Environment variable for fault tests: "name=host:port,...", where peers are dialled instead of at
their own addresses."""


def read_peer_dial(text: str, members: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses to dial, by member, from the text of ``RAFTYARD_PEER_DIAL``.

    Raises:
        ConfigError: an item is not name=host:port, or names no member.
    """
    dial = {}
    for item in filter(None, text.split(",")):
        name, equals, address = item.partition("=")
        if not equals or ":" not in address:
            raise ConfigError(f"{PEER_DIAL_VARIABLE}: {item!r} should be name=host:port")
        if name not in members:
            raise ConfigError(f"{PEER_DIAL_VARIABLE}: {name!r} is not one of {', '.join(members)}")
        dial[name] = address
    return dial
