"""Several endpoints, dead ones, and lost answers: what is retried, and what never is."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kvstore.client import (
    AsyncClient,
    Code,
    EndpointsUnavailable,
    EtcdError,
    OutcomeUnknown,
    Put,
    Tls,
    version,
)
from kvstore.client.endpoints import Dialer, Endpoint
from tests.interop import free_ports
from tests.kvstore.client.servers import Server, cluster
from tests.waiting import wait_until


def dead_endpoint() -> str:
    """Return an address where nothing listens."""
    return f"127.0.0.1:{free_ports(1)[0]}"


class Link:
    """A TCP proxy that can be slow to begin, go silent toward the client, or cut everything."""

    def __init__(self, target: str) -> None:
        self._target = target.rpartition(":")
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.delay_s = 0.0
        self.mute = False
        self.sent_while_mute = 0
        self.endpoint = ""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target
        await asyncio.sleep(self.delay_s)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        self._writers += [writer, far_writer]
        back = asyncio.create_task(self._pump(far_reader, writer, answers=True))
        self._tasks.append(back)
        await self._pump(reader, far_writer, answers=False)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                if self.mute and answers:
                    continue
                if self.mute:
                    self.sent_while_mute += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def link_to(server: Server) -> AsyncIterator[Link]:
    link = Link(server.endpoint)
    listener = await asyncio.start_server(link.carry, "127.0.0.1", 0)
    link.endpoint = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield link
    finally:
        listener.close()
        link.cut()


async def test_a_dead_first_endpoint_is_passed_over(server: Server) -> None:
    async with AsyncClient([dead_endpoint(), server.endpoint]) as client:
        await client.put("/a", "1")
        kv = await client.get("/a")
        assert kv is not None
        assert kv.value == b"1"
        async with client.watch("/a", start_revision=kv.mod_revision) as watch:
            assert (await anext(watch)).kv.value == b"1"


async def test_all_dead_endpoints_are_named_with_reasons() -> None:
    one, two = dead_endpoint(), dead_endpoint()
    async with AsyncClient([one, two]) as client:
        with pytest.raises(EndpointsUnavailable) as unavailable:
            await client.put("/a", "1")
        assert unavailable.value.failures == {
            one: "connection refused",
            two: "connection refused",
        }
        with pytest.raises(EndpointsUnavailable, match="no endpoint answered"):
            await client.get("/a")
        with pytest.raises(EndpointsUnavailable):
            await anext(client.watch("/a"))


async def test_a_silent_endpoint_costs_the_dial_timeout_only(server: Server) -> None:
    """Something that accepts connections but never speaks is not an endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        async with AsyncClient([endpoint, server.endpoint], dial_timeout_s=0.3) as client:
            began = time.monotonic()
            await client.put("/a", "1")
            assert time.monotonic() - began < 3


async def test_a_far_endpoint_has_time_to_shake_hands(server: Server) -> None:
    async with link_to(server) as link:
        link.delay_s = 0.4
        async with AsyncClient(link.endpoint, timeout_s=40, dial_timeout_s=40) as client:
            await client.put("/far", "1")


async def test_a_write_whose_answer_is_lost_is_unknown_and_not_sent_again(server: Server) -> None:
    """The link goes silent under a put: the server has it, the client must not claim either."""
    async with link_to(server) as link, AsyncClient(server.endpoint) as direct:
        await direct.delete("/lost")
        async with AsyncClient([link.endpoint, server.endpoint], timeout_s=0.5) as client:
            await client.put("/warm", "1")
            link.mute = True
            with pytest.raises(OutcomeUnknown, match="may or may not have been applied") as lost:
                await client.put("/lost", "x")
            assert lost.value.status.code is Code.DEADLINE_EXCEEDED
            assert link.sent_while_mute > 0
        kv = await direct.get("/lost")
        assert kv is not None
        assert kv.version == 1  # applied once: the good second endpoint did not get it as well


async def test_a_cut_link_under_a_write_is_unknown(server: Server) -> None:
    async with link_to(server) as link, AsyncClient([link.endpoint, server.endpoint]) as client:
        await client.put("/warm", "1")
        link.mute = True
        writing = asyncio.create_task(client.put("/cut", "x"))
        await wait_until(lambda: link.sent_while_mute > 0)
        link.cut()
        with pytest.raises(OutcomeUnknown):
            await writing


async def test_a_cut_link_under_a_read_moves_to_the_next_endpoint(server: Server) -> None:
    async with link_to(server) as link, AsyncClient([link.endpoint, server.endpoint]) as client:
        await client.put("/read", "1")
        link.mute = True
        reading = asyncio.create_task(client.get("/read"))
        await wait_until(lambda: link.sent_while_mute > 0)
        link.cut()
        kv = await asyncio.wait_for(reading, 10)
        assert kv is not None
        assert kv.value == b"1"


async def test_only_a_txn_that_reads_is_repeatable(server: Server) -> None:
    async with link_to(server) as link, AsyncClient([link.endpoint], timeout_s=0.3) as client:
        await client.put("/warm", "1")
        link.mute = True
        with pytest.raises(OutcomeUnknown):
            await client.txn(when=[version("/t") == 0], then=[Put("/t", "1")])
        with pytest.raises(EtcdError) as read:
            await client.txn(when=[version("/t") == 0])
        assert not isinstance(read.value, OutcomeUnknown)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("localhost", "for example localhost:2379"),
        ("ftp://localhost:2379", "http://host:port or https://host:port"),
        ("127.0.0.1:99999", "for example 127.0.0.1:2379"),
        ("", "for example 127.0.0.1:2379"),
    ],
)
def test_a_wrong_endpoint_is_explained(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        AsyncClient([text])


async def test_tls_to_a_plain_port_is_explained(server: Server) -> None:
    async with AsyncClient(f"https://{server.endpoint}", dial_timeout_s=1) as client:
        with pytest.raises(EndpointsUnavailable, match=server.endpoint):
            await client.get("/a")


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(ValueError, match="give both cert_file and key_file"):
        Tls(cert_file="client.pem")


async def test_calls_go_on_when_members_of_three_die(kind: str, tmp_path: Path) -> None:
    """Kill the member in use, leader or not: reads and writes go on through the others."""
    with cluster(kind, tmp_path, 3) as servers:
        async with AsyncClient([each.endpoint for each in servers], timeout_s=10) as client:
            await client.put("/a", "1")
            async with client.watch("/a") as watch:
                servers[0].kill(signal.SIGKILL)
                kv = await client.get("/a")
                assert kv is not None
                assert kv.value == b"1"
                while True:
                    try:
                        put = await client.put("/a", "2")
                    except OutcomeUnknown:
                        continue
                    break
                async with asyncio.timeout(20):
                    event = await anext(watch)
                assert event.kv.value == b"2"
                assert event.kv.mod_revision <= put.header.revision
            assert {each.name for each in await client.member_list()} == {
                "infra0",
                "infra1",
                "infra2",
            }


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancelled_caller_stays_cancelled(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Also when the connection is made at the very moment at which its caller is cancelled."""
    connected: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def dial(self: Dialer, endpoint: Endpoint) -> str:
        return await connected

    monkeypatch.setattr(Dialer, "_dial", dial)
    dialer = Dialer(None, 20.0)
    caller = asyncio.create_task(dialer.connect(Endpoint.parse("127.0.0.1:1"), 20.0))
    await wait_until(lambda: bool(dialer._dials))
    await asyncio.sleep(0)
    connected.set_result("a channel")
    for _ in range(turns):
        await asyncio.sleep(0)
    if caller.cancel():
        with pytest.raises(asyncio.CancelledError):
            await caller
