"""Members that talk over mutual TLS, and what is said of one that nobody trusts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consensus.transport import wire_pb2 as wire
from consensus.transport.streams import SnapshotSink
from consensus.transport.tcp import TcpTransport, TransportConfig, ask_members
from consensus.transport.tls import tls_failure
from consensus.types import Member, NodeId
from tests.certificates import Authority
from tests.interop import free_ports
from tests.waiting import wait_until

PATIENCE_S = 30.0
TURNS = 20
"""Turns of the loop, more than enough to accept what the kernel has for it."""


class Party:
    """One member's transport, and what it heard."""

    members: tuple[Member, ...] = ()

    def __init__(self, config: TransportConfig) -> None:
        self.heard: list[tuple[str, int]] = []
        self.transport = TcpTransport(config, self)

    def received(self, sender: NodeId, envelope: wire.Envelope) -> None:
        self.heard.append((sender, envelope.term))

    def peer_gone(self, peer: NodeId) -> None:
        self.heard.append((peer, -1))

    def snapshot_incoming(self, sender: NodeId, term: int, header: wire.Snapshot) -> SnapshotSink:
        raise AssertionError("nobody sends one")

    def was_removed(self, sender: NodeId) -> bool:
        return False

    def met(self, sender: NodeId, address: str, feature_level: int) -> None: ...

    def connected(self, peer: NodeId) -> None: ...

    def refused_as_removed(self, peer: NodeId, reason: str) -> None: ...


