"""Clients that are turned away before they could ask for anything: logged once for each reason."""

from __future__ import annotations

from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

TOLD_MAX: Final = 1024
"""Refusals that are remembered."""


class Refusals:
    """What was logged already."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def tell(self, peer: Any, reason: str) -> None:
        """Log why a client is refused, once for each host and reason: most clients try again."""
        host = str(peer[0]) if isinstance(peer, tuple) else ""
        if (host, reason) in self._told:
            return
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told.add((host, reason))
        log.warning("refused a client", peer=peer, reason=reason)


def bad_request(text: str) -> bytes:
    """Return a whole HTTP/1.1 response with this line; clients of HTTP/2 know it for what it is."""
    body = f"{text}\n".encode()
    return (
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
