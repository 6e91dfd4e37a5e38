"""Where fault tests make members dial each other: through proxies, one for each link.

Members know each other by the addresses of ``--initial-cluster``, and of members that join later by
those that they were added with. With ``RAFTYARD_PEER_DIAL`` in its environment a member dials such
an address elsewhere; what it says of itself stays the same. Addresses are what it is keyed by: a
member that joins has one before anybody knows its name or ID.
"""

from __future__ import annotations

from typing import Final

from consensus.errors import ConfigError

PEER_DIAL_VARIABLE: Final = "RAFTYARD_PEER_DIAL"
"""Environment variable for fault tests: "host:port=host:port,...", a peer's own address and where
it is dialled instead."""


def read_peer_dial(text: str) -> dict[str, str]:
    """Return where to dial, by a peer's own address, from the text of ``RAFTYARD_PEER_DIAL``.

    Raises:
        ConfigError: an item is not host:port=host:port.
    """
    dial = {}
    for item in filter(None, text.split(",")):
        own, equals, instead = item.partition("=")
        if not equals or ":" not in own or ":" not in instead:
            raise ConfigError(f"{PEER_DIAL_VARIABLE}: {item!r} should be host:port=host:port")
        dial[own] = instead
    return dial
