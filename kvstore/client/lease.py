"""Leases: keys that live as long as someone keeps them alive.

``Lease`` grants one when its block is entered, renews it at every third of its time to live in the
background, and revokes it when the block is left. If it could not be renewed in time, or the server
says that it is gone, ``is_lost`` becomes true: by the client's own clock, started when the last
successful renewal was *sent*, so never later than the server could expire it.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from kvstore.client import rpcs
from kvstore.client.connection import Connection
from kvstore.client.errors import LeaseLost
from kvstore.client.records import LeaseInfo
from kvstore.errors import EtcdError
from kvstore.pb import etcdserverpb_pb2 as pb

RENEWALS_PER_TTL = 3


class LeaseCalls:
    """The calls of the Lease service. All raise the errors of ``Connection.call``."""

    connection: Connection

    async def lease_grant(
        self, ttl_s: int, lease_id: int = 0, *, timeout_s: float | None = None
    ) -> LeaseInfo:
        """Grant a lease of ``ttl_s`` seconds (a server may raise it). ID 0 lets it choose."""
        request = pb.LeaseGrantRequest(TTL=ttl_s, ID=lease_id)
        answer = await self.connection.call(rpcs.LEASE_GRANT, request, timeout_s=timeout_s)
        return LeaseInfo(answer.ID, answer.TTL, answer.TTL)

    async def lease_revoke(self, lease_id: int, *, timeout_s: float | None = None) -> None:
        """Revoke a lease and delete its keys. ``EtcdError`` with NOT_FOUND if there is none."""
        request = pb.LeaseRevokeRequest(ID=lease_id)
        await self.connection.call(rpcs.LEASE_REVOKE, request, timeout_s=timeout_s)

    async def lease_keepalive(self, lease_id: int, *, timeout_s: float | None = None) -> int:
        """Renew a lease once; return its time to live in seconds. Raises ``LeaseLost``."""
        request = pb.LeaseKeepAliveRequest(ID=lease_id)
        answer = await self.connection.call(rpcs.LEASE_KEEP_ALIVE, request, timeout_s=timeout_s)
        if answer.TTL <= 0:
            raise LeaseLost(lease_id)
        return answer.TTL

    async def lease_time_to_live(
        self, lease_id: int, *, keys: bool = False, timeout_s: float | None = None
    ) -> LeaseInfo:
        """Return what remains of a lease, with its keys if asked; ``ttl_s`` -1: no such lease."""
        request = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        answer = await self.connection.call(rpcs.LEASE_TIME_TO_LIVE, request, timeout_s=timeout_s)
        return LeaseInfo(answer.ID, answer.TTL, answer.grantedTTL, tuple(answer.keys))

    async def leases(self, *, timeout_s: float | None = None) -> tuple[int, ...]:
        """Return the IDs of all leases."""
        request = pb.LeaseLeasesRequest()
        answer = await self.connection.call(rpcs.LEASE_LEASES, request, timeout_s=timeout_s)
        return tuple(each.ID for each in answer.leases)

    def lease(self, ttl_s: int) -> Lease:
        """Hold a lease for as long as a block runs.

        >>> async with client.lease(10) as lease:
        ...     await client.put("/services/web/1", "10.0.1.10:80", lease=lease.id)
        ...     await serve()
        """
        return Lease(self, ttl_s)


class Lease:
    """A lease that is kept alive in the background. Made by ``AsyncClient.lease``."""

    def __init__(self, calls: LeaseCalls, ttl_s: int) -> None:
        self._calls = calls
        self.ttl_s = ttl_s
        self._id = 0
        self._lost = asyncio.Event()
        self._renewals: asyncio.Task[None] | None = None

    @property
    def id(self) -> int:
        """The lease's ID, once the block is entered."""
        return self._id

    @property
    def is_lost(self) -> bool:
        """True once the lease is gone, or may be gone for all that the client knows."""
        return self._lost.is_set()

    def check(self) -> None:
        """Raise ``LeaseLost`` if the lease is lost."""
        if self.is_lost:
            raise LeaseLost(self._id)

    async def wait_lost(self) -> None:
        """Return when the lease is lost."""
        await self._lost.wait()

    async def __aenter__(self) -> Self:
        sent_at = asyncio.get_running_loop().time()
        granted = await self._calls.lease_grant(self.ttl_s)
        self._id, self.ttl_s = granted.id, granted.ttl_s
        self._renewals = asyncio.create_task(self._renew(sent_at + self.ttl_s))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._renewals is not None:
            self._renewals.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewals
        if not self.is_lost:
            # Best effort: a lease that cannot be revoked now expires by itself.
            with contextlib.suppress(EtcdError):
                await self._calls.lease_revoke(self._id)

    async def _renew(self, expires_at: float) -> None:
        loop = asyncio.get_running_loop()
        pause_s = self.ttl_s / RENEWALS_PER_TTL
        while True:
            await asyncio.sleep(min(pause_s, max(expires_at - loop.time(), 0.0)))
            sent_at = loop.time()
            if sent_at >= expires_at:
                break
            try:
                ttl_s = await self._calls.lease_keepalive(
                    self._id, timeout_s=min(pause_s, expires_at - sent_at)
                )
            except LeaseLost:
                break
            except EtcdError:
                pause_s = min(pause_s, 0.2)  # no answer: try again soon, until it has expired
            else:
                expires_at = sent_at + ttl_s
                pause_s = ttl_s / RENEWALS_PER_TTL
        self._lost.set()
