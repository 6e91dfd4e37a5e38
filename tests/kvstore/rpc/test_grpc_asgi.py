"""The gRPC layer against a real client (grpcio) over a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from structlog.testing import capture_logs

from kvstore.errors import LEASE_NOT_FOUND, Code, EtcdError, Status
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc.registry import Kind, Stream, unimplemented
from tests.kvstore.rpc.grpc_server import SERVICE, Served, echo_method, serve
from tests.waiting import wait_until

EchoStream = Stream[pb.PutRequest]


async def echo(request: pb.PutRequest, _: Any) -> pb.RangeResponse:
    return pb.RangeResponse(count=len(request.value))


async def pong(stream: EchoStream) -> None:
    async for request in stream:
        await stream.send(pb.RangeResponse(count=len(request.value)))


def unary(channel: grpc.aio.Channel, name: str, service: str = SERVICE) -> Any:
    return channel.unary_unary(
        f"/{service}/{name}",
        request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
        response_deserializer=pb.RangeResponse.FromString,
    )


def bidi(channel: grpc.aio.Channel, name: str) -> Any:
    return channel.stream_stream(
        f"/{SERVICE}/{name}",
        request_serializer=pb.PutRequest.SerializeToString,
        response_deserializer=pb.RangeResponse.FromString,
    )


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_unary_call() -> None:
    async with (
        serve(echo_method("Echo", Kind.UNARY, echo)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        for size in (0, 5, 300, 100_000, 1_500_000):
            response = await unary(channel, "Echo")(pb.PutRequest(value=b"x" * size))
            assert response.count == size
        stats = served.app._methods[f"/{SERVICE}/Echo"].stats
        assert (stats.started, stats.received, stats.sent) == (5, 5, 5)
        assert stats.handled == {Code.OK: 5}
        assert served.app.traffic.received_bytes > 1_600_000


async def test_status_with_any_text_reaches_the_client() -> None:
    async def fail(request: pb.PutRequest, _: Any) -> pb.RangeResponse:
        raise EtcdError(Status(Code.DATA_LOSS, request.value.decode()))

    async with (
        serve(echo_method("Fail", Kind.UNARY, fail)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        for text in (LEASE_NOT_FOUND.message, "100% ünïcode 状态", "line\nbreak"):
            code, details = await failure(
                unary(channel, "Fail")(pb.PutRequest(value=text.encode()))
            )
            assert (code, details) == (grpc.StatusCode.DATA_LOSS, text)


async def test_unknown_service_and_method() -> None:
    method = unimplemented(
        "test.Echo", "Later", pb.PutRequest, pb.RangeResponse, Kind.UNARY, "not there yet"
    )
    async with serve(method) as served, grpc.aio.insecure_channel(served.address) as channel:
        request = pb.PutRequest()
        assert await failure(unary(channel, "Nope")(request)) == (
            grpc.StatusCode.UNIMPLEMENTED,
            "unknown method Nope for service test.Echo",
        )
        assert await failure(unary(channel, "Nope", "no.Such")(request)) == (
            grpc.StatusCode.UNIMPLEMENTED,
            "unknown service no.Such",
        )
        assert await failure(unary(channel, "Later")(request)) == (
            grpc.StatusCode.UNIMPLEMENTED,
            "not there yet",
        )


async def test_oversize_message_is_refused_with_both_numbers() -> None:
    async with (
        serve(echo_method("Echo", Kind.UNARY, echo), max_request_bytes=1000) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        limit = 1000 + 512 * 1024
        fits = pb.PutRequest(value=b"x" * (limit - 4))
        assert fits.ByteSize() == limit
        assert (await unary(channel, "Echo")(fits)).count == limit - 4
        code, details = await failure(
            unary(channel, "Echo")(pb.PutRequest(value=b"x" * (limit - 3)))
        )
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details == f"grpc: received message larger than max ({limit + 1} vs. {limit})"


async def test_malformed_message() -> None:
    async with (
        serve(echo_method("Echo", Kind.UNARY, echo)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        code, details = await failure(unary(channel, "Echo")(b"\xff\xff\xff"))
        assert code is grpc.StatusCode.INTERNAL
        assert details.startswith("grpc: error unmarshalling request: ")


async def test_a_bug_in_a_handler_is_logged_and_not_told() -> None:
    async def broken(_: pb.PutRequest, __: Any) -> pb.RangeResponse:
        raise KeyError("secret detail")

    async with (
        serve(echo_method("Broken", Kind.UNARY, broken)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        with capture_logs() as logs:
            code, details = await failure(unary(channel, "Broken")(pb.PutRequest()))
        assert code is grpc.StatusCode.UNKNOWN
        assert "secret" not in details
        assert [(entry["log_level"], entry["call"]) for entry in logs] == [
            ("error", "/test.Echo/Broken")
        ]


async def test_known_exceptions_become_statuses() -> None:
    async def stop(_: pb.PutRequest, __: Any) -> pb.RangeResponse:
        raise TimeoutError

    async with (
        serve(
            echo_method("Stop", Kind.UNARY, stop),
            status_of=lambda error: (
                Status(Code.ABORTED, "known") if isinstance(error, TimeoutError) else None
            ),
        ) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        assert await failure(unary(channel, "Stop")(pb.PutRequest())) == (
            grpc.StatusCode.ABORTED,
            "known",
        )


@pytest.mark.parametrize("kind", [Kind.UNARY, Kind.BIDI_STREAM])
async def test_cancellation_by_the_client_cancels_the_handler(kind: Kind) -> None:
    events: list[str] = []

    async def hang(*_: Any) -> Any:
        events.append("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async with (
        serve(echo_method("Hang", kind, hang)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        if kind is Kind.UNARY:
            call = unary(channel, "Hang")(pb.PutRequest())
        else:
            call = bidi(channel, "Hang")()
            await call.write(pb.PutRequest())
        await wait_until(lambda: "began" in events)
        call.cancel()
        await wait_until(lambda: "cancelled" in events)
        await wait_until(lambda: served.app.open_calls == 0)


async def test_cancellation_reaches_a_stream_that_waits_for_requests() -> None:
    async with (
        serve(echo_method("Pong", Kind.BIDI_STREAM, pong)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        call = bidi(channel, "Pong")()
        await call.write(pb.PutRequest(value=b"abc"))
        assert (await call.read()).count == 3
        assert served.app.open_calls == 1
        call.cancel()
        await wait_until(lambda: served.app.open_calls == 0)
        stats = served.app._methods[f"/{SERVICE}/Pong"].stats
        assert stats.handled == {Code.CANCELED: 1}


async def test_a_reader_in_another_task_ends_the_handler_when_the_client_goes() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def two_tasks(stream: EchoStream) -> None:
        async def read() -> None:
            async for _ in stream:
                pass

        reader = asyncio.create_task(read())
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()  # before anything is awaited: the server may cancel this task once more
            await asyncio.gather(reader, return_exceptions=True)

    async with (
        serve(echo_method("Two", Kind.BIDI_STREAM, two_tasks)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        call = bidi(channel, "Two")()
        await call.write(pb.PutRequest())
        await asyncio.wait_for(began.wait(), 5)
        call.cancel()
        await asyncio.wait_for(ended.wait(), 5)
        await wait_until(lambda: served.app.open_calls == 0)


async def test_client_streams_and_half_close() -> None:
    async def total(stream: EchoStream) -> None:
        count = 0
        async for request in stream:
            count += len(request.value)
        await stream.send(pb.RangeResponse(count=count))

    async def requests() -> AsyncIterator[pb.PutRequest]:
        for size in range(1, 101):
            yield pb.PutRequest(value=b"x" * size)

    async with (
        serve(echo_method("Total", Kind.CLIENT_STREAM, total)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        call = channel.stream_unary(
            f"/{SERVICE}/Total",
            request_serializer=pb.PutRequest.SerializeToString,
            response_deserializer=pb.RangeResponse.FromString,
        )
        assert (await call(requests())).count == 5050


async def test_server_stream_of_messages_and_of_bytes_then_an_error() -> None:
    async def three(stream: EchoStream) -> None:
        async for request in stream:
            await stream.send(pb.RangeResponse(count=1))
            await stream.send(pb.RangeResponse(count=2).SerializeToString())
            if request.value:
                raise EtcdError(LEASE_NOT_FOUND)

    async with (
        serve(echo_method("Three", Kind.SERVER_STREAM, three)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        method = channel.unary_stream(
            f"/{SERVICE}/Three",
            request_serializer=pb.PutRequest.SerializeToString,
            response_deserializer=pb.RangeResponse.FromString,
        )
        assert [r.count async for r in method(pb.PutRequest())] == [1, 2]
        call = method(pb.PutRequest(value=b"x"))
        assert [(await call.read()).count for _ in range(2)] == [1, 2]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert caught.value.details() == LEASE_NOT_FOUND.message


async def test_gzip_both_ways() -> None:
    async with (
        serve(
            echo_method("Echo", Kind.UNARY, echo), echo_method("Pong", Kind.BIDI_STREAM, pong)
        ) as served,
        grpc.aio.insecure_channel(served.address, compression=grpc.Compression.Gzip) as channel,
    ):
        response = await unary(channel, "Echo")(pb.PutRequest(value=b"x" * 100_000))
        assert response.count == 100_000
        assert served.app.traffic.received_bytes < 10_000, "the request came compressed"
        call = bidi(channel, "Pong")()
        for size in (10, 50_000):
            await call.write(pb.PutRequest(value=b"x" * size))
            assert (await call.read()).count == size
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def raw_call(served: Served, body: bytes, *extra: tuple[str, str], te: bool = True) -> dict:
    """One call by hand through hyper-h2; returns response headers and trailers together."""
    host, port = served.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", served.address),
        (":path", f"/{SERVICE}/Echo"),
        ("content-type", "application/grpc"),
    ]
    if te:
        headers.append(("te", "trailers"))
    connection.send_headers(1, headers + list(extra))
    connection.send_data(1, body, end_stream=True)
    writer.write(connection.data_to_send())
    answer: dict[str, str] = {}
    try:
        while True:
            for event in connection.receive_data(await reader.read(65536)):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    answer.update(event.headers)
                if isinstance(event, h2.events.StreamEnded):
                    return answer
    finally:
        writer.close()
        await writer.wait_closed()


async def test_unknown_encoding_is_unimplemented_and_says_what_is_accepted() -> None:
    async with serve(echo_method("Echo", Kind.UNARY, echo)) as served:
        answer = await raw_call(served, b"\1\0\0\0\1x", ("grpc-encoding", "zstd"))
        assert answer["grpc-status"] == "12"
        text = 'grpc: Decompressor is not installed for grpc-encoding "zstd"'
        assert answer["grpc-message"] == text
        assert answer["grpc-accept-encoding"] == "gzip"


async def test_deadline_on_the_server() -> None:
    ended = asyncio.Event()

    async def hang(_: pb.PutRequest, __: Any) -> pb.RangeResponse:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("unreachable")

    async with serve(echo_method("Echo", Kind.UNARY, hang)) as served:
        answer = await raw_call(served, b"\0\0\0\0\0", ("grpc-timeout", "50m"))
        assert answer["grpc-status"] == "4"
        assert answer["grpc-message"] == "context deadline exceeded"
        assert ended.is_set()


@pytest.mark.parametrize(
    ("body", "header", "status", "text"),
    [
        (b"\0\0\0\0\5abc", None, "13", "unexpected EOF"),
        (b"", None, "13", "the call ended without a request message"),
        (b"\1\0\0\0\0", None, "13", "grpc: compressed flag set with identity or empty encoding"),
        (b"\0\0\0\0\0", ("grpc-timeout", "soon"), "13", "malformed grpc-timeout"),
    ],
)
async def test_broken_framing(
    body: bytes, header: tuple[str, str] | None, status: str, text: str
) -> None:
    async with serve(echo_method("Echo", Kind.UNARY, echo)) as served:
        answer = await raw_call(served, body, *([header] if header else []))
        assert answer["grpc-status"] == status
        assert text in answer["grpc-message"]


async def test_without_te_trailers_the_answer_is_plain_http() -> None:
    async with serve(echo_method("Echo", Kind.UNARY, echo)) as served:
        answer = await raw_call(served, b"\0\0\0\0\0", te=False)
        assert answer[":status"] == "400"


async def test_a_stream_that_its_client_does_not_read_waits_and_holds_up_no_other() -> None:
    sent = 0

    async def flood(stream: EchoStream) -> None:
        nonlocal sent
        async for _ in stream:
            while True:
                await stream.send(pb.RangeResponse(kvs=[{"value": b"x" * 100_000}]))
                sent += 1

    async with (
        serve(
            echo_method("Flood", Kind.BIDI_STREAM, flood),
            echo_method("Echo", Kind.UNARY, echo),
        ) as served,
        grpc.aio.insecure_channel(served.address) as channel,
        grpc.aio.insecure_channel(
            served.address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as other_connection,
    ):
        call = bidi(channel, "Flood")()
        await call.write(pb.PutRequest())
        await call.read()
        for connection in (other_connection, channel):
            echoed = unary(connection, "Echo")(pb.PutRequest(value=b"xx"), timeout=10)
            assert (await echoed).count == 2
        assert served.app.open_calls == 1
        assert sent < 500, "50 MB went out although nobody read"
        call.cancel()
        await wait_until(lambda: served.app.open_calls == 0)


async def test_a_thousand_streams_on_one_connection_end_at_shutdown() -> None:
    async with (
        serve(echo_method("Pong", Kind.BIDI_STREAM, pong)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        calls = [bidi(channel, "Pong")() for _ in range(1000)]
        await asyncio.gather(*(call.write(pb.PutRequest(value=b"abc")) for call in calls))
        responses = await asyncio.gather(*(call.read() for call in calls))
        assert {response.count for response in responses} == {3}
        assert served.app.open_calls == 1000
        began = time.monotonic()
        served.app.close()
        await served.listeners.stop()
        assert time.monotonic() - began < 2
        codes = {await call.code() for call in calls}
        assert codes == {grpc.StatusCode.UNAVAILABLE}
        assert await calls[0].details() == "etcdserver: server stopped"