def contexts(
    authority: Authority, name: str, *, trusts: Authority | None = None, expired: bool = False
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A member's two contexts."""
    cert, key = authority.sign(name, expired=expired)
    both = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    for context in both:
        context.load_cert_chain(cert, key)
        context.load_verify_locations((trusts or authority).file)
    both[0].verify_mode = ssl.CERT_REQUIRED
    return both


async def dials_over(running: list[Party]) -> None:
    """Have nobody dial, and wait until what was dialled is gone.

    asyncio forgets a connection that it accepts in the very turn in which its server is closed, and
    the garbage collector complains of it in whichever test runs by then.
    """
    for party in running:
        for peer in list(party.transport._peers):
            party.transport.remove_peer(peer)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    servers = [party.transport._server for party in running]
    await wait_until(
        lambda: not any(getattr(server, "_active_count", 0) for server in servers),
        PATIENCE_S,
        "no connection, and no handshake, is left",
    )


@asynccontextmanager
async def parties(
    **tls: tuple[ssl.SSLContext, ssl.SSLContext] | None,
) -> AsyncIterator[dict[str, Party]]:
    """Members by name, each of which dials all the others."""
    ports = dict(zip(tls, free_ports(len(tls)), strict=True))
    running: dict[str, Party] = {}
    try:
        for name, both in tls.items():
            server, client = both or (None, None)
            address = f"127.0.0.1:{ports[name]}"
            party = Party(
                TransportConfig(
                    node_id=name,
                    cluster="c",
                    listen=address,
                    address=address,
                    tls_server=server,
                    tls_client=client,
                )
            )
            await party.transport.start(party)
            running[name] = party
        for name, party in running.items():
            for other in ports.keys() - {name}:
                party.transport.add_peer(other, f"127.0.0.1:{ports[other]}")
        yield running
    finally:
        await dials_over(list(running.values()))
        for party in running.values():
            await party.transport.stop()


async def connected(party: Party, *peers: str) -> None:
    await wait_until(
        lambda: all(party.transport.connected(peer) for peer in peers), PATIENCE_S, str(peers)
    )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_members_talk_over_mutual_tls(authority: Authority) -> None:
    async with parties(a=contexts(authority, "a"), b=contexts(authority, "b")) as running:
        a, b = running["a"], running["b"]
        await connected(a, "b")
        for term in range(1, 200):
            chunk = bytes(term) * 100
            a.transport.send("b", wire.Envelope(term=term, snapshot_chunk=chunk))
        a.transport.flush()
        await wait_until(lambda: len(b.heard) == 199, PATIENCE_S, "all messages arrive")
        assert b.heard == [("a", term) for term in range(1, 200)]
        await a.transport.stop()
        await wait_until(lambda: b.heard[-1] == ("a", -1), PATIENCE_S, "the end is noticed")


@pytest.mark.parametrize(
    ("how", "to_others", "to_itself"),
    [
        ("foreign", "unable to get local issuer certificate", "may not accept this member's"),
        ("expired", "certificate has expired", "may not accept this member's certificate"),
        ("plain", "it ended the connection at once", None),
    ],
)
async def test_a_member_that_nobody_trusts_is_refused_in_one_line_and_the_others_go_on(
    tmp_path: Path, authority: Authority, how: str, to_others: str, to_itself: str | None
) -> None:
    stranger = None
    if how == "foreign":
        stranger = contexts(Authority(tmp_path, "foreign"), "eve", trusts=authority)
    elif how == "expired":
        stranger = contexts(authority, "eve", expired=True)
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    honest = {name: contexts(authority, name) for name in ("a", "b")}
    with capture_logs() as logs:

        def told(about: str, reason: str) -> int:
            return sum(
                line.get("peer") == about and reason in str(line.get("reason")) for line in logs
            )

        async with parties(**honest, eve=stranger) as running:
            await connected(running["a"], "b")
            await connected(running["b"], "a")
            await wait_until(lambda: told("eve", to_others) == 2, PATIENCE_S, "both say why")
            if to_itself is not None:
                await wait_until(
                    lambda: told("a", to_itself) == told("b", to_itself) == 1,
                    PATIENCE_S,
                    "the stranger says why",
                )
            assert not any(running[name].transport.connected("eve") for name in honest)
            assert not any(running["eve"].transport.connected(name) for name in honest)
            running["a"].transport.send("b", wire.Envelope(term=7))
            running["a"].transport.flush()
            await wait_until(lambda: running["b"].heard == [("a", 7)], PATIENCE_S, "they go on")
            assert running["a"].heard == running["eve"].heard == []
        assert told("eve", to_others) == 2, "each says it once"
    assert failures == []


async def test_one_that_is_to_join_is_told_why_it_cannot_ask(
    tmp_path: Path, authority: Authority
) -> None:
    async with parties(a=contexts(authority, "a")) as running:
        address = running["a"].transport._config.listen
        _, client = contexts(authority, "new")
        assert await ask_members(address, "c", PATIENCE_S, client) == ()
        _, foreign = contexts(Authority(tmp_path, "foreign"), "eve", trusts=authority)
        with pytest.raises(OSError, match="it may not accept this member's certificate"):
            await ask_members(address, "c", PATIENCE_S, foreign)
        _, trusting = contexts(authority, "eve", trusts=Authority(tmp_path, "other"))
        with pytest.raises(OSError, match="its certificate is not accepted"):
            await ask_members(address, "c", PATIENCE_S, trusting)
        with pytest.raises(OSError, match="gave no answer"):
            await ask_members(address, "c", PATIENCE_S)


def test_what_the_other_side_says_is_put_into_words(tmp_path: Path, authority: Authority) -> None:
    server, _ = contexts(authority, "a")
    _, foreign = contexts(Authority(tmp_path, "foreign"), "eve", trusts=authority)
    _, expired = contexts(authority, "old", expired=True)
    nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.load_verify_locations(authority.file)
    for client, words in (
        (foreign, "it does not trust the authority that signed this member's certificate"),
        (expired, "it says that this member's certificate has expired"),
        (nameless, "it wants a certificate, and this member has none"),
    ):
        assert tls_failure(answer_of(server, client)) == words
    assert tls_failure(ConnectionRefusedError(111, "Connection refused")) == ""


def answer_of(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLError:
    """Let the two shake hands in memory; return what the client gets for an answer."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    dialling = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for _ in range(10):
        with contextlib.suppress(ssl.SSLWantReadError):
            dialling.do_handshake()
        with contextlib.suppress(ssl.SSLError):
            serving.do_handshake()
        try:
            dialling.read(1)
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError as error:
            return error
    raise AssertionError("the client was not refused")
