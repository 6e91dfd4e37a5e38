"""One driver of the native engine on disks in memory, with a machine that is a list of commands."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from consensus.engine import EngineHost
from consensus.engines.native.batches import encode_batch
from consensus.engines.native.driver import Driver
from consensus.errors import ConsensusError
from consensus.raft.config import CoreConfig
from consensus.raft.configuration import Configuration
from consensus.raft.messages import (
    AnyMessage,
    AppendEntries,
    AppendEntriesResponse,
    EntryKind,
    InstallSnapshot,
    LogEntry,
    PreVoteResponse,
    RequestVoteResponse,
)
from consensus.statemachine import BytesSnapshot, StateSnapshot
from consensus.storage.snapshots import StoredMeta
from consensus.types import Committed, NodeId, Position, Proposal, ProposalId
from tests.consensus.storage.images import MemoryFiles

SEGMENT_BYTES = 16_384
ABC = Configuration.of("abc")


class ListHost(EngineHost):
    """A node whose machine is the list of commands that it applied.

    Args:
        durable: where its state on disk stands, and what it holds, for a durable machine.
    """

    def __init__(self, durable: tuple[Position, list[str]] | None = None) -> None:
        self.durable = durable
        self.at, self.commands = durable or (Position(), [])
        self.commands = list(self.commands)
        self.outcomes: dict[int, ConsensusError] = {}
        self.discarded: list[str] = []
        self.halted = ""

    def position(self) -> Position:
        return self.durable[0] if self.durable else Position()

    def discard(self, reason: str) -> None:
        self.discarded.append(reason)
        self.durable, self.at, self.commands = None, Position(), []

    def committed(self, batch: Sequence[Committed]) -> None:
        for item in batch:
            assert item.index == self.at.index + 1, f"{item.index} after {self.at.index}"
            self.commands += [command.decode() for command in item.commands]
            self.at = Position(item.last_index, item.term, item.clocks_ms[-1])

    def dropped(self, proposal: ProposalId, error: ConsensusError) -> None:
        assert proposal.sequence not in self.outcomes, "told twice"
        self.outcomes[proposal.sequence] = error

    def snapshot(self) -> tuple[Position, StateSnapshot]:
        return self.at, BytesSnapshot(json.dumps(self.commands).encode())

    def restore_steps(self, position: Position, chunks: Iterable[bytes]) -> Iterator[None]:
        self.commands = json.loads(b"".join(chunks))
        self.at = position
        yield

    async def answer(self, request: bytes) -> bytes:
        return request

    def halt(self, reason: str) -> None:
        self.halted = reason

    def removed(self, reason: str) -> None:
        self.halted = reason

    def is_halted(self) -> bool:
        return bool(self.halted)


class Member:
    """A driver, its disks, and what it sent."""

    def __init__(
        self,
        name: NodeId = "b",
        *,
        log_files: MemoryFiles | None = None,
        snapshot_files: MemoryFiles | None = None,
        host: ListHost | None = None,
        bootstrap: Configuration = ABC,
        incarnation: int = 1,
        catch_up_entries: int = 0,
        snapshot_entries: int = 10_000,
        distrust: str = "",
    ) -> None:
        self.log_files = log_files or MemoryFiles()
        self.snapshot_files = snapshot_files or MemoryFiles()
        self.host = host or ListHost()
        self.sent: list[AnyMessage] = []
        self.driver = Driver(
            CoreConfig(node_id=name),
            self.log_files,
            self.snapshot_files,
            self.host,
            bootstrap,
            random.Random(0),
            self.sent.append,
            segment_bytes=SEGMENT_BYTES,
            incarnation=incarnation,
            catch_up_entries=catch_up_entries,
            snapshot_entries=snapshot_entries,
            distrust=distrust,
        )
        self.driver.pump()

    def again(self, image: dict[str, bytes] | None = None, host: ListHost | None = None) -> Member:
        """Start anew from the same disks, or from this image of the log's."""
        return Member(
            self.driver.core.node_id,
            log_files=MemoryFiles(self.log_files.image() if image is None else image),
            snapshot_files=MemoryFiles(self.snapshot_files.image()),
            host=host,
        )

    def install(self, message: InstallSnapshot, stored: StoredMeta) -> None:
        """Take in a snapshot whose data is stored, into the machine and all."""
        self.driver.receive_snapshot(message, stored)
        self.driver.pump()
        while self.driver.restore_slice():
            pass

    def receive(self, message: AnyMessage) -> list[AnyMessage]:
        """Take in a message, and return what was said to it."""
        self.sent.clear()
        self.driver.receive(message)
        self.driver.pump()
        return list(self.sent)

    def append(
        self,
        prev: tuple[int, int],
        *entries: LogEntry,
        term: int,
        commit: int = 0,
        sender: NodeId = "a",
    ) -> list[AnyMessage]:
        """Let a leader send entries."""
        return self.receive(
            AppendEntries(
                sender=sender,
                receiver=self.driver.core.node_id,
                term=term,
                prev_log_index=prev[0],
                prev_log_term=prev[1],
                entries=entries,
                leader_commit=commit,
            )
        )


def proposal(sequence: int, text: str = "") -> Proposal:
    """A proposal of member 1."""
    return Proposal(ProposalId(1, 1, sequence), 1_000 + sequence, (text or f"c{sequence}").encode())


def command(index: int, term: int, text: str = "") -> LogEntry:
    """A command in the log."""
    data = encode_batch([proposal(index, text or f"{index}@{term}")])
    return LogEntry(index, term, EntryKind.COMMAND, data)


def noop(index: int, term: int) -> LogEntry:
    """A new leader's first entry."""
    return LogEntry(index, term, EntryKind.NOOP, b"")


def leader(**settings: Any) -> Member:
    """Member "b" leads "a" and "c" in term 1."""
    member = Member("b", **settings)
    core = member.driver.core
    core.now_ticks = 100
    core.campaign()
    member.driver.pump()
    member.receive(PreVoteResponse(sender="a", receiver="b", term=1, granted=True))
    member.receive(RequestVoteResponse(sender="a", receiver="b", term=1, granted=True))
    assert core.is_leader
    acknowledge(member)
    return member


def acknowledge(member: Member, peer: str = "a") -> None:
    """A member of the leader's has everything."""
    core = member.driver.core
    member.receive(
        AppendEntriesResponse(
            sender=peer,
            receiver="b",
            term=core.term,
            success=True,
            match_index=core.log.last_index,
        )
    )


def propose(member: Member, *sequences: int) -> None:
    """Propose commands by number, all in one turn."""
    member.driver.propose([proposal(sequence) for sequence in sequences])
    member.driver.pump()
