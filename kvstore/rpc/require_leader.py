"""Streams that want to end when this member has lost its leader.

A client that sends the metadata ``hasleader: true`` would rather have its stream broken, and try
another member, than wait at one that is cut off. Without a leader its stream is refused at once;
one that is open ends after three election timeouts without a leader (etcd's interceptor does the
same).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs

from consensus.types import EngineStatus
from kvstore.errors import NO_LEADER, EtcdError
from kvstore.rpc.registry import Metadata

ELECTIONS_WITHOUT_LEADER_MAX: Final = 3
"""Election timeouts without a leader after which streams that require one end."""

METADATA_KEY: Final = b"hasleader"


def requires_leader(metadata: Metadata) -> bool:
    """Return whether a call asks to be refused where there is no leader."""
    return metadata.get(METADATA_KEY, b"").lower() == b"true"


@attrs.define(slots=True, eq=False)
class _Guarded:
    """A task that serves a stream which requires a leader."""

    task: asyncio.Task[Any]
    ended: bool = False


class LeaderGuard:
    """Knows whether there is a leader, and ends what cannot do without one.

    Args:
        election_timeout_s: seconds of one election timeout.
    """

    def __init__(self, election_timeout_s: float) -> None:
        self._patience_s = ELECTIONS_WITHOUT_LEADER_MAX * election_timeout_s
        self._has_leader = False
        self._timer: asyncio.TimerHandle | None = None
        self._guarded: set[_Guarded] = set()

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
    def guard(self, metadata: Metadata) -> Iterator[None]:
        """Break the body off, where the call asks for it, when the leader stays away.

        Raises:
            EtcdError: NO_LEADER, at once where there is none now, or later by cancelling the task.
        """
        self.check(metadata)
        task = asyncio.current_task()
        if task is None or not requires_leader(metadata):
            yield
            return
        guarded = _Guarded(task)
        self._guarded.add(guarded)
        try:
            yield
        except asyncio.CancelledError:
            if not guarded.ended:
                raise
            task.uncancel()
            raise EtcdError(NO_LEADER) from None
        finally:
            self._guarded.discard(guarded)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_all(self) -> None:
        self._timer = None
        for guarded in self._guarded:
            guarded.ended = True
            guarded.task.cancel()
        self._guarded.clear()
