"""Hand-made bytes are what the protobuf library makes of the same message."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2
from kvstore.watch import wire
from tests.kvstore.watch.fakes import header

RELAXED = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
INT64 = st.integers(-(2**63), 2**63 - 1)
KVS = st.builds(
    mvccpb_pb2.KeyValue,
    key=st.binary(max_size=200),
    value=st.binary(max_size=400),
    mod_revision=INT64,
    create_revision=INT64,
    version=INT64,
    lease=INT64,
)
EVENTS = st.builds(
    lambda kind, kv, prev: (mvccpb_pb2.Event(type=kind, kv=kv), prev),
    st.sampled_from([mvccpb_pb2.Event.PUT, mvccpb_pb2.Event.DELETE]),
    KVS,
    st.none() | KVS,
)


def full(event: mvccpb_pb2.Event, prev: mvccpb_pb2.KeyValue | None) -> mvccpb_pb2.Event:
    copy = mvccpb_pb2.Event()
    copy.CopyFrom(event)
    if prev is not None:
        copy.prev_kv.CopyFrom(prev)
    return copy


@RELAXED
@given(revision=INT64, watch_id=INT64, events=st.lists(EVENTS, min_size=1, max_size=5))
def test_an_event_response_is_byte_for_byte_the_library_s(
    revision: int, watch_id: int, events: list[tuple[mvccpb_pb2.Event, mvccpb_pb2.KeyValue | None]]
) -> None:
    expected = pb.WatchResponse(
        header=header(revision), watch_id=watch_id, events=[full(e, p) for e, p in events]
    )
    block = wire.EventBlock.of([wire.event_field(e, p) for e, p in events])
    own = wire.header_field(header(revision)) + wire.watch_id_field(watch_id)
    assert own + block.data == expected.SerializeToString()


@RELAXED
@given(revision=INT64, watch_id=INT64, compact_revision=INT64, reason=st.text(max_size=300))
def test_answers_are_byte_for_byte_the_library_s(
    revision: int, watch_id: int, compact_revision: int, reason: str
) -> None:
    head = wire.header_field(header(revision))
    expected = pb.WatchResponse(
        header=header(revision),
        watch_id=watch_id,
        created=True,
        canceled=bool(reason),
        cancel_reason=reason,
    )
    assert wire.created(head, watch_id, reason) == expected.SerializeToString()
    expected = pb.WatchResponse(
        header=header(revision),
        watch_id=watch_id,
        canceled=True,
        compact_revision=compact_revision,
    )
    assert wire.canceled(head, watch_id, compact_revision) == expected.SerializeToString()


@RELAXED
@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=12), limit=st.integers(100, 4000))
def test_fragments_keep_order_and_stay_below_the_limit(sizes: list[int], limit: int) -> None:
    events = [
        mvccpb_pb2.Event(kv=mvccpb_pb2.KeyValue(key=b"k%d" % n, value=b"x" * size))
        for n, size in enumerate(sizes)
    ]
    own = wire.header_field(header(9)) + wire.watch_id_field(3)
    block = wire.EventBlock.of([wire.event_field(e) for e in events])
    pieces = [
        pb.WatchResponse.FromString(head + data) for head, data in wire.fragments(own, block, limit)
    ]
    assert [e for piece in pieces for e in piece.events] == events
    assert all(piece.fragment for piece in pieces[:-1]) and not pieces[-1].fragment
    assert all(p.header.revision == 9 and p.watch_id == 3 for p in pieces)
    for piece, following in itertools.pairwise(pieces):
        assert piece.ByteSize() < limit or len(piece.events) == 1
        piece.events.append(following.events[0])
        assert piece.ByteSize() >= limit, "a piece takes what fits"
