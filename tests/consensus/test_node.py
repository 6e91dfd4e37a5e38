"""The node: outcomes by name, bounds, halting, reads that share, and what it tells the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from consensus import (
    Capabilities,
    Committed,
    ConsensusError,
    Consistency,
    Engine,
    EngineHost,
    EngineStatus,
    Fault,
    FeatureUnavailable,
    Halted,
    Node,
    NotLeader,
    OutcomeUnknown,
    Position,
    Proposal,
    ProposalDropped,
    QueueFull,
    ReadFailed,
    Removed,
    Role,
    Stopped,
)
from consensus import node as node_module
from consensus.testing import BreakableMachine, RecordingMachine
from consensus.testing.machines import POISON
from tests.waiting import wait_until


class ScriptedEngine(Engine):
    """Commits what the test tells it to, when the test tells it to."""

    def __init__(self) -> None:
        self.batches: list[list[Proposal]] = []
        self.reads: list[asyncio.Future[int]] = []
        self.host: EngineHost
        self.index = 0
        self.feature_level = 0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(survives=Fault.NONE)

    @property
    def node_id(self) -> str:
        return "one"

    async def start(self, host: EngineHost) -> None:
        self.host = host

    async def stop(self) -> None:
        pass

    def propose(self, proposals: Sequence[Proposal]) -> None:
        self.batches.append(list(proposals))

    def commit(self, *proposals: Proposal, term: int = 1) -> None:
        batch = []
        for proposal in proposals:
            self.index += 1
            batch.append(Committed.of(term, self.index, [proposal]))
        self.host.committed(batch)

    async def read_index(self, timeout_s: float) -> int:
        self.reads.append(asyncio.get_running_loop().create_future())
        return await self.reads[-1]

    async def ask_leader(self, request: bytes, timeout_s: float) -> bytes:
        return await self.host.answer(request)

    def status(self) -> EngineStatus:
        return EngineStatus(
            "one", Role.LEADER, 1, "one", self.index, self.index, (), True, self.feature_level
        )

    async def watch_status(self) -> AsyncIterator[EngineStatus]:
        yield self.status()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


async def proposals_of(engine: ScriptedEngine, count: int) -> list[Proposal]:
    await wait_until(lambda: sum(map(len, engine.batches)) == count)
    return [proposal for batch in engine.batches for proposal in batch]


async def test_proposals_of_one_turn_reach_the_engine_together(engine: ScriptedEngine) -> None:
    async with Node(RecordingMachine(), engine) as node:
        tasks = [asyncio.create_task(node.propose(b"%d" % n)) for n in range(50)]
        proposals = await proposals_of(engine, 50)
        assert len(engine.batches) == 1
        assert len({proposal.id for proposal in proposals}) == 50
        engine.commit(*proposals)
        applied = await asyncio.gather(*tasks)
        assert [outcome.index for outcome in applied] == list(range(1, 51))
        assert [outcome.result for outcome in applied] == list(range(1, 51))


async def test_another_members_proposals_are_applied_and_resolve_nobody(
    engine: ScriptedEngine,
) -> None:
    machine = RecordingMachine()
    async with Node(machine, engine) as node:
        task = asyncio.create_task(node.propose(b"mine"))
        (mine,) = await proposals_of(engine, 1)
        other = Proposal(node_module.ProposalId(1, 2, 3), 5, b"theirs")
        engine.commit(other, mine)
        assert (await task).index == 2
        assert machine.commands == [b"theirs", b"mine"]


@pytest.mark.parametrize("error", [NotLeader("two"), ProposalDropped("no"), OutcomeUnknown("?")])
async def test_what_the_engine_says_reaches_the_caller(
    engine: ScriptedEngine, error: ConsensusError
) -> None:
    async with Node(RecordingMachine(), engine) as node:
        task = asyncio.create_task(node.propose(b"x"))
        (proposal,) = await proposals_of(engine, 1)
        engine.host.dropped(proposal.id, error)
        with pytest.raises(type(error)) as caught:
            await task
        assert caught.value is error
        assert node.status().pending_proposals == 0


async def test_silence_is_an_unknown_outcome(engine: ScriptedEngine) -> None:
    async with Node(RecordingMachine(), engine) as node:
        with pytest.raises(OutcomeUnknown, match=r"0\.05 s"):
            await node.propose(b"x", timeout_s=0.05)
        assert node.status().pending_proposals == 0
        (late,) = engine.batches[0]
        engine.commit(late)  # it was applied after all: nobody waits, nothing breaks
        assert node.status().applied_index == 1


async def test_the_queue_is_bounded(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "PROPOSALS_PENDING_MAX", 10)
    async with Node(RecordingMachine(), engine) as node:
        tasks = [asyncio.create_task(node.propose(b"x")) for _ in range(10)]
        proposals = await proposals_of(engine, 10)
        with pytest.raises(QueueFull, match="10 proposals"):
            await node.propose(b"one too many")
        engine.commit(*proposals)
        await asyncio.gather(*tasks)
        task = asyncio.create_task(node.propose(b"room again"))
        engine.commit((await proposals_of(engine, 11))[-1])
        assert (await task).index == 11


async def test_a_machine_that_raises_halts_the_node_at_that_index(engine: ScriptedEngine) -> None:
    machine = BreakableMachine()
    async with Node(machine, engine) as node:
        tasks = [asyncio.create_task(node.propose(c)) for c in (b"a", POISON, b"b")]
        first, poison, later = await proposals_of(engine, 3)
        engine.commit(first)
        engine.commit(poison)
        engine.commit(later)
        assert (await tasks[0]).index == 1
        for task in tasks[1:]:
            with pytest.raises(OutcomeUnknown, match="halted"):
                await task
        assert machine.commands == [b"a"]
        assert node.is_halted()
        assert "index 2" in node.status().halted
        assert "this machine has a bug" in await node.wait_halted()
        with pytest.raises(Halted, match="index 2"):
            await node.propose(b"more")
        with pytest.raises(Halted):
            await node.query(None, Consistency.SERIALIZABLE)


async def test_a_gap_in_the_log_halts_the_node(engine: ScriptedEngine) -> None:
    machine = RecordingMachine()
    async with Node(machine, engine) as node:
        task = asyncio.create_task(node.propose(b"x"))
        (proposal,) = await proposals_of(engine, 1)
        engine.index = 5
        engine.commit(proposal)
        assert "index 6 after index 0" in node.status().halted
        assert machine.commands == []
        with pytest.raises(OutcomeUnknown):
            await task


async def test_reads_of_one_moment_share_one_read_index(engine: ScriptedEngine) -> None:
    async with Node(RecordingMachine(), engine) as node:
        first = asyncio.create_task(node.query(None))
        await wait_until(lambda: len(engine.reads) == 1)
        late = [asyncio.create_task(node.query(None)) for _ in range(20)]
        await asyncio.sleep(0)
        engine.reads[0].set_result(0)
        assert await first == []
        assert not any(task.done() for task in late)  # they came after that one had begun
        await wait_until(lambda: len(engine.reads) == 2)
        engine.reads[1].set_result(0)
        assert await asyncio.gather(*late) == [[]] * 20
        assert len(engine.reads) == 2


async def test_a_read_waits_until_its_index_is_applied(engine: ScriptedEngine) -> None:
    async with Node(RecordingMachine(), engine) as node:
        write = asyncio.create_task(node.propose(b"x"))
        (proposal,) = await proposals_of(engine, 1)
        read = asyncio.create_task(node.query(None))
        await wait_until(lambda: len(engine.reads) == 1)
        engine.reads[0].set_result(1)
        await asyncio.sleep(0)
        assert not read.done()
        engine.commit(proposal)
        assert await read == [b"x"]
        await write


async def test_a_read_without_a_quorum_fails_in_time(engine: ScriptedEngine) -> None:
    async with Node(RecordingMachine(), engine) as node:
        with pytest.raises(ReadFailed, match=r"0\.05 s"):
            await node.query(None, timeout_s=0.05)


async def test_a_snapshot_over_pending_proposals_leaves_them_unknown(
    engine: ScriptedEngine,
) -> None:
    source = RecordingMachine()
    source.commands = [b"a", b"b", b"c"]
    machine = RecordingMachine()
    async with Node(machine, engine) as node:
        task = asyncio.create_task(node.propose(b"x"))
        await proposals_of(engine, 1)
        chunks = list(source.snapshot().chunks())
        for _ in engine.host.restore_steps(Position(3, 1, 77), chunks):
            pass
        assert machine.commands == [b"a", b"b", b"c"]
        assert node.status().applied_index == 3
        with pytest.raises(OutcomeUnknown, match="snapshot"):
            await task


async def test_stopping_fails_what_waits(engine: ScriptedEngine) -> None:
    node = Node(RecordingMachine(), engine)
    await node.start()
    write = asyncio.create_task(node.propose(b"x"))
    read = asyncio.create_task(node.query(None))
    await wait_until(lambda: bool(engine.batches) and bool(engine.reads))
    await node.stop()
    with pytest.raises(OutcomeUnknown):
        await write
    with pytest.raises(ConsensusError):
        await asyncio.wait_for(read, 5.0)
    with pytest.raises(Stopped):
        await node.propose(b"late")


async def test_a_removed_member_halts_and_says_that_it_was_removed(
    engine: ScriptedEngine,
) -> None:
    async with Node(RecordingMachine(), engine) as node:
        task = asyncio.create_task(node.propose(b"x"))
        await proposals_of(engine, 1)
        assert not node.status().removed
        engine.host.removed("one was removed from the group")
        with pytest.raises(OutcomeUnknown, match="removed"):
            await task
        assert node.status().removed
        assert node.is_halted()
        assert "one was removed" in await node.wait_halted()
        with pytest.raises(Removed, match="one was removed"):
            await node.propose(b"late")
        with pytest.raises(Removed):
            await node.change_membership([])


async def test_a_read_that_waits_when_a_member_is_removed_says_why(engine: ScriptedEngine) -> None:
    async with Node(RecordingMachine(), engine) as node:
        read = asyncio.create_task(node.query(None))
        await wait_until(lambda: len(engine.reads) == 1)
        engine.host.removed("one was removed from the group")
        engine.reads[0].set_exception(Stopped("the engine was stopped"))
        with pytest.raises(Removed, match="one was removed"):
            await read


async def test_a_command_that_a_member_may_not_know_is_not_sent(engine: ScriptedEngine) -> None:
    async with Node(RecordingMachine(), engine) as node:
        engine.feature_level = 1
        with pytest.raises(FeatureUnavailable, match="level 2"):
            await node.propose(b"new", feature_level=2)
        assert engine.batches == []
        engine.feature_level = 2
        task = asyncio.create_task(node.propose(b"new", feature_level=2))
        engine.commit(*await proposals_of(engine, 1))
        assert (await task).index == 1


async def test_no_caller_waits_less_than_it_said(engine: ScriptedEngine) -> None:
    """Also the later ones of a turn in which something else took long."""
    waited: dict[str, float] = {}
    loop = asyncio.get_running_loop()

    async def call(name: str, node: Node) -> None:
        began = loop.time()
        with pytest.raises(OutcomeUnknown, match=r"within 0\.1 s"):
            await node.propose(b"x", 0.1)
        waited[name] = loop.time() - began

    async with Node(RecordingMachine(), engine) as node:
        first = asyncio.create_task(call("first", node))
        loop.call_soon(time.sleep, 0.2)
        await asyncio.gather(first, asyncio.create_task(call("second", node)))
    assert min(waited.values()) > 0.09, waited
