"""Three real processes under SIGKILL, through ``raftyard serve`` and the generic client."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from consensus import ConsensusError, Handle, OutcomeUnknown, ProposalDropped
from consensus.client import Client
from statemachines import Session
from tests.consensus.served import Notes, Served
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("processes")

ENGINES = {"native": "*.snap", "pysyncobj": "snapshot.dump"}
"""Engines with several members, and what their snapshots are called."""


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """How the members replicate."""
    return str(request.param)


async def leader_of(client: Client, cluster: Served) -> str:
    """Wait until all running members name one leader that runs; return it."""
    found: set[str] = set()

    async def agreed() -> bool:
        status = await client.status()
        said = {
            status[f"http://{cluster.clients[name]}"].get("leader") for name in cluster.processes
        }
        found.clear()
        found.update(name for name in said if name)
        return len(said) == 1 and bool(found & cluster.processes.keys())

    await wait_until(agreed, 60.0, "one leader")
    return found.pop()


class Writers:
    """Clients that add notes all the time and remember what became of each."""

    def __init__(self, cluster: Served, count: int = 4) -> None:
        self.acknowledged: list[str] = []
        self.dropped: list[str] = []
        self.unknown: list[str] = []
        self._cluster = cluster
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(count)]

    async def _write(self, writer: int) -> None:
        endpoints = self._cluster.endpoints
        async with Client(endpoints[writer % 3 :] + endpoints[: writer % 3]) as client:
            number = 0
            while not self._stop.is_set():
                number += 1
                text = f"{writer}-{number}"
                try:
                    await client.propose(Notes.encode("add", text=text), timeout_s=3.0)
                    self.acknowledged.append(text)
                except ProposalDropped:
                    self.dropped.append(text)
                except OutcomeUnknown:
                    self.unknown.append(text)

    async def more(self, count: int) -> None:
        """Wait until ``count`` more notes are acknowledged."""
        wanted = len(self.acknowledged) + count
        await wait_until(lambda: len(self.acknowledged) >= wanted, 40.0, f"{count} more writes")

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    def check(self, notes: list[str]) -> None:
        found = set(notes)
        assert len(notes) == len(found), "a note is there twice"
        lost = [text for text in self.acknowledged if text not in found]
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged writes are lost"
        assert not found & set(self.dropped), "a write said to be dropped is there"
        assert found <= {*self.acknowledged, *self.unknown}


async def test_killed_leaders_lose_nothing(tmp_path: Path, engine: str) -> None:
    """SIGKILL of the leader under load, twice, with snapshots on the way."""
    with Served(tmp_path, "--engine", engine, "--snapshot-count", "100") as cluster:
        async with Client(cluster.endpoints) as client:
            await leader_of(client, cluster)
            writers = Writers(cluster)
            for _ in range(2):
                await writers.more(100)
                name = await leader_of(client, cluster)
                cluster.kill(name)
                await writers.more(50)
                cluster.launch(name)
                await leader_of(client, cluster)
            await writers.stop()
            writers.check(await Handle(client, Notes).all())


async def test_all_killed_at_once_lose_nothing(tmp_path: Path, engine: str) -> None:
    """SIGKILL of all three at once under load and amid compactions: the page cache survives."""
    with Served(tmp_path, "--engine", engine, "--snapshot-count", "40") as cluster:
        async with Client(cluster.endpoints) as client:
            await leader_of(client, cluster)
            writers = Writers(cluster)
            for _ in range(2):
                await writers.more(120)
                for process in cluster.processes.values():
                    process.send_signal(signal.SIGKILL)
                for name in list(cluster.processes):
                    cluster.kill(name)
                for name in cluster.peers:
                    cluster.launch(name)
                await leader_of(client, cluster)
            await writers.more(20)
            await writers.stop()
            writers.check(await Handle(client, Notes).all())
            assert any((tmp_path / "ann").rglob(ENGINES[engine]))


async def test_a_paused_leader_is_replaced_and_answers_nothing_stale(
    tmp_path: Path, engine: str
) -> None:
    with Served(tmp_path, "--engine", engine) as cluster:
        async with Client(cluster.endpoints) as client:
            name = await leader_of(client, cluster)
            await Handle(client, Notes).add(text="before")
            paused = cluster.processes.pop(name)
            paused.send_signal(signal.SIGSTOP)
            others = [address for who, address in cluster.clients.items() if who != name]
            async with Client(others) as rest:
                await Handle(rest, Notes, timeout_s=20.0).add(text="meanwhile")
                cluster.processes[name] = paused
                async with Client([cluster.clients[name]]) as direct:
                    paused.send_signal(signal.SIGCONT)
                    assert await Handle(direct, Notes).all() == ["before", "meanwhile"]


async def test_a_machine_that_raises_stops_its_process_and_says_why(
    tmp_path: Path, engine: str
) -> None:
    with Served(tmp_path, "--engine", engine) as cluster:
        async with Client(cluster.endpoints) as client:
            await leader_of(client, cluster)
            await Handle(client, Notes).add(text="a")
            with pytest.raises(ConsensusError):
                await client.propose(Notes.encode("fail"), timeout_s=2.0)
            # The last one may never hear that the command is committed: the others are gone.
            await wait_until(lambda: len(ended(cluster)) > len(cluster.processes) // 2, 30.0)
            for name in ended(cluster):
                assert cluster.processes[name].returncode == 1
                last = cluster.log(name).read_text().splitlines()[-1]
                assert last.startswith("raftyard: stopped: the state machine failed in the batch")
                assert "index 2" in last and "this command is broken" in last


def ended(cluster: Served) -> list[str]:
    """The members whose processes have ended by themselves."""
    return [name for name, each in cluster.processes.items() if each.poll() is not None]


async def test_exactly_once_through_sessions(tmp_path: Path, engine: str) -> None:
    """With a session around the machine, even a killed leader makes no difference to the caller."""
    with Served(
        tmp_path, "--engine", engine, machine="tests.consensus.served:noted_once"
    ) as cluster:
        async with Client(cluster.endpoints) as client:
            name = await leader_of(client, cluster)
            async with Session(client) as session:
                notes = Handle(session, Notes, timeout_s=20.0)
                for number in range(30):
                    if number == 10:
                        cluster.kill(name)
                    assert await notes.add(text=f"{number}") == number + 1
                assert await notes.all() == [f"{number}" for number in range(30)]
