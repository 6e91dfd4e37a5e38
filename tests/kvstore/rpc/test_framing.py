"""The gRPC wire format: messages cut from pieces of any size, statuses, timeouts."""

from __future__ import annotations

import gzip
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import Code, EtcdError, Status
from kvstore.rpc import framing


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50), st.booleans())
def test_messages_survive_any_cutting(messages: list[bytes], step: int, packed: bool) -> None:
    wire = b"".join(framing.frame(message, gzip=packed) for message in messages)
    reader = framing.MessageReader(1000, b"gzip" if packed else b"")
    got = []
    for start in range(0, len(wire), step):
        reader.feed(wire[start : start + step])
        while (message := reader.next()) is not None:
            got.append(message)
    reader.finish()
    assert got == messages


def test_a_body_that_ends_inside_a_message_is_an_error() -> None:
    reader = framing.MessageReader(1000, b"")
    reader.feed(framing.frame(b"hello")[:-1])
    assert reader.next() is None
    with pytest.raises(EtcdError, match="unexpected EOF") as caught:
        reader.finish()
    assert caught.value.status.code is Code.INTERNAL


def test_a_message_over_the_limit_is_refused_from_its_prefix_alone() -> None:
    reader = framing.MessageReader(1000, b"")
    reader.feed(b"\0" + (1001).to_bytes(4, "big"))
    with pytest.raises(EtcdError) as caught:
        reader.next()
    assert caught.value.status == Status(
        Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (1001 vs. 1000)"
    )


@pytest.mark.parametrize(
    ("payload", "encoding", "code", "text"),
    [
        (b"x", b"", Code.INTERNAL, "compressed flag set with identity or empty encoding"),
        (b"not gzip", b"gzip", Code.INTERNAL, "failed to decompress"),
        (gzip.compress(b"hello", mtime=0)[:-9], b"gzip", Code.INTERNAL, "unexpected EOF"),
        (
            gzip.compress(b"a" * 2000, mtime=0),
            b"gzip",
            Code.RESOURCE_EXHAUSTED,
            "after decompression",
        ),
    ],
)
def test_bad_compression(payload: bytes, encoding: bytes, code: Code, text: str) -> None:
    reader = framing.MessageReader(1000, encoding)
    reader.feed(b"\1" + len(payload).to_bytes(4, "big") + payload)
    with pytest.raises(EtcdError, match=text) as caught:
        reader.next()
    assert caught.value.status.code is code


def test_a_flag_that_is_neither_0_nor_1_is_refused() -> None:
    reader = framing.MessageReader(1000, b"")
    reader.feed(b"\7" + (0).to_bytes(4, "big"))
    with pytest.raises(EtcdError, match="unexpected payload format 7"):
        reader.next()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(b"5S", 5.0), (b"250m", 0.25), (b"1H", 3600.0), (b"2M", 120.0), (b"7u", 7e-6), (b"9n", 9e-9)],
)
def test_timeouts(header: bytes, seconds: float) -> None:
    assert framing.timeout_s(header) == pytest.approx(seconds)


@pytest.mark.parametrize("header", [b"", b"S", b"5", b"-5S", b"5x", b"123456789S", b"1.5S"])
def test_malformed_timeouts(header: bytes) -> None:
    with pytest.raises(EtcdError, match="malformed grpc-timeout"):
        framing.timeout_s(header)


@given(st.text(max_size=80))
def test_any_message_survives_percent_encoding(text: str) -> None:
    headers = dict(framing.status_headers(Status(Code.NOT_FOUND, text)))
    assert headers[b"grpc-status"] == b"5"
    encoded = headers.get(b"grpc-message", b"")
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert unquote(encoded.decode()) == text


def test_a_message_that_quotes_a_large_request_is_cut_between_characters() -> None:
    text = "x" + "\N{REPLACEMENT CHARACTER}" * 64_000
    encoded = dict(framing.status_headers(Status(Code.INTERNAL, text)))[b"grpc-message"]
    sent = unquote(encoded.decode(), errors="strict")
    assert text.startswith(sent)
    assert 0 <= framing.STATUS_MESSAGE_BYTES_MAX - len(sent.encode()) < 3
