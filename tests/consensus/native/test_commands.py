"""Places in the log and numbers of commands, against a list that is counted through each time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consensus.engines.native.batches import encode_batch
from consensus.engines.native.commands import CommandIndex
from consensus.raft.messages import EntryKind, LogEntry
from tests.consensus.native.member import proposal


def entry(place: int, commands: int) -> LogEntry:
    """An entry with so many commands; without any, one that is for something else."""
    if not commands:
        return LogEntry(place, 1, EntryKind.NOOP, b"")
    data = encode_batch([proposal(number) for number in range(commands)])
    return LogEntry(place, 1, EntryKind.COMMAND, data)


class Twin(RuleBasedStateMachine):
    """Append, overwrite and compact; both directions are asked everywhere after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.index = CommandIndex(0, 0)
        self.counts: dict[int, int] = {}
        self.base = 0
        self.base_command = 0

    @property
    def last(self) -> int:
        return max(self.counts, default=self.base)

    @rule(
        back=st.integers(0, 5),
        counts=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    )
    def append(self, back: int, counts: list[int]) -> None:
        first = max(self.base, self.last - back) + 1
        self.counts = {place: count for place, count in self.counts.items() if place < first}
        self.counts.update(enumerate(counts, first))
        self.index.append([entry(place, count) for place, count in enumerate(counts, first)])

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(self.base, self.last))
        self.base_command = self.count(place)
        self.base = place
        self.counts = {other: count for other, count in self.counts.items() if other > place}
        self.index.rebase(place)

    def count(self, place: int) -> int:
        return self.base_command + sum(n for other, n in self.counts.items() if other <= place)

    @invariant()
    def agrees(self) -> None:
        places = range(self.base, self.last + 1)
        for place in places:
            assert self.index.command_at(place) == self.count(place)
        assert self.index.command_at(self.base - 1) == self.base_command
        assert self.index.command_at(self.last + 1) == self.count(self.last)
        for command in range(self.base_command, self.count(self.last) + 1):
            place = min(place for place in places if self.count(place) >= command)
            assert self.index.place_of(command) == place
            whole = max(self.count(place) for place in places if self.count(place) <= command)
            covered = min(place for place in places if self.count(place) == whole)
            assert self.index.place_covered_by(command) == covered
        assert self.index.place_of(self.count(self.last) + 1) == self.last + 1


TestTwin = Twin.TestCase
TestTwin.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
