"""Certificates that are replaced while a member runs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consensus import certificates
from consensus.certificates import Certificates
from consensus.tls import TlsFiles, client_context, server_context
from tests.certificates import Authority
from tests.consensus.test_tls import handshake
from tests.interop import free_ports
from tests.kvstore.rpc.member import running_member
from tests.waiting import wait_until

PATIENCE_S = 30.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def serial_shown(server: ssl.SSLContext | None, client: ssl.SSLContext | None) -> str:
    """The serial number of the certificate that the client's end shows to the server's."""
    assert server is not None and client is not None
    certificate = handshake(server, client).getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def test_a_new_certificate_is_shown_once_its_key_is_there(authority: Authority) -> None:
    cert, key = authority.sign("peer")
    there = TlsFiles(cert=cert, key=key, trusted_ca=authority.file)
    ours = Certificates(peers=there)
    assert ours.clients is None
    listener, dialler = server_context(there), client_context(there)

    def shown() -> set[str]:
        return {serial_shown(listener, ours.peers_out), server_serial(ours.peers_in, dialler)}

    before = shown()
    assert len(before) == 1
    ours.renew()
    assert shown() == before
    old_key = key.read_bytes()
    authority.sign("peer")
    new_key = key.read_bytes()
    key.unlink()
    with capture_logs() as logs:
        ours.renew()
        key.write_bytes(old_key)
        ours.renew()
        ours.renew()
        assert shown() == before
        key.write_bytes(new_key + b"\n")
        ours.renew()
    after = shown()
    assert len(after) == 1
    assert after != before
    events = ["a new certificate cannot be used", "shows a new certificate"]
    assert [line["event"] for line in logs] == events
    assert "is not the key of the certificate" in logs[0]["reason"]


def server_serial(server: ssl.SSLContext | None, client: ssl.SSLContext) -> str:
    """The serial number of the certificate that the server's end shows."""
    assert server is not None
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    dialling = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for end in (dialling, serving, dialling):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    certificate = dialling.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


async def test_a_member_looks_for_new_certificates_by_itself(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "CHECK_S", 0.02)
    cert, key = authority.sign("server")
    (port,) = free_ports(1)
    flags = ["--listen-client-urls", f"https://127.0.0.1:{port}"]
    flags += ["--cert-file", str(cert), "--key-file", str(key)]

    async def shown() -> str:
        context = client_context(TlsFiles(trusted_ca=authority.file))
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.close()
        return str(writer.get_extra_info("peercert")["serialNumber"])

    async with running_member(tmp_path, *flags):
        before = await shown()
        authority.sign("server")

        async def renewed() -> bool:
            return await shown() != before

        await wait_until(renewed, PATIENCE_S, "the new certificate is shown")
