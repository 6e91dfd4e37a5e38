"""Streams that want to end when this member has lost its leader.

A client that sends the metadata ``hasleader: true`` would rather have its stream broken, and try
another member, than wait at one that is cut off. Without a leader its stream is refused at once;
one that is open ends after three election timeouts without a leader (etcd's interceptor does the
same).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from consensus.types import EngineStatus
from kvstore.errors import NO_LEADER, EtcdError
from kvstore.rpc.registry import Metadata

ELECTIONS_WITHOUT_LEADER_MAX: Final = 3
"""Election timeouts without a leader after which streams that require one end."""

METADATA_KEY: Final = b"hasleader"


def requires_leader(metadata: Metadata) -> bool:
    """Return whether a call asks to be refused where there is no leader."""
    return metadata.get(METADATA_KEY, b"").lower() == b"true"


class LeaderGuard:
    """Knows whether there is a leader, and ends what cannot do without one.

    Args:
        election_timeout_s: seconds of one election timeout.
    """

    def __init__(self, election_timeout_s: float) -> None:
        self._patience_s = ELECTIONS_WITHOUT_LEADER_MAX * election_timeout_s
        self._has_leader = False
        self._timer: asyncio.TimerHandle | None = None
        self._streams: dict[object, Callable[[], None]] = {}

    def observe(self, status: EngineStatus) -> None:
        """Take note of a new status. Call it for each that ``Node.watch_status`` yields."""
        self._has_leader = status.leader is not None
        if self._has_leader:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._end_all)

    def check(self, metadata: Metadata) -> None:
        """Refuse a call that requires a leader while there is none.

        Raises:
            EtcdError: NO_LEADER.
        """
        if requires_leader(metadata) and not self._has_leader:
            raise EtcdError(NO_LEADER)

    @contextmanager
    def guard(self, metadata: Metadata, end: Callable[[], None]) -> Iterator[None]:
        """Call ``end`` once if the leader stays away while the body runs, where that is asked for.

        Raises:
            EtcdError: NO_LEADER, at once where there is none now.
        """
        self.check(metadata)
        if not requires_leader(metadata):
            yield
            return
        handle = object()
        self._streams[handle] = end
        try:
            yield
        finally:
            self._streams.pop(handle, None)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_all(self) -> None:
        self._timer = None
        ends, self._streams = list(self._streams.values()), {}
        for end in ends:
            end()
