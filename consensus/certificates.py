"""One member's TLS contexts, and their renewal: certificates run out sooner than servers.

etcd reads its certificate's files again at every handshake. Here they are looked at every few
seconds, and read again when they have changed: connections from then on show the new certificate,
those that are open stay. The pair is tried in a context of its own first, because a new certificate
may be there before its key is. The certificates to trust are read when the member starts.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from typing import Final

import attrs
import structlog

from consensus.errors import ConfigError
from consensus.tls import TlsFiles, client_context, load_pair, server_context

log = structlog.get_logger(__name__)

CHECK_S: Final = 5.0
"""How often the files are looked at."""

State = tuple[tuple[int, int, int], ...]
"""What of files changes when they are replaced or written: inode, size, time in ns of each."""


@attrs.define(slots=True)
class _Pair:
    """A certificate with its key, the contexts that show it, and what its files were like."""

    files: TlsFiles
    contexts: tuple[ssl.SSLContext, ...]
    seen: State | None


class Certificates:
    """What a member shows and trusts on its ports.

    Args:
        peers: the files for connections between members; empty where there is no TLS.
        clients: the files of the port that clients come to, in the same way.
        client_protocols: what that port speaks (ALPN), in the order of preference.

    Raises:
        ConfigError: a file is missing or wrong.
    """

    def __init__(
        self,
        *,
        peers: TlsFiles,
        clients: TlsFiles = TlsFiles(),  # noqa: B008 - it is frozen
        client_protocols: Sequence[str] = (),
    ) -> None:
        self.clients: ssl.SSLContext | None = None
        """For https:// client and metrics URLs."""
        self.peers_in: ssl.SSLContext | None = None
        """For what other members dial, and ``peers_out`` for what this one dials."""
        self.peers_out: ssl.SSLContext | None = None
        self._pairs: list[_Pair] = []
        if not clients.empty:
            state = _state(clients)
            self.clients = server_context(clients, client_protocols)
            self._pairs.append(_Pair(clients, (self.clients,), state))
        if not peers.empty:
            state = _state(peers)
            self.peers_in, self.peers_out = server_context(peers), client_context(peers)
            self._pairs.append(_Pair(peers, (self.peers_in, self.peers_out), state))

    async def run(self) -> None:
        """Look for new certificates until cancelled."""
        while self._pairs:
            await asyncio.sleep(CHECK_S)
            self.renew()

    def renew(self) -> None:
        """Read certificates whose files have changed; one that cannot be used is told once."""
        for pair in self._pairs:
            state = _state(pair.files)
            if state is None or state == pair.seen:
                continue
            pair.seen = state
            try:
                load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair.files)
                for context in pair.contexts:
                    load_pair(context, pair.files)
            except ConfigError as error:
                log.warning("a new certificate cannot be used", reason=str(error))
            else:
                log.info("shows a new certificate", certificate=str(pair.files.cert))


def _state(files: TlsFiles) -> State | None:
    """Return what the files are like now; None while one is missing."""
    try:
        found = [os.stat(path) for path in (files.cert, files.key) if path is not None]
    except OSError:
        return None
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)
