"""Many commands in one entry: written and read again, bounded, and never handed out in part."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.engines.native.batches import (
    BATCH_BYTES_MAX,
    BATCH_COMMANDS_MAX,
    commands_in,
    count_of,
    decode_batch,
    encode_batch,
    split,
)
from consensus.raft.configuration import Configuration
from consensus.raft.messages import EntryKind, LogEntry
from consensus.types import Committed, Position, Proposal, ProposalId
from tests.consensus.native.member import ListHost, Member, noop, proposal, propose

NUMBERS = st.integers(0, 2**64 - 1)


@st.composite
def proposals_of_one(draw: st.DrawFn) -> list[Proposal]:
    """What one node proposes."""
    member, incarnation = draw(NUMBERS), draw(NUMBERS)
    rows = draw(st.lists(st.tuples(NUMBERS, NUMBERS, st.binary(max_size=40)), min_size=1))
    return [
        Proposal(ProposalId(member, incarnation, sequence), clock_ms, command)
        for sequence, clock_ms, command in rows
    ]


@given(proposals_of_one())
def test_what_is_written_is_read(proposals: list[Proposal]) -> None:
    data = encode_batch(proposals)
    assert count_of(data) == len(proposals)
    assert commands_in(LogEntry(9, 2, EntryKind.COMMAND, data)) == len(proposals)
    read = decode_batch(data, 2, 7)
    assert (read.term, read.index, read.last_index) == (2, 7, 6 + len(proposals))
    rows = zip(read.sequences, read.clocks_ms, read.commands, strict=True)
    assert [
        Proposal(ProposalId(read.member, read.incarnation, sequence), clock_ms, command)
        for sequence, clock_ms, command in rows
    ] == proposals
    written = Committed.of(2, 7, proposals)
    for index in range(6, read.last_index):
        rest = read.after(index)
        assert (rest.index, rest.last_index) == (index + 1, read.last_index)
        assert list(rest.commands) == list(written.after(index).commands)
        assert list(rest.sequences) == [p.id.sequence for p in proposals[index - 6 :]]


def test_entries_of_another_kind_hold_no_commands() -> None:
    assert commands_in(noop(1, 1)) == 0


def test_no_proposals_are_no_entries() -> None:
    assert list(split([])) == []


@pytest.mark.parametrize("size", [0, 100, BATCH_BYTES_MAX // 3, BATCH_BYTES_MAX + 1])
def test_entries_keep_their_bounds_and_the_order(size: int) -> None:
    count = 3 * BATCH_COMMANDS_MAX + 1 if size <= 100 else 10
    proposals = [proposal(number, "x" * size) for number in range(count)]
    parts = list(split(proposals))
    assert [one for part in parts for one in part] == proposals
    for part in parts:
        assert 1 <= len(part) <= BATCH_COMMANDS_MAX
        assert len(part) == 1 or sum(len(p.command) for p in part) <= BATCH_BYTES_MAX
    for part, following in pairwise(parts):
        together = [*part, following[0]]
        assert (
            len(together) > BATCH_COMMANDS_MAX
            or sum(len(p.command) for p in together) > BATCH_BYTES_MAX
        ), "an entry has room for what the next one begins with"


def many(place: int, term: int, *sequences: int) -> LogEntry:
    """Commands in one entry."""
    return LogEntry(
        place, term, EntryKind.COMMAND, encode_batch([proposal(number) for number in sequences])
    )


@pytest.mark.parametrize("flushed", range(8))
def test_a_machine_that_wrote_half_an_entry_is_given_the_other_half(flushed: int) -> None:
    """A machine may write its state between any two commands."""
    member = Member("b")
    entries = [noop(1, 1), many(2, 1, 1, 2, 3), noop(3, 1), many(4, 1, 4), many(5, 1, 5, 6, 7)]
    member.append((0, 0), *entries, term=1)
    names = [f"c{number}" for number in range(1, 8)]
    durable = (Position(flushed, 1), names[:flushed]) if flushed else None
    again = member.again(host=ListHost(durable))
    whole = next(count for count in (0, 3, 4, 7) if count >= flushed)
    assert len(again.host.commands) == whole, "what it has begun, it has to finish, before all else"
    again.append((5, 1), noop(6, 2), term=2, commit=6)
    assert again.host.commands == names
    assert again.host.discarded == []


def test_the_log_is_shortened_by_whole_entries() -> None:
    """A machine that wrote half an entry still needs the other half, should it start again."""
    member = Member("b")
    member.append((0, 0), many(1, 1, 1, 2, 3), many(2, 1, 4, 5, 6), term=1, commit=2)
    member.driver.shorten_to_command(4)
    assert member.driver.core.log.snapshot.index == 1
    names = [f"c{number}" for number in range(1, 7)]
    again = member.again(host=ListHost((Position(4, 1), names[:4])))
    assert again.host.commands == names


def test_a_long_entry_does_not_make_a_member_shorten_its_log_all_the_time() -> None:
    """Whole entries go, so a log may be longer than its bound with nothing that could go yet."""
    member = Member("b", bootstrap=Configuration.of("b"), snapshot_entries=10, catch_up_entries=10)
    driver = member.driver
    driver.core.campaign()
    driver.pump()
    propose(member, *range(1, 101))
    assert driver.log_commands == 100
    assert not driver.wants_compaction
    propose(member, *range(101, 111))
    assert driver.wants_compaction
    for _ in driver.take_snapshot():
        pass
    assert driver.log_commands == 10
    assert not driver.wants_compaction
