"""TLS to a real etcd that asks its clients for certificates, made for the test."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kvstore.client import AsyncClient, EndpointsUnavailable, Tls
from tests.kvstore.client.servers import Server, cluster
from tests.kvstore.kvctl.running import kvctl

pytestmark = pytest.mark.interop


@attrs.frozen
class Authority:
    """A certificate authority in a directory."""

    directory: Path
    key: ec.EllipticCurvePrivateKey = attrs.field(
        factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def write(self, name: str, key: ec.EllipticCurvePrivateKey | None = None) -> Path:
        """Write ``name.pem`` (and ``name.key``); without ``key`` the authority's own."""
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
            .public_key((key or self.key).public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=key is None, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        path = self.directory / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        if key is not None:
            path.with_suffix(".key").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, server.pem, client.pem and their keys."""
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    authority.write("ca")
    for name in ("server", "client"):
        authority.write(name, ec.generate_private_key(ec.SECP256R1()))
    return authority.directory


@pytest.fixture(scope="module")
def secure(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An etcd that speaks TLS to clients with certificates only."""

    def prepare(servers: list[Server]) -> None:
        for server in servers:
            server.scheme = "https"
            server.command = [
                each.replace("http://", "https://") if "client-urls" in each else each
                for each in server.command
            ]

    flags = [
        f"--cert-file={files / 'server.pem'}",
        f"--key-file={files / 'server.key'}",
        f"--trusted-ca-file={files / 'ca.pem'}",
        "--client-cert-auth",
    ]
    with cluster("etcd", tmp_path_factory.mktemp("tls"), 1, *flags, prepare=prepare) as (server,):
        yield server


def tls_of(files: Path) -> Tls:
    return Tls(
        ca_file=str(files / "ca.pem"),
        cert_file=str(files / "client.pem"),
        key_file=str(files / "client.key"),
    )


async def test_calls_and_watches_over_tls(secure: Server, files: Path) -> None:
    async with (
        AsyncClient(secure.endpoint, tls=tls_of(files)) as client,
        client.watch("/tls") as watch,
    ):
        await client.put("/tls", "1")
        assert (await anext(watch)).kv.value == b"1"


async def test_what_is_wrong_is_said(secure: Server, files: Path) -> None:
    plain = AsyncClient(f"http://{secure.endpoint}", dial_timeout_s=1)
    untrusting = AsyncClient(f"https://{secure.endpoint}", dial_timeout_s=1)
    async with plain, untrusting:
        with pytest.raises(EndpointsUnavailable):
            await plain.put("/tls", "1")
        with pytest.raises(EndpointsUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await untrusting.put("/tls", "1")


def test_kvctl_over_tls(secure: Server, files: Path) -> None:
    flags = [f"--cacert={files / 'ca.pem'}", f"--cert={files / 'client.pem'}"]
    flags += [f"--key={files / 'client.key'}", f"--endpoints=https://{secure.endpoint}"]
    assert kvctl(("put", "/tls", "2", *flags), {}).stdout == b"OK\n"
    refused = kvctl(("get", "/tls", "--endpoints", f"https://{secure.endpoint}"), {})
    assert b"CERTIFICATE_VERIFY_FAILED" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
