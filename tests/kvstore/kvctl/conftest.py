"""Fixtures: a real etcd for kvctl, and one that serves API 2 beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kvstore.client.servers import Server, cluster


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real etcd with both APIs; their data are apart."""
    with cluster("etcd", tmp_path_factory.mktemp("etcd"), 1, "--enable-v2") as (server,):
        yield server
