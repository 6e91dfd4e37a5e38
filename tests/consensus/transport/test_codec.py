"""Entries on the wire: packed and read back, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.raft.messages import AppendEntries, EntryKind, LogEntry
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import (
    BadFrame,
    EntryPacker,
    from_wire,
    pack,
    to_wire,
    unpack,
    unpack_entries,
    unpack_prefix,
)

ENTRIES = st.lists(
    st.tuples(st.integers(0, 2**64 - 1), st.sampled_from(EntryKind), st.binary(max_size=300)),
    max_size=8,
)


def append(first: int, items: list[tuple[int, EntryKind, bytes]]) -> AppendEntries:
    return AppendEntries(
        sender="a",
        receiver="b",
        term=7,
        prev_log_index=first - 1,
        prev_log_term=3,
        entries=tuple(LogEntry(first + n, *item) for n, item in enumerate(items)),
        leader_commit=4,
    )


@given(first=st.integers(1, 2**40), items=ENTRIES)
def test_append_entries_comes_back_as_it_was(
    first: int, items: list[tuple[int, EntryKind, bytes]]
) -> None:
    message = append(first, items)
    frame = pack(to_wire(message, EntryPacker()))
    length, checksum = unpack_prefix(frame[:8])
    assert len(frame) == 8 + length
    assert from_wire(unpack(frame[8:], checksum), "a", "b") == message


def test_entries_that_follow_are_not_taken_for_the_ones_remembered() -> None:
    packer = EntryPacker()
    for number in range(5):
        message = append(1, [(1, EntryKind.COMMAND, b"%d" % number)])
        assert from_wire(to_wire(message, packer), "a", "b") == message


@pytest.mark.parametrize("cut", range(1, 16))
def test_entries_cut_short_are_refused(cut: int) -> None:
    packed = EntryPacker().pack(append(1, [(1, EntryKind.COMMAND, b"abc")]).entries)
    with pytest.raises(BadFrame, match=r"cannot be read|cut short"):
        unpack_entries(packed[:-cut], 1)


def test_a_kind_of_entry_that_is_unknown_is_refused() -> None:
    packed = bytearray(EntryPacker().pack(append(1, [(1, EntryKind.NOOP, b"")]).entries))
    packed[8] = 200
    envelope = wire.Envelope(term=1, append_entries=wire.AppendEntries(entries=bytes(packed)))
    with pytest.raises(BadFrame, match="cannot be read"):
        from_wire(envelope, "a", "b")
