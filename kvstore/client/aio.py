"""The client for programs with an event loop."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from kvstore.client.connection import Connection
from kvstore.client.endpoints import DEFAULT_ENDPOINT, Tls
from kvstore.client.maintenance import MaintenanceCalls
from kvstore.client.recipes import RecipeCalls


class AsyncClient(RecipeCalls, MaintenanceCalls):
    """A client of an etcd v3 cluster. It belongs to the event loop that first uses it.

    Args:
        endpoints: addresses of members, ``host:port`` or ``http(s)://host:port``; the first that
            answers is used, and the next when it fails.
        timeout_s: default deadline of a call, failover included.
        dial_timeout_s: how long opening a connection may take; an attempt has a quarter of it.
        tls: certificates; also makes addresses without a scheme secure.
        user, password: for a cluster with authentication.

    Raises ``ValueError`` if an endpoint cannot be read.

    >>> async with AsyncClient(["10.0.1.10:2379", "10.0.1.11:2379"]) as client:
    ...     await client.put("/config/title", "tizi365")
    ...     print(await client.get("/config/title"))
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] = DEFAULT_ENDPOINT,
        *,
        timeout_s: float = 5.0,
        dial_timeout_s: float = 2.0,
        tls: Tls | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        self.connection = Connection(
            endpoints,
            timeout_s=timeout_s,
            dial_timeout_s=dial_timeout_s,
            tls=tls,
            user=user,
            password=password,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Calls in flight end as cancelled."""
        await self.connection.close()
