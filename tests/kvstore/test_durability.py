"""Kill -9 under load: service resumes, and what was acknowledged is there, on every member.

Writers put unique keys through all three members and note what became of each put: acknowledged
(with its revision), unknown, or certainly not applied. After each kill every member is asked for
everything. What is lost is counted and told beside what the engine declares that it survives.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.lossyfs.disk import why_not
from consensus.engine import Capabilities, Fault
from consensus.engines.native.capabilities import CAPABILITIES as NATIVE
from consensus.engines.pysyncobj.engine import CAPABILITIES
from kvstore.client import AsyncClient, KeyValue
from tests.clusters import Cluster, Member, Program
from tests.kvstore.kill_rounds import rounds_of_kills
from tests.kvstore.ledger import (
    PREFIX,
    RESUME_TIMEOUT_S,
    Found,
    Ledger,
    compare,
    load,
    more_acknowledged,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("durability")

ROUNDS = 3
LOAD = 150
"""Puts that must be acknowledged before the kill, and again after it."""

Record = Callable[[str, object], None]


DECLARED = {
    "native": NATIVE,
    "pysyncobj": CAPABILITIES,
}


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> str:
    """The engine below, native where a test does not say otherwise."""
    return getattr(request, "param", "native")


@pytest.fixture(scope="module")
def declared(engine: str) -> Capabilities:
    """What the engine promises."""
    return DECLARED[engine]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Cluster]:
    with Cluster(Program.kvstore(engine), tmp_path_factory.mktemp("durable")) as running:
        yield running
    for member in running.members:
        assert "Traceback" not in member.log.read_text(), member.log


@pytest.fixture(scope="module")
def ledger(engine: str) -> Ledger:
    """One ledger for all kills: a later one must not lose what an earlier one spared."""
    return Ledger()


async def resumed(ledger: Ledger, since: float) -> float:
    """Wait for a put that was begun after ``since`` and acknowledged; return the seconds."""
    await wait_until(
        lambda: ledger.newest_start > since, RESUME_TIMEOUT_S, "service resumes after the kill"
    )
    return time.monotonic() - since


async def leader_and_followers(cluster: Cluster) -> tuple[Member, list[Member]]:
    """Ask the members who leads."""
    async with AsyncClient(cluster.endpoints) as client:
        statuses = [await client.status(endpoint) for endpoint in cluster.endpoints]
    ids = [status.header.member_id for status in statuses]
    (leader,) = {status.leader for status in statuses}
    ordered = dict(zip(ids, cluster.members, strict=True))
    return ordered.pop(leader), list(ordered.values())


async def read_back(cluster: Cluster, ledger: Ledger) -> list[Found]:
    """Ask every member for everything, and hold it against the ledger."""
    answers = []
    for member in cluster.members:
        async with AsyncClient(member.client, timeout_s=RESUME_TIMEOUT_S) as client:
            pairs = {kv.key: kv for kv in await client.get_prefix(PREFIX)}
        answers.append(compare(member.name, pairs, ledger))
    async with AsyncClient(cluster.endpoints) as client:
        revision = (await client.put("/end", "")).header.revision
    hashes = set()
    for endpoint in cluster.endpoints:
        async with AsyncClient(endpoint) as client:
            await client.get("/end")  # linearizable: from here this member has that revision
            hashes.add((await client.hash_kv(revision=revision)).hash)
    assert len(hashes) == 1, "the members' states differ"
    return answers


def start_again(cluster: Cluster) -> None:
    """Start every member that does not run, and wait until all are healthy."""
    for member in cluster.members:
        if not member.running:
            cluster.launch(member)
    cluster.wait_ready()


def tell(
    record: Record,
    what: str,
    declared: Capabilities,
    fault: Fault,
    ledger: Ledger,
    answers: list[Found],
    gap_s: float,
) -> None:
    """Put the count beside the engine's declaration, where the run's summary shows it."""
    survives = ", ".join(str(each.name) for each in declared.survives)
    expected = "none expected" if fault in declared.survives else "losses possible"
    lost = {each.member: len(each.lost) for each in answers}
    record(
        "counted",
        f"kill -9 of {what}: {len(ledger.acknowledged)} puts acknowledged so far, "
        f"lost per member {lost} ({expected}); {len(ledger.unknown)} unknown, "
        f"{len(ledger.refused)} refused; service was back after {gap_s:.2f} s\n"
        f"the engine declares that it survives {survives}; and: {declared.notes[0]}",
    )


def test_the_count_sees_what_is_wrong() -> None:
    def pair(key: bytes, value: bytes, revision: int) -> KeyValue:
        return KeyValue(key, value, revision, revision, 1, 0)

    ledger = Ledger({b"lost": 2, b"moved": 3, b"changed": 4, b"right": 5}, {b"unknown"}, {b"no"})
    there = [
        *(pair(b"moved", b"moved", 9), pair(b"changed", b"other", 4), pair(b"right", b"right", 5)),
        *(pair(b"unknown", b"unknown", 6), pair(b"no", b"no", 7)),
    ]
    found = compare("member", {each.key: each for each in there}, ledger)
    assert found == Found("member", [b"lost"], [b"changed", b"moved"], [b"no"])
    assert not found.right


@pytest.mark.parametrize("engine", ["native"], indirect=True, scope="module")
@pytest.mark.parametrize("victim", ["a follower", "the leader"])
async def test_kill_of_one(
    cluster: Cluster,
    ledger: Ledger,
    declared: Capabilities,
    victim: str,
    record_property: Record,
) -> None:
    async with load(cluster, ledger, victim.split()[1]):
        await more_acknowledged(ledger, LOAD)
        leader, followers = await leader_and_followers(cluster)
        killed = leader if victim == "the leader" else followers[0]
        at = time.monotonic()
        cluster.kill(killed, signal.SIGKILL)
        gap_s = await resumed(ledger, at)
        await more_acknowledged(ledger, LOAD)
        await asyncio.to_thread(start_again, cluster)
        await more_acknowledged(ledger, LOAD)
    answers = await read_back(cluster, ledger)
    fault = Fault.PROCESS_CRASH_MINORITY
    tell(record_property, victim, declared, fault, ledger, answers, gap_s)
    assert fault in declared.survives
    assert all(each.right for each in answers), answers


@pytest.mark.parametrize("engine", ["native", "pysyncobj"], indirect=True, scope="module")
async def test_kill_of_all(
    cluster: Cluster, ledger: Ledger, declared: Capabilities, record_property: Record
) -> None:
    async with load(cluster, ledger, "all"):
        await more_acknowledged(ledger, LOAD)
        for member in cluster.members:
            assert member.process is not None
            member.process.send_signal(signal.SIGKILL)
        for member in cluster.members:
            cluster.kill(member, signal.SIGKILL)
        at = time.monotonic()
        await asyncio.to_thread(start_again, cluster)
        gap_s = await resumed(ledger, at)
        await more_acknowledged(ledger, LOAD)
    answers = await read_back(cluster, ledger)
    fault = Fault.PROCESS_CRASH_ALL
    tell(record_property, "all three", declared, fault, ledger, answers, gap_s)
    assert fault in declared.survives
    assert all(each.right for each in answers), answers


@pytest.mark.timeout(300)
async def test_rounds_of_kills_of_all_while_the_log_is_compacted(
    tmp_path: Path, record_property: Record
) -> None:
    """A sample, on the native engine; ``tests.kvstore.kill_rounds`` runs as many as one likes.

    Where FUSE is there the disks forget what was not synced.
    """
    lines: list[str] = []
    lossy = not why_not()
    tally = await rounds_of_kills(tmp_path, ROUNDS, lossy_disks=lossy, say=lines.append)
    disks = f"{tally.forgotten} unsynced changes lost, " if lossy else ""
    record_property("counted", f"{tally.rounds} rounds of kill -9 of all three: {disks}{lines[-1]}")
    assert tally.rounds == ROUNDS and not tally.wrong, tally.wrong
