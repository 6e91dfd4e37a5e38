"""TLS on listening sockets: who is refused and told why, what that costs others, big bodies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from structlog.testing import capture_logs

from consensus.tls import TlsFiles, client_context, server_context
from kvstore.http2.acceptor import PROTOCOLS, USE_HTTP
from kvstore.http2.refusals import Refusals
from kvstore.http2.tls import USE_HTTPS, Handshakes
from kvstore.listeners import Listeners
from tests.certificates import Authority
from tests.waiting import wait_until

PATIENCE_S = 30.0
GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
BODY_BYTES = 5_000_000


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An application that answers with the scheme and then with what it was sent."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["scheme"].encode(), "more_body": True})
    more = True
    while more:
        event = await receive()
        more = event.get("more_body", False)
        part = {"type": "http.response.body", "body": event.get("body", b""), "more_body": more}
        await send(part)


@attrs.frozen
class Files:
    """An authority's, and of both ends."""

    authority: Authority
    server: TlsFiles
    client: TlsFiles


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    ends = []
    for name in ("server", "client"):
        cert, key = authority.sign(name)
        ends.append(TlsFiles(cert=cert, key=key, trusted_ca=authority.file))
    return Files(authority, *ends)


@contextlib.asynccontextmanager
async def listening(files: Files) -> AsyncIterator[tuple[int, int]]:
    """Serve ``echo``; yield a port that does not speak TLS and one that does."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    context = server_context(files.server, PROTOCOLS)
    listeners = Listeners(echo, sockets[:1], sockets[1:], context)
    await listeners.start()
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    try:
        yield sockets[0].getsockname()[1], sockets[1].getsockname()[1]
    finally:
        await listeners.stop()
    assert failures == []


async def ask(port: int, context: ssl.SSLContext | None, request: bytes = GET) -> bytes:
    """Send bytes and return all that comes back."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()


async def test_both_schemes_beside_each_other(files: Files) -> None:
    async with listening(files) as (plain, secure):
        assert b"http" in (await ask(plain, None)).splitlines()
        assert b"https" in (await ask(secure, client_context(files.client))).splitlines()


async def test_a_client_that_takes_the_wrong_scheme_is_told(files: Files) -> None:
    with capture_logs() as logs:
        async with listening(files) as (plain, secure):
            for _ in range(2):
                answer = await ask(secure, None)
                assert answer.startswith(b"HTTP/1.1 400 ")
                assert answer.endswith(f"{USE_HTTPS}\n".encode())
                with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
                    await ask(plain, client_context(files.client))
            assert USE_HTTP.encode() in await ask(plain, None, b"\x16\x03\x01")
    told = [line["reason"] for line in logs if line["event"] == "refused a client"]
    assert sorted(told) == ["it does not speak TLS", "it speaks TLS"], "each is told once"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_who_is_refused_gets_the_alert_of_it(
    tmp_path: Path, files: Files, version: ssl.TLSVersion
) -> None:
    cert, key = Authority(tmp_path, "foreign").sign("eve")
    nobody = TlsFiles(trusted_ca=files.authority.file)
    foreign = attrs.evolve(nobody, cert=cert, key=key)
    expired_cert, expired_key = files.authority.sign("old", expired=True)
    expired = attrs.evolve(nobody, cert=expired_cert, key=expired_key)
    with capture_logs() as logs:
        async with listening(files) as (_, secure):
            for certificate, alert in (
                (nobody, "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"),
                (foreign, "UNKNOWN_CA"),
                (expired, "CERTIFICATE_EXPIRED"),
            ):
                context = client_context(certificate)
                context.maximum_version = version
                with pytest.raises(ssl.SSLError, match=alert):
                    await ask(secure, context, GET * 1000)
            untrusting = client_context(
                attrs.evolve(files.client, trusted_ca=tmp_path / "foreign.pem")
            )
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(secure, untrusting)
            await wait_until(lambda: len(logs) == 4, PATIENCE_S, "the server says why, four times")
    words = ("no certificate", "local issuer", "expired", "not accept|not trust")
    for line, word in zip(logs, words, strict=True):
        assert any(each in str(line["reason"]) for each in word.split("|")), logs


async def test_big_bodies_pass_both_ways(files: Files) -> None:
    context = client_context(files.client)
    async with listening(files) as (_, secure), asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", secure, ssl=context)
        head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        body = bytes(range(250)) * (BODY_BYTES // 250)

        async def send() -> None:
            writer.write(head % len(body) + body)
            await writer.drain()

        sending = asyncio.create_task(send())
        text = await reader.read()
        await sending
        writer.close()
        # Chunked; what is between the chunks is no part of the pattern and short.
        assert BODY_BYTES < len(text) < BODY_BYTES + 100_000
        assert text.endswith(b"\r\n0\r\n\r\n")


@contextlib.asynccontextmanager
async def shaking_hands(handshakes: Handshakes) -> AsyncIterator[tuple[str, int]]:
    """Yield the address of a socket for these handshakes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(handshakes.accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        handshakes.close()


async def cut_off(*connections: socket.socket) -> None:
    """Return once the server has closed these."""
    for each in connections:
        each.setblocking(False)
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(each, 1) == b""
        each.close()


async def test_slow_handshakes_hold_up_nobody_below_a_bound(files: Files) -> None:
    served: list[asyncio.Protocol] = []

    def protocol() -> asyncio.Protocol:
        served.append(asyncio.Protocol())
        return served[-1]

    with capture_logs() as logs:
        context = server_context(files.server)
        handshakes = Handshakes(context, protocol, Refusals(), handshakes_max=3, timeout_s=600)
        async with shaking_hands(handshakes) as address, asyncio.timeout(PATIENCE_S):
            slow = [socket.create_connection(address) for _ in range(2)]
            slow[0].sendall(b"\x16\x03")
            _, writer = await asyncio.open_connection(*address, ssl=client_context(files.client))
            await wait_until(lambda: len(served) == 1, PATIENCE_S, "one shakes hands meanwhile")
            slow.append(socket.create_connection(address))
            await cut_off(socket.create_connection(address))
            assert [line["reason"] for line in logs] == ["3 handshakes are under way already"]
            slow.pop().close()

            async def another() -> bool:
                with contextlib.suppress(OSError):
                    end = await asyncio.open_connection(*address, ssl=client_context(files.client))
                    end[1].close()
                return len(served) == 2

            await wait_until(another, PATIENCE_S, "there is room again")
            writer.close()
        await cut_off(*slow)
    assert len(logs) == 1


async def test_a_handshake_that_takes_too_long_is_cut_off(files: Files) -> None:
    with capture_logs() as logs:
        context = server_context(files.server)
        handshakes = Handshakes(context, asyncio.Protocol, Refusals(), timeout_s=0.2)
        async with shaking_hands(handshakes) as address:
            slow = [socket.create_connection(address) for _ in range(2)]
            slow[0].sendall(b"\x16\x03")
            await cut_off(*slow)
    assert [line["reason"] for line in logs] == ["its handshake was not done in 0.2 s"]


async def test_a_stop_does_not_wait_for_handshakes(files: Files) -> None:
    context = client_context(files.client)
    async with listening(files) as (_, secure):
        waiting = socket.create_connection(("127.0.0.1", secure))
        waiting.sendall(b"\x16")
        assert b"https" in (await ask(secure, context)).splitlines()
    with contextlib.suppress(ConnectionResetError):
        assert waiting.recv(1) == b""
    waiting.close()
