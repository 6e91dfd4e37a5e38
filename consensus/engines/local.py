"""LocalEngine: members of one group inside one process, over one shared log object.

There is no network and no disk, so a command is committed the moment it is proposed. Use it to
develop a state machine, to test one, and as the simple twin that the real engines are compared
with. ``LocalLog`` is the truth that outlives an engine: keep it to "restart" a member, truncate it
to see what a durable machine does when its log is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from consensus.engine import Capabilities, Engine, EngineHost, Fault
from consensus.errors import NotLeader, ReadFailed, Stopped
from consensus.types import Committed, EngineStatus, Member, NodeId, Position, Proposal, Role

DELIVER_BATCH_MAX: Final = 1_000
"""Entries handed to the host at once while a member catches up."""


class LocalLog:
    """The committed log of one in-process group, with the snapshot that precedes it."""

    def __init__(self, group_id: int = 0) -> None:
        self.group_id = group_id
        self.term = 1
        self.entries: list[Committed] = []
        self.first_index = 1
        self.snapshot: tuple[Position, list[bytes]] | None = None
        self.members: dict[NodeId, LocalEngine] = {}

    @property
    def last_index(self) -> int:
        """Index of the newest entry, or of the snapshot where no entry follows it."""
        return self.first_index + len(self.entries) - 1

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at ``index``; None where the log does not have it."""
        if self.snapshot is not None and self.snapshot[0].index == index:
            return self.snapshot[0].term
        if self.first_index <= index <= self.last_index:
            return self.entries[index - self.first_index].term
        return None

    def append(self, proposals: Sequence[Proposal]) -> None:
        """Commit proposals and let every connected member know."""
        for proposal in proposals:
            self.entries.append(Committed.of(self.term, self.last_index + 1, [proposal]))
        for engine in self.members.values():
            engine.wake()

    def truncate(self, last_index: int) -> None:
        """Forget every entry after ``last_index``, as a lost disk would. For tests."""
        del self.entries[max(0, last_index - self.first_index + 1) :]


class LocalEngine(Engine):
    """One member of an in-process group.

    Args:
        node_id: this member's name.
        shared: the group's log; a new group of one member when not given.
    """

    def __init__(self, node_id: NodeId = "local", shared: LocalLog | None = None) -> None:
        self._node_id = node_id
        self._log = shared or LocalLog()
        self._host: EngineHost | None = None
        self._next_index = 1
        self._delivery: asyncio.Handle | None = None
        self._connected = True
        self._status_changed = asyncio.Event()

    @property
    def capabilities(self) -> Capabilities:
        """Everything in memory: nothing survives the process."""
        return Capabilities(
            survives=Fault.NONE,
            replicated=False,
            persistent=False,
            read_index=True,
            notes=("All members live in one process; its end is the end of the log.",),
        )

    @property
    def node_id(self) -> NodeId:
        """This member's name."""
        return self._node_id

    async def start(self, host: EngineHost) -> None:
        """Settle the machine's position, then deliver what it lacks."""
        position = host.position()
        if position.index and (
            position.group_id != self._log.group_id
            or self._log.term_at(position.index) != position.term
        ):
            host.discard(
                f"the machine stands at index {position.index} of term {position.term}, "
                f"which is not in this log (last index {self._log.last_index})"
            )
            position = Position()
        self._host = host
        self._next_index = position.index + 1
        self._log.members[self._node_id] = self
        self._announce()
        self._deliver_all(host)

    async def stop(self) -> None:
        """Leave the group."""
        self._host = None
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None
        if self._log.members.get(self._node_id) is self:
            del self._log.members[self._node_id]
            self._log.term += 1  # whoever leads now leads a new term
            for engine in self._log.members.values():
                engine._announce()
        self._announce()

    def cut(self) -> None:
        """Take this member off the network, so to say: it proposes and reads nothing."""
        self._connected = False
        self._log.term += 1
        self._announce()

    def heal(self) -> None:
        """Bring this member back; it catches up."""
        self._connected = True
        self._announce()
        self.wake()

    def propose(self, proposals: Sequence[Proposal]) -> None:
        """Commit at once, or refuse while cut off."""
        if self._host is None or not self._connected:
            if self._host is not None:
                for proposal in proposals:
                    self._host.dropped(proposal.id, NotLeader(None))
            return
        self._log.append(proposals)

    async def read_index(self, timeout_s: float) -> int:
        """Return the last index: in one process everything committed is known at once."""
        if self._host is None:
            raise Stopped("the engine was stopped")
        if not self._connected:
            raise ReadFailed("this member is cut off from its group")
        return self._log.last_index

    async def ask_leader(self, request: bytes, timeout_s: float) -> bytes:
        """Call the leading member's host directly."""
        leader = self._leader()
        if leader is None or leader._host is None or not self._connected:
            raise NotLeader(None)
        try:
            async with asyncio.timeout(timeout_s):
                return await leader._host.answer(request)
        except TimeoutError:
            raise ReadFailed(f"the leader did not answer in {timeout_s:g} s") from None

    def status(self) -> EngineStatus:
        """Return this member's view."""
        leader = self._leader() if self._connected else None
        return EngineStatus(
            node_id=self._node_id,
            role=Role.LEADER if leader is self else Role.FOLLOWER,
            term=self._log.term,
            leader=leader.node_id if leader else None,
            commit_index=self._log.last_index,
            log_index=self._log.last_index,
            members=tuple(Member(name, "") for name in self._log.members),
            has_quorum=self._connected,
        )

    async def watch_status(self) -> AsyncIterator[EngineStatus]:
        """Yield the status at each change."""
        while True:
            changed = self._status_changed
            yield self.status()
            await changed.wait()

    def compact(self) -> None:
        """Put a snapshot of this member's machine in the place of the entries it has applied."""
        if self._host is None:
            return
        position, frozen = self._host.snapshot()
        try:
            chunks = list(frozen.chunks())
        finally:
            frozen.release()
        if position.index < self._log.first_index:
            return
        del self._log.entries[: position.index - self._log.first_index + 1]
        self._log.first_index = position.index + 1
        self._log.snapshot = (position, chunks)

    def wake(self) -> None:
        """There may be entries that this member has not delivered yet."""
        if self._host is not None and self._connected and self._delivery is None:
            self._delivery = asyncio.get_running_loop().call_soon(self._deliver)

    # -- inside -------------------------------------------------------------------------------

    def _leader(self) -> LocalEngine | None:
        for engine in self._log.members.values():
            if engine._connected:
                return engine
        return None

    def _announce(self) -> None:
        self._status_changed.set()
        self._status_changed = asyncio.Event()

    def _deliver(self) -> None:
        self._delivery = None
        if self._host is not None and self._connected:
            self._deliver_some(self._host)
            if self._next_index <= self._log.last_index:
                self.wake()

    def _deliver_all(self, host: EngineHost) -> None:
        while self._next_index <= self._log.last_index:
            self._deliver_some(host)

    def _deliver_some(self, host: EngineHost) -> None:
        log = self._log
        if self._next_index < log.first_index:
            if log.snapshot is None:
                host.halt(f"the log begins at index {log.first_index} and there is no snapshot")
                return
            position, chunks = log.snapshot
            for _ in host.restore_steps(position, chunks):
                pass
            self._next_index = position.index + 1
        start = self._next_index - log.first_index
        batch = log.entries[start : start + DELIVER_BATCH_MAX]
        self._next_index += len(batch)
        host.committed(batch)
