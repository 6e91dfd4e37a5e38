"""What no generated message can be: methods that do not exist, and bytes that are no message."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from tests.clusters import Cluster, Program
from tests.interop import require_program

pytestmark = pytest.mark.interop

CALLS = {
    "unknown method": ("/etcdserverpb.KV/Nothing", b""),
    "unknown service": ("/etcdserverpb.Nothing/Range", b""),
    "a field that ends early": ("/etcdserverpb.KV/Range", b"\x0a\x05abc"),
    "a tag that is none": ("/etcdserverpb.KV/Put", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    "an unknown field": ("/etcdserverpb.KV/Range", b"\x0a\x01k\xfa\x3e\x03abc"),
    "no message at all": ("/etcdserverpb.KV/Put", b""),
}

Answer = tuple[grpc.StatusCode, str]


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """An etcd and a kvstore, each alone."""
    require_program("etcd")
    directory = tmp_path_factory.mktemp("wire")
    with (
        Cluster(Program.etcd(), directory / "etcd", size=1) as etcd,
        Cluster(Program.kvstore(), directory / "kvstore", size=1) as kvstore,
    ):
        yield etcd.endpoints[0], kvstore.endpoints[0]


async def answer(endpoint: str, path: str, body: bytes) -> Answer:
    """The status and its text for these bytes."""
    async with grpc.aio.insecure_channel(endpoint) as channel:
        try:
            await channel.unary_unary(path)(body, timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("call", CALLS)
async def test_status_as_etcd(endpoints: tuple[str, str], call: str) -> None:
    path, body = CALLS[call]
    expected = await answer(endpoints[0], path, body)
    actual = await answer(endpoints[1], path, body)
    assert actual[0] == expected[0]
    if not expected[1].startswith("grpc: error unmarshalling"):  # the rest is Go's parser's own
        assert actual[1] == expected[1]
    assert bool(actual[1]) == bool(expected[1])
