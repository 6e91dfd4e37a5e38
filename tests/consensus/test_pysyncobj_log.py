"""The PySyncObj engine on disk and on the wire: frames, log, dumps, directory, and their damage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import Position, Proposal, ProposalId, StorageError
from consensus.engines.pysyncobj import journal as journal_module
from consensus.engines.pysyncobj.codec import (
    FRAME_BYTES_MAX,
    Frame,
    FrameKey,
    decode_frame,
    encode_frame,
    split_proposals,
)
from consensus.engines.pysyncobj.dump import DumpHead, DumpReader, DumpWriter, RunningCheck
from consensus.engines.pysyncobj.journal import SegmentJournal
from consensus.engines.pysyncobj.matching import Verdict, settle

numbers = st.integers(0, 2**64 - 1)
proposals = st.builds(
    Proposal,
    st.builds(ProposalId, numbers, numbers, numbers),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=200),
)
frames = st.builds(
    Frame,
    st.builds(FrameKey, numbers, numbers, numbers),
    st.integers(0, 2**32 - 1),
    st.lists(proposals, max_size=5).map(tuple),
)


# -- frames ---------------------------------------------------------------------------------------


@given(frames)
def test_a_frame_comes_back_as_it_was(frame: Frame) -> None:
    text = encode_frame(frame)
    assert text.isascii()
    assert decode_frame(text) == frame


@given(frames, st.data())
def test_no_changed_letter_of_a_frame_goes_unseen(frame: Frame, data: st.DataObject) -> None:
    text = encode_frame(frame)
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABab01+/=\x00é"))
    changed = text[:place] + letter + text[place + 1 :]
    try:
        assert decode_frame(changed) == frame
    except StorageError:
        assert changed != text


def test_a_frame_of_the_future_is_refused_by_version() -> None:
    import base64

    import google_crc32c

    data = bytearray(base64.b64decode(encode_frame(Frame(FrameKey(1, 2, 3), 0, ()))))
    data[0] = 9
    data[-4:] = google_crc32c.value(bytes(data[:-4])).to_bytes(4, "little")
    with pytest.raises(StorageError, match="version 9"):
        decode_frame(base64.b64encode(data).decode())


@given(st.lists(st.integers(0, FRAME_BYTES_MAX * 2), max_size=12))
def test_frames_are_split_by_size_in_order(sizes: list[int]) -> None:
    given_ = [Proposal(ProposalId(1, 1, n), 0, bytes(size)) for n, size in enumerate(sizes)]
    groups = list(split_proposals(given_))
    assert [proposal for group in groups for proposal in group] == given_
    for group in groups:
        assert len(group) == 1 or sum(len(item.command) for item in group) <= FRAME_BYTES_MAX


# -- log segments ---------------------------------------------------------------------------------


def entry(index: int, term: int = 1) -> tuple[bytes, int, int]:
    return b"command %d" % index, index, term


def written(directory: Path, count: int) -> SegmentJournal:
    journal = SegmentJournal(directory)
    for index in range(1, count + 1):
        journal.add(*entry(index))
    return journal


def everything(journal: SegmentJournal) -> list[Any]:
    return list(journal[0 : len(journal)])


def reopened(directory: Path) -> list[Any]:
    journal = SegmentJournal(directory)
    try:
        return everything(journal)
    finally:
        journal._destroy()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 60)),
        st.tuples(st.just("cut"), st.floats(0, 1)),
        st.tuples(st.just("drop"), st.floats(0, 1)),
        st.tuples(st.just("clear"), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=25,
)


@given(steps)
def test_the_log_is_a_list_that_survives(tmp_path_factory: Any, todo: list[Any]) -> None:
    directory = tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "SEGMENT_BYTES", 200)
        journal, model, index, base = SegmentJournal(directory), [], 0, 0
        for step, amount in todo:
            if step == "add":
                index += 1
                made = (bytes(int(amount)), index, 1 + index // 3)
                journal.add(*made)
                model.append(made)
            elif step == "cut" and model:
                place = 1 + int(amount * (len(model) - 1))
                journal.deleteEntriesFrom(place)
                del model[place:]
                index = model[-1][1]
            elif step == "drop" and model:
                place = int(amount * (len(model) - 1))
                journal.deleteEntriesTo(place)
                del model[:place]
                base = model[0][1]
            elif step == "clear":
                journal.clear()
                model.clear()
                base = 0
            elif step == "reopen":
                journal._destroy()
                journal = SegmentJournal(directory)
                if model:  # what a snapshot covers is dropped by the snapshot's own index
                    journal.deleteEntriesTo(base - journal.first_index if base else 0)
            assert everything(journal) == model
            assert journal.bytes == sum(len(made[0]) for made in model)
        journal._destroy()


def test_term_and_vote_survive(tmp_path: Path) -> None:
    journal = written(tmp_path, 1)
    journal.setCurrentTerm(7, "127.0.0.1:1")
    journal.setRaftCommitIndex(5)
    journal.onOneSecondTimer()
    journal._destroy()
    again = SegmentJournal(tmp_path)
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (7, "127.0.0.1:1")
    assert again.getRaftCommitIndex() == 5
    again._destroy()


def test_a_torn_end_is_cut_off(tmp_path: Path) -> None:
    written(tmp_path, 5)._destroy()
    (segment,) = tmp_path.glob("log-*.seg")
    os.truncate(segment, segment.stat().st_size - 3)
    assert reopened(tmp_path) == [entry(index) for index in range(1, 5)]
    assert reopened(tmp_path) == [entry(index) for index in range(1, 5)]


@pytest.mark.parametrize("offset", [9, 25, 33, 40, 70, -2])
def test_a_damaged_log_refuses_to_start(tmp_path: Path, offset: int) -> None:
    written(tmp_path, 5)._destroy()
    (segment,) = tmp_path.glob("log-*.seg")
    data = bytearray(segment.read_bytes())
    data[offset] ^= 0x10
    segment.write_bytes(data)
    with pytest.raises(StorageError) as caught:
        SegmentJournal(tmp_path)
    assert str(segment) in str(caught.value)
    assert "join again from its peers" in str(caught.value)


def test_a_missing_segment_refuses_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 100)
    written(tmp_path, 20)._destroy()
    segments = sorted(tmp_path.glob("log-*.seg"))
    assert len(segments) > 3
    segments[2].unlink()
    with pytest.raises(StorageError, match=r"entry \d+ after entry \d+"):
        SegmentJournal(tmp_path)


def test_a_damaged_vote_refuses_to_start(tmp_path: Path) -> None:
    journal = written(tmp_path, 1)
    journal.setCurrentTerm(3, None)
    journal._destroy()
    (tmp_path / "term.json").write_text('{"version": 1, "current_')
    with pytest.raises(StorageError, match="term and vote"):
        SegmentJournal(tmp_path)


def test_a_snapshot_decides_where_the_log_begins(tmp_path: Path) -> None:
    journal = written(tmp_path, 20)
    journal.head_is(entry(9), entry(10))
    assert everything(journal) == [entry(index) for index in range(9, 21)]
    journal.head_is((b"other", 19, 4), (b"other", 20, 4))  # another log: this one is superseded
    assert everything(journal) == [(b"other", 19, 4), (b"other", 20, 4)]
    journal.head_is(entry(29), entry(30))  # the log is older than the snapshot
    assert everything(journal) == [entry(29), entry(30)]
    with pytest.raises(StorageError, match="entries between them are missing"):
        journal.head_is(entry(9), entry(10))
    journal._destroy()


# -- dumps ----------------------------------------------------------------------------------------


def dumped(path: Path) -> DumpHead:
    head = DumpHead(Position(40, 3, 1234, 0), entry(9), entry(10, 3), ("ann", "bob"))
    writer = DumpWriter(path, head)
    for number in range(20):
        writer.write(b"%d" % number * 1000)
    writer.finish()
    return head


def test_a_dump_comes_back_as_it_was(tmp_path: Path) -> None:
    head = dumped(tmp_path / "dump")
    reader = DumpReader(tmp_path / "dump")
    for _ in reader.verify_steps():
        pass
    assert reader.head == head
    assert list(reader.chunks()) == [b"%d" % number * 1000 for number in range(20)]
    reader.close()


@pytest.mark.parametrize("offset", [0, 7, 20, 110, 5000, -5, -1])
def test_a_damaged_dump_is_named(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "dump"
    dumped(path)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=str(path)):
        reader = DumpReader(path)
        try:
            for _ in reader.verify_steps():
                pass
        finally:
            reader.close()


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=20))
def test_a_dump_in_pieces_is_checked(tmp_path_factory: Any, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("dump") / "dump"
    dumped(path)
    data = path.read_bytes()
    check, rest = RunningCheck(), data
    for size in sizes:
        check.update(rest[:size])
        rest = rest[size:]
    assert check.holds() == (not rest)
    check.update(rest)
    assert check.holds()


# -- settling AppendEntries against the log -------------------------------------------------------


class Terms:
    """A log known by its terms; index 1 is the first."""

    def __init__(self, *terms: int) -> None:
        self.terms = terms

    @property
    def last_index(self) -> int:
        return len(self.terms)

    def term_at(self, index: int) -> int | None:
        return self.terms[index - 1] if 1 <= index <= len(self.terms) else None

    def first_index_of_term(self, index: int) -> int:
        while index > 1 and self.terms[index - 2] == self.terms[index - 1]:
            index -= 1
        return index


def message(previous: int, previous_term: int, *terms: int, commit: int = 0) -> dict[str, Any]:
    return {
        "type": "append_entries",
        "term": 9,
        "commit_index": commit,
        "prevLogIdx": previous,
        "prevLogTerm": previous_term,
        "entries": [(b"", previous + 1 + n, term) for n, term in enumerate(terms)],
    }


def test_new_entries_are_handed_on() -> None:
    settled = settle(Terms(0, 1), 1, message(2, 1, 1, 1))
    assert settled.verdict is Verdict.HAND_ON
    assert settled.message == message(2, 1, 1, 1)


def test_entries_that_the_log_has_are_not_cut_and_appended_again() -> None:
    settled = settle(Terms(0, 1, 1, 1), 4, message(2, 1, 1, 1))
    assert settled.verdict is Verdict.HAND_ON
    assert settled.message["prevLogIdx"] == 4 and settled.message["entries"] == []
    settled = settle(Terms(0, 1, 1, 1), 4, message(2, 1, 1, 1, 1, 1))
    assert settled.message["prevLogIdx"] == 4
    assert settled.message["entries"] == [(b"", 5, 1), (b"", 6, 1)]


def test_a_late_message_does_not_shorten_the_log() -> None:
    settled = settle(Terms(0, 1, 1, 1, 1), 3, message(2, 1, 1, commit=99))
    assert settled.verdict is Verdict.MATCHED and settled.index == 3
    assert "prevLogIdx" not in settled.message
    assert settled.message["commit_index"] == 3  # no further than what is known to match
    settled = settle(Terms(0, 1, 1, 1, 1), 3, message(2, 1))
    assert settled.verdict is Verdict.MATCHED and settled.index == 2


def test_a_conflict_is_cut_where_it_begins() -> None:
    settled = settle(Terms(0, 1, 1, 2, 2), 3, message(2, 1, 1, 3, 3))
    assert settled.verdict is Verdict.HAND_ON
    assert settled.message["prevLogIdx"] == 3
    assert settled.message["entries"] == [(b"", 4, 3), (b"", 5, 3)]


def test_a_conflict_before_the_entries_goes_back_by_a_whole_term() -> None:
    settled = settle(Terms(0, 1, 2, 2, 2, 2), 2, message(6, 3, 3))
    assert settled.verdict is Verdict.CONFLICT and settled.index == 3
    settled = settle(Terms(0, 1, 2, 2, 2, 2), 4, message(6, 3, 3))
    assert settled.index == 5  # applied entries never conflict


def test_a_conflict_with_an_applied_entry_is_a_broken_promise() -> None:
    assert settle(Terms(0, 1, 1), 3, message(1, 0, 2)).verdict is Verdict.APPLIED_CONFLICT
    assert settle(Terms(0, 1, 1), 3, message(2, 2, 2)).verdict is Verdict.APPLIED_CONFLICT
    assert settle(Terms(0, 1, 1), 1, message(1, 0, 2)).verdict is Verdict.HAND_ON


def test_a_gap_is_left_to_pysyncobj() -> None:
    settled = settle(Terms(0, 1), 2, message(7, 1, 1))
    assert settled.verdict is Verdict.HAND_ON and settled.message == message(7, 1, 1)
