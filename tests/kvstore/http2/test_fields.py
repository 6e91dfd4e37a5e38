"""The short way through HPACK reads what the library reads, and refuses what it refuses."""

from __future__ import annotations

import hpack
import pytest
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hypothesis import given
from hypothesis import strategies as st

from kvstore.http2.fields import HEADER_LIST_BYTES_MAX, Field, FieldDecoder, list_bytes
from kvstore.http2.frames import ConnectionFault, ErrorCode, StreamFault
from kvstore.http2.headers import REMEMBERED_BYTES_MAX, REMEMBERED_MAX, HeaderDecoder

NAMES = (b":path", b"content-type", b"te", b"grpc-timeout", b"hasleader", b"x" * 200)
VALUES = st.sampled_from([b"", b"1", b"trailers", b"v" * 126, b"v" * 127, b"w" * 900])
FIELDS = st.tuples(st.sampled_from(NAMES), st.one_of(VALUES, st.binary(max_size=9)))


def call_of(timeout: bytes) -> list[Field]:
    """A call's fields, as grpc-go sends them."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/etcdserverpb.KV/Put"),
        (b":authority", b"127.0.0.1:2379"),
        (b"te", b"trailers"),
        (b"grpc-timeout", timeout),
        (b"client-api-version", b"3.6.1"),
    ]


def outcome(decoder: FieldDecoder | hpack.Decoder, block: bytes) -> object:
    """The fields of a block, or that it is refused."""
    try:
        if isinstance(decoder, FieldDecoder):
            return [tuple(field) for field in decoder.decode(block)]
        return [tuple(field) for field in decoder.decode(block, raw=True)]
    except HPACKError:
        return "refused"


@given(st.lists(st.lists(FIELDS, max_size=12), max_size=40), st.booleans())
def test_blocks_of_any_fields_read_as_the_library_reads_them(
    blocks: list[list[Field]], huffman: bool
) -> None:
    encoder, short, library = hpack.Encoder(), FieldDecoder(), hpack.Decoder()
    for fields in blocks:
        block = encoder.encode(fields, huffman=huffman)
        assert outcome(short, block) == outcome(library, block) == fields


@given(
    st.lists(st.one_of(st.binary(max_size=30), st.lists(FIELDS, min_size=1, max_size=3))),
)
def test_bytes_that_are_no_hpack_are_refused_as_the_library_refuses_them(
    parts: list[bytes | list[Field]],
) -> None:
    encoder, short, library = hpack.Encoder(), FieldDecoder(), hpack.Decoder()
    for part in parts:
        block = part if isinstance(part, bytes) else encoder.encode(part)
        found = outcome(short, block)
        assert found == outcome(library, block)
        if found == "refused":
            return  # the connection ends: what the tables hold then is of no use


def test_references_into_the_far_end_of_the_table() -> None:
    """Go's client puts each call's timeout into the table, so all else moves back in it."""
    encoder, short = hpack.Encoder(), FieldDecoder()
    for number in range(300):
        fields = call_of(b"%du" % (9_999_000 - number))
        assert outcome(short, encoder.encode(fields)) == fields


def test_few_bytes_cannot_stand_for_too_many_headers() -> None:
    encoder, short = hpack.Encoder(), FieldDecoder()
    short.decode(encoder.encode([(b"x-long", b"v" * 3_000)]))
    reference = encoder.encode([(b"x-long", b"v" * 3_000)])
    assert len(reference) == 1
    fits = HEADER_LIST_BYTES_MAX // (3_000 + len(b"x-long") + 32)
    assert len(short.decode(reference * fits)) == fits
    with pytest.raises(OversizedHeaderListError):
        short.decode(reference * (fits + 1))


def test_the_table_changes_its_size_only_at_the_beginning_of_a_block() -> None:
    with pytest.raises(HPACKError):
        FieldDecoder().decode(b"\x82\x20")
    assert FieldDecoder().decode(b"\x20\x82") == [(b":method", b"GET")]


def test_each_call_has_its_own_timeout_and_shares_the_rest() -> None:
    encoder, decoder = hpack.Encoder(), HeaderDecoder()
    first = decoder.request(encoder.encode(call_of(b"5S")))
    second = decoder.request(encoder.encode(call_of(b"7S")))
    assert first.headers[-1] == (b"grpc-timeout", b"5S")
    assert second.headers[-1] == (b"grpc-timeout", b"7S")
    assert first.headers[:-1] == second.headers[:-1]
    assert first.headers[0] == (b"host", b"127.0.0.1:2379")
    assert decoder.request(encoder.encode([*call_of(b"")[:-2]])).headers == first.headers[:-2]


def test_a_timeout_hides_no_field_that_stands_in_a_wrong_place() -> None:
    encoder, decoder = hpack.Encoder(), HeaderDecoder()
    fields = call_of(b"5S")
    decoder.request(encoder.encode(fields))
    before = [*fields[:3], fields[5], fields[3], fields[4], fields[6]]
    with pytest.raises(StreamFault, match="pseudo-header"):
        decoder.request(encoder.encode(before))
    with pytest.raises(StreamFault, match="forbidden characters"):
        decoder.request(encoder.encode(call_of(b"5\n")))


@pytest.mark.parametrize("length", [b"9" * 5_000, b"0" * 19, b"-1", b"1_0", b"\xb2", b""], ids=len)
def test_a_content_length_that_is_no_usable_number_is_malformed(length: bytes) -> None:
    encoder, decoder = hpack.Encoder(), HeaderDecoder()
    with pytest.raises(StreamFault, match="content-length"):
        decoder.request(encoder.encode([*call_of(b"5S"), (b"content-length", length)]))
    request = decoder.request(encoder.encode([*call_of(b"5S"), (b"content-length", b"10")]))
    assert request.content_length == 10


@pytest.mark.parametrize("first", [0x3F, 0x7F, 0xFF, 0x0F])
def test_the_reason_for_a_refused_block_is_short_and_shows_nothing_of_it(first: int) -> None:
    with pytest.raises(ConnectionFault) as found:
        HeaderDecoder().request(bytes((first,)) + b"\xff" * 60_000)
    assert found.value.code == ErrorCode.COMPRESSION_ERROR
    assert len(str(found.value)) < 200
    assert "\\xff" not in str(found.value) and "0x" not in str(found.value)


def test_large_requests_are_not_remembered() -> None:
    """The memory that a connection can claim for what it once sent does not grow with it."""
    encoder, decoder = hpack.Encoder(), HeaderDecoder()
    for number in range(REMEMBERED_MAX // 4):
        large = (b"x-large", b"%d" % number + b"v" * REMEMBERED_BYTES_MAX)
        assert large in decoder.request(encoder.encode([*call_of(b"5S"), large])).headers
        decoder.request(encoder.encode([*call_of(b"5S"), (b"x-small", b"%d" % number)]))
    kept = [list_bytes(request.headers) for request in decoder._requests.values()]
    assert len(kept) == REMEMBERED_MAX // 4
    assert max(kept) <= REMEMBERED_BYTES_MAX
