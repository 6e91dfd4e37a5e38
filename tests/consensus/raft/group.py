"""A few cores, a wire and some disks, moved by hand: no clock, no chance, no driver.

Every message waits on ``wire`` until the test delivers or drops it. A member syncs at once unless
it is in ``held``: then what it was asked to write waits for ``persist``, and with it whatever may
only be said afterwards. A restart keeps what was synced and nothing else.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import attrs

from consensus.raft.config import CoreConfig
from consensus.raft.configuration import Configuration
from consensus.raft.core import Core
from consensus.raft.log import RaftLog
from consensus.raft.messages import (
    AnyMessage,
    EntryKind,
    InstallSnapshot,
    LogEntry,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
)
from consensus.raft.ready import HardState, ReadState, Ready
from consensus.types import NodeId

Match = Callable[[AnyMessage], bool]


class Observer:
    """Told of everything that happens in a group. This one does nothing with it."""

    def sent(self, message: AnyMessage) -> None:
        """A message is on the wire."""

    def lost(self, message: AnyMessage) -> None:
        """A message will never arrive."""

    def waits(self, name: NodeId, ready: Ready) -> None:
        """A held member was asked to sync, and has not."""

    def synced(self, name: NodeId, ready: Ready) -> None:
        """What a ``Ready`` asks for is on disk."""

    def applied(self, name: NodeId, entries: Sequence[LogEntry]) -> None:
        """A machine applied entries."""

    def answered(self, name: NodeId, ready: Ready) -> None:
        """Reads and refusals for a member's own users."""

    def stands(self, name: NodeId, core: Core) -> None:
        """A core has nothing more to ask for."""


@attrs.define(slots=True)
class Disk:
    """What one member has synced."""

    snapshot: SnapshotMeta
    hard_state: HardState = attrs.field(factory=HardState)
    entries: list[LogEntry] = attrs.field(factory=list)

    def write(self, ready: Ready) -> None:
        """Make durable what a ``Ready`` asks for; the first entry replaces what is in its place."""
        if ready.snapshot is not None:
            self.snapshot, self.entries = ready.snapshot, []
        if ready.entries:
            keep = ready.entries[0].index - self.snapshot.index - 1
            self.entries = [*self.entries[: max(0, keep)], *ready.entries]
        if ready.hard_state is not None and ready.must_sync:
            self.hard_state = ready.hard_state


class Member:
    """One core with its disk and what it applied."""

    def __init__(self, core: Core, disk: Disk) -> None:
        self.core = core
        self.disk = disk
        self.applied: list[LogEntry] = []
        self.reads: list[ReadState] = []
        self.rejected: list[int] = []
        self.unsynced: deque[Ready] = deque()

    @property
    def commands(self) -> list[str]:
        """The commands that were applied, as text."""
        return [entry.data.decode() for entry in self.applied if entry.kind is EntryKind.COMMAND]


