"""Fixtures: a real server of each kind, shared by the tests of one module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from kvstore.client import AsyncClient
from tests.kvstore.client.servers import Server, cluster

KINDS = [pytest.param("etcd", marks=pytest.mark.interop)]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of server that this round of tests runs against."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A single server."""
    with cluster(kind, tmp_path_factory.mktemp(kind)) as servers:
        yield servers[0]


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncClient]:
    """A client of the single server, on an empty keyspace."""
    async with AsyncClient(server.endpoint) as client:
        await client.delete("", from_key=True)
        yield client
