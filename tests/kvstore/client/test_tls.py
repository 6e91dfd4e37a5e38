"""TLS to servers that ask their clients for certificates, made for the test."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from consensus.tls import TlsFiles, client_context, server_context
from kvstore.client import AsyncClient, Client, EndpointsUnavailable, Tls
from tests.certificates import Authority
from tests.interop import free_ports
from tests.kvstore.client.servers import Server, cluster
from tests.kvstore.kvctl.running import etcdctl, kvctl

KINDS = ["kvstore", pytest.param("etcd", marks=pytest.mark.interop)]


@attrs.frozen
class Files:
    """The authority's certificate, and the client's own with its key."""

    ca: Path
    cert: Path
    key: Path

    @property
    def tls(self) -> Tls:
        """For our client."""
        return Tls(ca_file=str(self.ca), cert_file=str(self.cert), key_file=str(self.key))

    @property
    def flags(self) -> list[str]:
        """For kvctl and etcdctl."""
        return [f"--cacert={self.ca}", f"--cert={self.cert}", f"--key={self.key}"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> Files:
    return Files(authority.file, *authority.sign("client"))


@pytest.fixture(scope="module", params=KINDS)
def secure(
    request: pytest.FixtureRequest,
    authority: Authority,
    files: Files,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server that speaks TLS to clients with certificates only."""
    cert, key = authority.sign("server")

    def prepare(servers: list[Server]) -> None:
        for server in servers:
            server.tls = client_context(
                TlsFiles(cert=files.cert, key=files.key, trusted_ca=authority.file)
            )
            server.command = [
                each.replace("http://", "https://") if "client-urls" in each else each
                for each in server.command
            ]

    flags = [
        f"--cert-file={cert}",
        f"--key-file={key}",
        f"--trusted-ca-file={authority.file}",
        "--client-cert-auth",
    ]
    directory = tmp_path_factory.mktemp("tls")
    with cluster(request.param, directory, 1, *flags, prepare=prepare) as (server,):
        yield server


def refusal_of(server: Server) -> str:
    """What a client without a certificate is told. etcd closes at once, which may overtake that."""
    ours = "kvstore.cli.server" in server.command
    return "it wants a certificate of its clients" if ours else "the endpoint did not answer"


async def test_calls_and_watches_over_tls(secure: Server, files: Files) -> None:
    async with (
        AsyncClient(secure.endpoint, tls=files.tls) as client,
        client.watch("/tls") as watch,
    ):
        await client.put("/tls", "1")
        assert (await anext(watch)).kv.value == b"1"


def test_the_synchronous_client_over_tls(secure: Server, files: Files) -> None:
    with Client(secure.endpoint, tls=files.tls) as client:
        client.put("/sync", "1")
        assert client.get("/sync").value == b"1"


@pytest.mark.interop
def test_etcdctl_over_tls(secure: Server, files: Files) -> None:
    there = f"--endpoints=https://{secure.endpoint}"

    def done(*words: str) -> bytes:
        output = etcdctl([*words, there, *files.flags], {"ETCDCTL_API": "3"})
        assert output.status == 0, output.stderr
        return output.stdout

    assert done("put", "/etcdctl", "1") == b"OK\n"
    assert done("get", "/etcdctl") == b"/etcdctl\n1\n"
    assert done("endpoint", "status", "--cluster").startswith(
        f"https://{secure.endpoint},".encode()
    )


async def test_what_is_wrong_is_said(secure: Server, files: Files) -> None:
    plain = AsyncClient(f"http://{secure.endpoint}", dial_timeout_s=10)
    untrusting = AsyncClient(f"https://{secure.endpoint}", dial_timeout_s=10)
    nameless = AsyncClient(
        f"https://{secure.endpoint}", dial_timeout_s=10, tls=Tls(ca_file=str(files.ca))
    )
    async with plain, untrusting, nameless:
        with pytest.raises(EndpointsUnavailable):
            await plain.put("/tls", "1")
        with pytest.raises(EndpointsUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await untrusting.put("/tls", "1")
        with pytest.raises(EndpointsUnavailable, match=refusal_of(secure)):
            await nameless.put("/tls", "1")


def test_kvctl_over_tls(secure: Server, files: Files) -> None:
    there = f"--endpoints=https://{secure.endpoint}"
    assert kvctl(("put", "/tls", "2", there, *files.flags), {}).stdout == b"OK\n"
    refused = kvctl(("get", "/tls", there), {})
    assert b"CERTIFICATE_VERIFY_FAILED" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_kvctl_as_a_process_says_one_line_of_a_refusal(secure: Server, files: Files) -> None:
    words = ("get", "/tls", f"--endpoints=https://{secure.endpoint}", f"--cacert={files.ca}")
    done = subprocess.run(
        [sys.executable, "-m", "kvstore.cli.kvctl", *words],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert refusal_of(secure) in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1, "gRPC's own lines are not shown"


def test_a_certificate_that_nobody_signed_can_be_taken_unverified(
    secure: Server, files: Files
) -> None:
    own = [f"--cert={files.cert}", f"--key={files.key}", "--insecure-skip-tls-verify"]
    there = f"--endpoints=https://{secure.endpoint}"
    assert kvctl(("put", "/unverified", "3", there, *own), {}).stdout == b"OK\n"
    (port,) = free_ports(1)
    nobody = kvctl(("get", "/tls", f"--endpoints=https://127.0.0.1:{port}", *own), {})
    assert b"it shows no certificate" in nobody.stderr
    assert len(nobody.stderr.splitlines()) == 1


async def test_an_expired_certificate_is_of_no_use_even_unverified(authority: Authority) -> None:
    cert, key = authority.sign("expired", expired=True)
    context = server_context(TlsFiles(cert=cert, key=key))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", ssl=context)
    port = server.sockets[0].getsockname()[1]
    unverified = AsyncClient(f"https://127.0.0.1:{port}", tls=Tls(skip_verify=True))
    async with server, unverified:
        with pytest.raises(EndpointsUnavailable, match=r"even unverified: certificate has expired"):
            await unverified.put("/tls", "1")