class Group:
    """Members by name, and the wire between them.

    Args:
        voters: the first configuration.
        learners: its learners.
        outsiders: members that run and are in no configuration yet.
        seed: of the election timeouts.
        settings: for every ``CoreConfig``.
    """

    def __init__(
        self,
        voters: Iterable[NodeId],
        learners: Iterable[NodeId] = (),
        *,
        outsiders: Iterable[NodeId] = (),
        seed: int = 0,
        settings: dict[str, int | bool] | None = None,
    ) -> None:
        self.members: dict[NodeId, Member] = {}
        self.wire: deque[AnyMessage] = deque()
        self.held: set[NodeId] = set()
        self.cut: set[NodeId] = set()
        self.observer = Observer()
        self._settings = dict(settings or {})
        self._seed = seed
        configuration = Configuration.of(voters, learners)
        for name in configuration.members:
            self.add(name, configuration)
        for name in outsiders:
            self.add(name, Configuration())

    def __getitem__(self, name: NodeId) -> Core:
        """The core of this name."""
        return self.members[name].core

    def add(
        self,
        name: NodeId,
        configuration: Configuration,
        entries: Sequence[LogEntry] = (),
        hard_state: HardState | None = None,
    ) -> Member:
        """Add a member, with a log on its disk where one is given."""
        disk = Disk(SnapshotMeta(0, 0, configuration), hard_state or HardState(), list(entries))
        member = Member(self._core(name, disk), disk)
        self.members[name] = member
        return member

    def restart(self, name: NodeId) -> None:
        """Crash and come back with what was synced; the machine is rebuilt by the log."""
        member = self.members[name]
        snapshot = member.disk.snapshot
        member.core = self._core(name, member.disk)
        member.applied = [entry for entry in member.applied if entry.index <= snapshot.index]
        member.unsynced.clear()
        self.run(name)

    # -- one step -----------------------------------------------------------------------------

    def run(self, *names: NodeId) -> None:
        """Let members do what their cores ask for."""
        for name in names or tuple(self.members):
            member = self.members[name]
            while member.core.has_ready:
                self._handle(name, member, member.core.take_ready())
            self.observer.stands(name, member.core)

    def persist(self, name: NodeId, count: int | None = None) -> None:
        """Sync what a held member was asked to write first, and say what may be said then."""
        member = self.members[name]
        for _ in range(len(member.unsynced) if count is None else count):
            self._persist(name, member, member.unsynced.popleft())
        self.run(name)

    def tick(self, name: NodeId, count: int = 1) -> None:
        """Let time pass for one member."""
        for _ in range(count):
            self[name].tick()
            self.run(name)

    def step(self, message: AnyMessage) -> None:
        """Give a message to its receiver, whether or not it was on the wire."""
        self[message.receiver].step(message)
        if isinstance(message, InstallSnapshot):
            self._stream(message)
        self.run(message.receiver, message.sender)

    def deliver(self, match: Match | None = None, *, count: int | None = None) -> int:
        """Deliver what is on the wire now and matches, in order; return how many that were."""
        return self._take(match, count, self.step)

    def drop(self, match: Match | None = None, *, count: int | None = None) -> int:
        """Lose what is on the wire now and matches; return how many that were."""
        return self._take(match, count, self._lose)

    def stabilize(self, *names: NodeId, rounds: int = 1_000) -> int:
        """Deliver among ``names`` (all by default) until nothing is under way; return rounds."""
        among = set(names or self.members)
        self.run(*sorted(among))
        for number in range(rounds):
            if not self.deliver(lambda m: m.sender in among and m.receiver in among):
                return number
        raise AssertionError(f"still talking after {rounds} rounds: {list(self.wire)[:4]}")

    # -- whole stories ------------------------------------------------------------------------

    def win(self, name: NodeId) -> None:
        """Let a member win an election, and deliver nothing but what that takes."""
        for other in self.members:
            core = self[other]
            core.election_elapsed = core.config.election_timeout_ticks
            core.now_ticks = max(core.now_ticks, core.config.election_timeout_ticks)
        self[name].campaign()
        self.run(name)
        while self.deliver(of_kind(PreVote, PreVoteResponse, RequestVote, RequestVoteResponse)):
            pass
        assert self[name].is_leader, f"{name} did not win: {self[name].role}"

    def elect(self, name: NodeId) -> None:
        """Let a member win an election, and deliver all that follows from it."""
        self.win(name)
        self.stabilize(*(set(self.members) - self.cut))

    def propose(self, name: NodeId, *commands: str) -> int:
        """Append commands at a leader; return the index of the first."""
        index = self[name].propose([command.encode() for command in commands])
        self.run(name)
        return index

    def beat(self, leader: NodeId) -> None:
        """One round of heartbeats and all that follows from it."""
        self.tick(leader, self[leader].config.heartbeat_ticks)
        self.stabilize(*(set(self.members) - self.cut))

    # -- inside -------------------------------------------------------------------------------

    def _core(self, name: NodeId, disk: Disk) -> Core:
        config = CoreConfig(node_id=name, **self._settings)  # type: ignore[arg-type]
        prng = random.Random(f"{self._seed} {name}")
        return Core(config, RaftLog(disk.snapshot, disk.entries), disk.hard_state, prng)

    def _handle(self, name: NodeId, member: Member, ready: Ready) -> None:
        self._send(ready.messages)
        if ready.snapshot is not None:
            member.applied = [e for e in member.applied if e.index <= ready.snapshot.index]
        if (ready.must_sync or ready.messages_after_persist) and name in self.held:
            member.unsynced.append(ready)
            self.observer.waits(name, ready)
        else:
            self._persist(name, member, ready)
        if ready.committed:
            member.applied.extend(ready.committed)
            self.observer.applied(name, ready.committed)
            member.core.applied(ready.committed[-1].index)
        member.reads.extend(ready.reads)
        member.rejected.extend(ready.rejected_proposals)
        self.observer.answered(name, ready)

    def _persist(self, name: NodeId, member: Member, ready: Ready) -> None:
        if ready.must_sync:
            member.disk.write(ready)
            self.observer.synced(name, ready)
            member.core.persisted(ready.number)
        self._send(ready.messages_after_persist)

    def _send(self, messages: Sequence[AnyMessage]) -> None:
        for message in messages:
            self.wire.append(message)
            self.observer.sent(message)

    def _take(
        self, match: Match | None, count: int | None, act: Callable[[AnyMessage], None]
    ) -> int:
        waiting, self.wire = list(self.wire), deque()
        taken: list[AnyMessage] = []
        for message in waiting:
            if (match is None or match(message)) and (count is None or len(taken) < count):
                taken.append(message)
            else:
                self.wire.append(message)
        for message in taken:
            if message.sender in self.cut or message.receiver in self.cut:
                self._lose(message)
            else:
                act(message)
        return len(taken)

    def _lose(self, message: AnyMessage) -> None:
        self.observer.lost(message)
        if isinstance(message, InstallSnapshot):
            self[message.sender].snapshot_reported(message.receiver, arrived=False)
            self.run(message.sender)

    def _stream(self, message: InstallSnapshot) -> None:
        """The data of a snapshot travels with it: what the sender had applied up to there."""
        receiver, index = self.members[message.receiver], message.snapshot.index
        if receiver.core.log.snapshot == message.snapshot:
            sender = self.members[message.sender]
            receiver.applied = [entry for entry in sender.applied if entry.index <= index]
        self[message.sender].snapshot_reported(message.receiver, arrived=True)


def of_kind(*kinds: type) -> Match:
    """Match messages of these kinds."""
    return lambda message: isinstance(message, kinds)


def between(sender: NodeId | None = None, receiver: NodeId | None = None) -> Match:
    """Match messages of a sender, to a receiver, or both."""
    return lambda message: sender in (None, message.sender) and receiver in (None, message.receiver)


def entries_of(*terms: int, first: int = 1) -> list[LogEntry]:
    """Return commands with these terms, from index ``first`` on."""
    return [
        LogEntry(first + offset, term, EntryKind.COMMAND, f"{first + offset}@{term}".encode())
        for offset, term in enumerate(terms)
    ]


def terms_of(core: Core) -> list[int]:
    """The terms of a core's whole log after its snapshot."""
    log = core.log
    return [entry.term for entry in log.slice(log.first_index, log.last_index + 1)]


def follower(*terms: int, term: int = 3) -> Group:
    """A group in which "b" has a log with these terms."""
    group = Group("c")
    group.add("a", Configuration.of("abc"))
    group.add("b", Configuration.of("abc"), entries_of(*terms), HardState(term))
    return group
