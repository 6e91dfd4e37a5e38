"""RaftLog against a dictionary from index to entry that knows nothing of offsets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consensus.raft.configuration import Configuration
from consensus.raft.log import Compacted, RaftLog
from consensus.raft.messages import LogEntry, SnapshotMeta
from tests.consensus.raft.group import entries_of


class LogTwin(RuleBasedStateMachine):
    """Append, truncate, compact, reset, in any order; every question has one plain answer."""

    def __init__(self) -> None:
        super().__init__()
        self.log = RaftLog(SnapshotMeta(0, 0, Configuration()))
        self.terms = {0: 0}
        self.entries: dict[int, LogEntry] = {}
        self.base = 0
        self.persisted = 0

    @property
    def last(self) -> int:
        return max(self.terms)

    @rule(count=st.integers(1, 4), raise_term=st.integers(0, 2))
    def append(self, count: int, raise_term: int) -> None:
        term = self.terms[self.last] + raise_term
        entries = entries_of(*[max(1, term)] * count, first=self.last + 1)
        self.log.append(entries)
        for entry in entries:
            self.entries[entry.index] = entry
            self.terms[entry.index] = entry.term

    @rule(share=st.floats(0, 1))
    def sync(self, share: float) -> None:
        self.persisted += int((self.last - self.persisted) * share)
        self.log.persisted_index = self.persisted

    @rule(share=st.floats(0, 1))
    def truncate(self, share: float) -> None:
        keep = self.base + int((self.last - self.base) * share)
        dropped = self.log.truncate(keep)
        assert dropped == [self.entries.pop(i) for i in range(keep + 1, self.last + 1)]
        self.terms = {index: term for index, term in self.terms.items() if index <= keep}
        self.persisted = min(self.persisted, keep)

    @rule(share=st.floats(0, 1))
    def compact(self, share: float) -> None:
        self.base += int((self.persisted - self.base) * share)
        self.log.compact(SnapshotMeta(self.base, self.terms[self.base], Configuration()))
        self.entries = {i: entry for i, entry in self.entries.items() if i > self.base}
        self.terms = {i: term for i, term in self.terms.items() if i >= self.base}

    @precondition(lambda self: self.last < 1_000)
    @rule(ahead=st.integers(1, 5), raise_term=st.integers(0, 2))
    def install(self, ahead: int, raise_term: int) -> None:
        self.base = self.last + ahead
        self.terms = {self.base: self.terms[self.last] + raise_term}
        self.entries.clear()
        self.persisted = self.base
        self.log.reset(SnapshotMeta(self.base, self.terms[self.base], Configuration()))

    @rule(index_share=st.floats(0, 1), term=st.integers(0, 6))
    def find(self, index_share: float, term: int) -> None:
        index = self.base + int((self.last + 3 - self.base) * index_share)
        fitting = [i for i, t in self.terms.items() if i <= index and t <= term]
        assert self.log.last_index_not_above(index, term) == max(fitting, default=self.base)
        assert self.log.has(index, term) == (self.terms.get(index) == term)
        assert self.log.term_at(index) == self.terms.get(index)

    @rule(data=st.data(), bytes_max=st.integers(0, 40))
    def slices(self, data: st.DataObject, bytes_max: int) -> None:
        start = data.draw(st.integers(self.base + 1, self.last + 1))
        stop = data.draw(st.integers(start, self.last + 1))
        expected = [self.entries[index] for index in range(start, stop)]
        assert self.log.slice(start, stop) == expected
        bounded = self.log.slice(start, stop, bytes_max)
        assert bounded == expected[: len(bounded)]
        sizes = [len(entry.data) for entry in expected]
        if expected:
            assert len(bounded) == 1 or sum(sizes[: len(bounded)]) <= bytes_max
            assert bounded, "a large entry goes alone, but it goes"
            if len(bounded) < len(expected):
                assert sum(sizes[: len(bounded) + 1]) > bytes_max, "one more would have fitted"

    @rule(last=st.integers(0, 30), term=st.integers(0, 6))
    def compare(self, last: int, term: int) -> None:
        """Paper, section 5.4.1: the later last term is newer; within one, the longer log."""
        own_term = self.terms[self.last]
        assert self.log.is_up_to_date(last, term) == (
            term > own_term or (term == own_term and last >= self.last)
        )

    @invariant()
    def agrees(self) -> None:
        log = self.log
        assert (log.first_index, log.last_index) == (self.base + 1, self.last)
        assert log.last_term == self.terms[self.last]
        assert log.persisted_index == self.persisted <= log.last_index
        assert all(log.entry(index) == entry for index, entry in self.entries.items())
        if self.base:
            with pytest.raises(Compacted):
                log.term_at(self.base - 1)
            with pytest.raises(Compacted):
                log.slice(self.base, self.last + 1)
            assert not log.has(self.base - 1, 0), "what a snapshot covers cannot be told"


TestLogTwin = LogTwin.TestCase
TestLogTwin.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.lists(st.integers(0, 2)))
def test_of_two_logs_at_least_one_is_up_to_date(one: list[int], other: list[int]) -> None:
    def log_of(steps: list[int]) -> RaftLog:
        terms = [1 + sum(steps[: n + 1]) for n in range(len(steps))]
        return RaftLog(SnapshotMeta(0, 0, Configuration()), entries_of(*terms))

    a, b = log_of(one), log_of(other)
    a_serves_b = b.is_up_to_date(a.last_index, a.last_term)
    b_serves_a = a.is_up_to_date(b.last_index, b.last_term)
    assert a_serves_b or b_serves_a
    assert (a_serves_b and b_serves_a) == (
        (a.last_index, a.last_term) == (b.last_index, b.last_term)
    )
