"""HTTP/2 as bytes on a real socket: what a well-behaved library would never send."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import hpack
import pytest

from kvstore.http2 import frames
from kvstore.http2.acceptor import Front
from kvstore.http2.frames import ErrorCode
from kvstore.http2.refusals import Refusals
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc.registry import Call, Kind
from tests.kvstore.rpc.grpc_server import echo_method, serve
from tests.waiting import wait_until

TIMEOUT_S = 20.0
FLAGS = frames.END_HEADERS
GREETING = frames.PREFACE + frames.settings({})


class Client:
    """A client that sends what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()

    @classmethod
    async def connect(cls, address: str) -> Client:
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def call(self, stream_id: int, method: str = "Echo", authority: str = "localhost") -> None:
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/test.Echo/{method}"),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        block = self._encoder.encode(fields)
        self.send(frames.header_frames(stream_id, block, False, frames.FRAME_BYTES_MIN))

    def body(self, stream_id: int, end: bool = True) -> None:
        flags = frames.END_STREAM if end else 0
        self.send(frames.frame(frames.DATA, flags, stream_id, b"\0\0\0\0\0"))

    async def next(self, *kinds: int) -> tuple[int, int, int, bytes]:
        """Return kind, flags, stream and payload of the next frame of one of these kinds."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                head = await self._reader.readexactly(frames.FRAME_HEADER_BYTES)
                high, low, kind, flags, stream_id = frames.FRAME_HEADER.unpack(head)
                payload = await self._reader.readexactly(high << 8 | low)
                if kind in kinds:
                    return kind, flags, stream_id, payload

    async def headers(self) -> dict[str, str]:
        """Return the next header block."""
        *_, payload = await self.next(frames.HEADERS)
        return {str(name): str(value) for name, value in self._decoder.decode(payload)}

    async def ended(self) -> bool:
        """Whether the server closes the connection."""
        async with asyncio.timeout(TIMEOUT_S):
            while await self._reader.read(65_536):
                pass
        return True

    def close(self) -> None:
        self._writer.close()


async def echo(request: pb.PutRequest, _: Call) -> pb.RangeResponse:
    return pb.RangeResponse(count=len(request.value))


async def wait_for_ever(_: pb.PutRequest, __: Call) -> pb.RangeResponse:
    await asyncio.Event().wait()
    raise AssertionError("not reached")


async def no_app(*_: Any) -> None:
    raise AssertionError("no request came")


async def test_the_authority_may_be_a_url() -> None:
    async with serve(echo_method("Echo", Kind.UNARY, echo)) as served:
        client = await Client.connect(served.address)
        client.send(GREETING)
        client.call(1, authority="http://127.0.0.1:2379")
        client.body(1)
        assert (await client.headers())[":status"] == "200"
        assert await client.headers() == {"grpc-status": "0"}
        client.close()


async def test_thousands_of_cancelled_calls_leave_the_connection_and_nothing_behind() -> None:
    methods = (
        echo_method("Echo", Kind.UNARY, echo),
        echo_method("Wait", Kind.UNARY, wait_for_ever),
    )
    async with serve(*methods) as served:
        client = await Client.connect(served.address)
        client.send(GREETING)
        last = 4001
        for stream_id in range(1, last, 2):
            client.call(stream_id, "Wait")
            client.body(stream_id)
            client.send(frames.rst_stream(stream_id, ErrorCode.CANCEL))
        client.call(last)
        client.body(last)
        assert (await client.headers())[":status"] == "200"
        await wait_until(lambda: served.app.open_calls == 0)
        client.close()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frames.frame(frames.PING, 0, 0, b"short"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.DATA, 0, 1, b"idle"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, FLAGS, 1, b"\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (frames.frame(frames.HEADERS, FLAGS, 2, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
        (frames.window_update(0, frames.WINDOW_MAX), ErrorCode.FLOW_CONTROL_ERROR),
        (frames.FRAME_HEADER.pack(64, 1, 0, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    ],
    ids=str,
)
async def test_a_broken_frame_ends_the_connection_with_its_reason(
    sent: bytes, code: ErrorCode
) -> None:
    async with serve(echo_method("Echo", Kind.UNARY, echo)) as served:
        client = await Client.connect(served.address)
        client.send(GREETING + sent)
        *_, payload = await client.next(frames.GOAWAY)
        assert int.from_bytes(payload[4:8], "big") == code
        assert len(payload) > 8, "no reason given"
        assert await client.ended()
        client.close()


async def test_a_broken_stream_leaves_the_others() -> None:
    async with serve(echo_method("Echo", Kind.UNARY, echo)) as served:
        client = await Client.connect(served.address)
        client.send(GREETING)
        block = hpack.Encoder().encode([(":method", "POST")])
        client.send(frames.header_frames(1, block, True, frames.FRAME_BYTES_MIN))
        _, _, stream_id, payload = await client.next(frames.RST_STREAM)
        assert stream_id == 1
        assert int.from_bytes(payload, "big") == ErrorCode.PROTOCOL_ERROR
        client.call(3)
        client.body(3)
        assert (await client.headers())[":status"] == "200"
        client.close()


async def test_what_comes_after_both_sides_reset_a_stream_is_a_fault() -> None:
    async with serve(echo_method("Echo", Kind.UNARY, echo)) as served:
        client = await Client.connect(served.address)
        client.send(GREETING)
        client.call(1, "Nothing")

        async def reset_with() -> int:
            _, _, stream_id, payload = await client.next(frames.RST_STREAM)
            assert stream_id == 1
            return int.from_bytes(payload, "big")

        assert await reset_with() == ErrorCode.NO_ERROR, "it is answered before it is whole"
        client.send(frames.rst_stream(1, ErrorCode.CANCEL))
        client.body(1)
        assert await reset_with() == ErrorCode.STREAM_CLOSED
        client.send(frames.window_update(1, 0))
        assert await reset_with() == ErrorCode.PROTOCOL_ERROR
        client.close()


async def test_a_connection_that_is_only_just_accepted_is_cut_off_by_a_stop() -> None:
    front = Front(no_app, Refusals())
    accepted = front.accept()  # what the loop does before it tells the protocol of its transport
    await front.drain(TIMEOUT_S)
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: accepted, sock=ours)
    await wait_until(transport.is_closing)
    theirs.close()
