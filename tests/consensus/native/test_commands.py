"""Places in the log and numbers of commands, against a list that is counted through each time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consensus.engines.native.commands import CommandIndex
from consensus.raft.messages import EntryKind, LogEntry


class Twin(RuleBasedStateMachine):
    """Append, overwrite and compact; both directions are asked everywhere after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.index = CommandIndex(0, 0)
        self.kinds: dict[int, EntryKind] = {}
        self.base = 0
        self.base_command = 0

    @property
    def last(self) -> int:
        return max(self.kinds, default=self.base)

    @rule(
        back=st.integers(0, 5),
        kinds=st.lists(st.sampled_from(EntryKind), min_size=1, max_size=6),
    )
    def append(self, back: int, kinds: list[EntryKind]) -> None:
        first = max(self.base, self.last - back) + 1
        self.kinds = {place: kind for place, kind in self.kinds.items() if place < first}
        entries = [LogEntry(first + n, 1, kind, b"") for n, kind in enumerate(kinds)]
        self.kinds.update((entry.index, entry.kind) for entry in entries)
        self.index.append(entries)

    @precondition(lambda self: EntryKind.COMMAND in self.kinds.values())
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        places = [p for p, kind in sorted(self.kinds.items()) if kind is EntryKind.COMMAND]
        place = data.draw(st.sampled_from(places))
        self.base_command = self.count(place)
        self.base = place
        self.kinds = {other: kind for other, kind in self.kinds.items() if other > place}
        self.index.rebase(place)

    def count(self, place: int) -> int:
        return self.base_command + sum(
            1 for p, kind in self.kinds.items() if p <= place and kind is EntryKind.COMMAND
        )

    @invariant()
    def agrees(self) -> None:
        assert self.index.place_of(self.base_command) == self.base
        for place in range(self.base, self.last + 1):
            assert self.index.command_at(place) == self.count(place)
            if self.kinds.get(place) is EntryKind.COMMAND:
                assert self.index.place_of(self.count(place)) == place


TestTwin = Twin.TestCase
TestTwin.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
