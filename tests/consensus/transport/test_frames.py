"""Frames cut from reads of any size, and writes to a peer that does not read."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator

import pytest

from consensus.stats import PeerTraffic
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import BadFrame, pack
from consensus.transport.frames import FrameReader, Outlet
from tests.waiting import wait_until

ENOUGH_BYTES = 16 * 1024 * 1024
"""More than the kernel takes for a peer that does not read."""


def frames(sizes: tuple[int, ...]) -> list[bytes]:
    return [
        pack(wire.Envelope(term=n, snapshot_chunk=bytes([n]) * size))
        for n, size in enumerate(sizes, start=1)
    ]


@pytest.mark.parametrize("step", [1, 2, 7, 8, 9, 40, 1000, 10_000])
async def test_frames_come_whole_whatever_the_reads_are(step: int) -> None:
    got: list[tuple[str, wire.Envelope]] = []
    reader = FrameReader(
        "b", lambda sender, envelope: got.append((sender, envelope)), PeerTraffic()
    )
    stream = b"".join(frames((0, 1, 300, 0, 5000, 2)))
    for start in range(0, len(stream), step):
        reader.data_received(stream[start : start + step])
    assert [(sender, envelope.term) for sender, envelope in got] == [("b", n) for n in range(1, 7)]
    assert [len(envelope.snapshot_chunk) for _, envelope in got] == [0, 1, 300, 0, 5000, 2]
    assert not reader.ended.done()
    reader.connection_lost(None)
    assert reader.ended.done()


async def test_a_bad_frame_ends_the_connection_and_nothing_after_it_is_taken() -> None:
    got: list[wire.Envelope] = []
    reader = FrameReader("b", lambda _, envelope: got.append(envelope), PeerTraffic())
    first, second, third = frames((3, 3, 3))
    damaged = second[:-1] + bytes([second[-1] ^ 1])
    reader.data_received(first + damaged + third)
    reader.data_received(third)
    assert [envelope.term for envelope in got] == [1]
    with pytest.raises(BadFrame, match="checksum"):
        await reader.ended


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Outlet, socket.socket]]:
    """An outlet, and the socket of the peer that it writes to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, "127.0.0.1", server.getsockname()[1]
        )
        peer, _ = server.accept()
        peer.setblocking(False)
        outlet = Outlet(transport)
        yield outlet, peer
        outlet.close()
        peer.close()


async def test_a_write_is_with_the_peer_before_the_loop_turns(
    pair: tuple[Outlet, socket.socket],
) -> None:
    outlet, peer = pair
    outlet.write(b"now")
    peer.settimeout(10)
    assert peer.recv(100) == b"now"


async def test_what_the_socket_does_not_take_waits_and_comes_in_order(
    pair: tuple[Outlet, socket.socket],
) -> None:
    outlet, peer = pair
    stream = random.Random(1).randbytes(ENOUGH_BYTES)
    for start in range(0, len(stream), 1 << 20):
        outlet.write(stream[start : start + (1 << 20)])
    assert outlet.waiting_bytes > 0
    got = bytearray()
    while len(got) < len(stream):
        got += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 1 << 20), 10)
    assert got == stream
    await wait_until(lambda: outlet.waiting_bytes == 0)


async def test_a_peer_that_is_gone_takes_nothing_and_breaks_nothing(
    pair: tuple[Outlet, socket.socket],
) -> None:
    outlet, peer = pair
    peer.close()

    def lost() -> bool:
        outlet.write(b"anybody?")
        return outlet.closing

    await wait_until(lost)
    outlet.write(b"still nobody")
