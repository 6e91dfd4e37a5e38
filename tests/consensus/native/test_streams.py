"""Streams of snapshots that break: the next one goes on where the last one broke off."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from chaos.toxid.registry import Registry
from consensus.engines.native import outgoing, streams
from consensus.engines.native.incoming import Announcement, IncomingSnapshots, Reception
from consensus.engines.native.outgoing import OutgoingSnapshots
from consensus.engines.native.streams import SnapshotStreams
from consensus.errors import SnapshotRefused
from consensus.raft.messages import AppendEntriesResponse, SnapshotMeta
from consensus.statemachine import BytesSnapshot, StateSnapshot
from consensus.storage.records import crc32c
from consensus.storage.snapshots import StoredMeta
from consensus.tls import TlsFiles, client_context, server_context
from consensus.transport.tcp import TcpTransport, TransportConfig
from tests.certificates import Authority
from tests.consensus.native.groups import NAMES, PATIENCE_S, Group, started
from tests.consensus.native.member import (
    ABC,
    Member,
    acknowledge,
    command,
    leader,
    noop,
    propose,
)
from tests.interop import free_ports
from tests.waiting import wait_until

DATA = json.dumps([f"command {number}" for number in range(100)]).encode()
META = StoredMeta(SnapshotMeta(50, 2, ABC), 40, 5_000)
HALF = len(DATA) // 2


def announced(name: bytes = b"a/1/1", term: int = 2, meta: StoredMeta = META) -> Announcement:
    return Announcement(name, "a", term, meta)


def temporary(member: Member) -> list[str]:
    """What is in the store and not finished."""
    return [name for name in member.snapshot_files.names() if name.endswith(".tmp")]


def follower() -> Member:
    """A follower with a short log, in term 2."""
    member = Member()
    member.append((0, 0), noop(1, 1), command(2, 1), term=2, commit=2)
    return member


def half_received(member: Member) -> None:
    first = member.driver.incoming.begin(announced())
    assert first.offset == 0
    first.write(DATA[:HALF])
    first.close()


def installed(member: Member) -> list[str]:
    """What the machine holds once everything that was received is restored."""
    member.driver.pump()
    while member.driver.restore_slice():
        pass
    return member.host.commands


# -- receiving --------------------------------------------------------------------------------


def test_a_stream_goes_on_where_the_last_one_broke_off() -> None:
    member = follower()
    half_received(member)
    second = member.driver.incoming.begin(announced())
    assert second.offset == HALF
    second.write(DATA[HALF:])
    second.finish(len(DATA), crc32c(DATA))
    second.close()
    assert installed(member) == json.loads(DATA)
    assert temporary(member) == []
    assert member.again().host.commands == json.loads(DATA)


def test_another_snapshot_throws_away_what_came_of_the_last_one() -> None:
    elsewhere = StoredMeta(SnapshotMeta(60, 3, ABC), 50, 6_000)
    for other in (
        announced(b"a/1/2"),
        announced(meta=attrs.evolve(META, command_index=41)),
        announced(b"b/1/1", term=3, meta=elsewhere),
    ):
        member = follower()
        half_received(member)
        kept = temporary(member)
        assert len(kept) == 1
        assert member.driver.incoming.begin(other).offset == 0
        assert len(temporary(member)) == 1 and temporary(member) != kept


def test_what_is_not_what_was_sent_is_refused_and_not_kept() -> None:
    for rest, size, checksum in (
        (DATA[HALF:], len(DATA), crc32c(DATA) ^ 1),
        (DATA[HALF:], len(DATA) + 1, crc32c(DATA)),
        (bytes(len(DATA) - HALF), len(DATA), crc32c(DATA)),
        (DATA[HALF:-1], len(DATA), crc32c(DATA)),
    ):
        member = follower()
        half_received(member)
        second = member.driver.incoming.begin(announced())
        second.write(rest)
        with pytest.raises(SnapshotRefused, match="what arrived is not what was sent"):
            second.finish(size, checksum)
        second.close()
        assert member.snapshot_files.names() == []
        assert installed(member) == ["2@1"]
        assert member.driver.incoming.begin(announced()).offset == 0


def test_a_new_stream_takes_over_from_one_that_hangs() -> None:
    member = follower()
    first = member.driver.incoming.begin(announced())
    first.write(DATA[:HALF])
    second = member.driver.incoming.begin(announced())
    assert second.offset == HALF
    with pytest.raises(SnapshotRefused, match="another stream has taken over"):
        first.write(DATA[HALF:])
    first.close()
    second.write(DATA[HALF:])
    second.finish(len(DATA), crc32c(DATA))
    assert installed(member) == json.loads(DATA)


def test_a_stream_of_an_earlier_leader_is_refused() -> None:
    member = follower()
    with pytest.raises(SnapshotRefused, match="sent in term 1; this is term 2"):
        member.driver.incoming.begin(announced(term=1))
    later = member.driver.incoming.begin(announced(term=4))
    with pytest.raises(SnapshotRefused, match="sent in term 3; this is term 4"):
        member.driver.incoming.begin(announced(b"a/1/9", term=3))
    later.write(DATA)


def test_a_snapshot_of_what_is_here_already_is_not_wanted_and_not_kept() -> None:
    member = follower()
    early = attrs.evolve(META, raft=SnapshotMeta(2, 1, ABC))
    with pytest.raises(SnapshotRefused, match="already at index 2"):
        member.driver.incoming.begin(announced(meta=early))
    member.sent.clear()
    member.driver.pump()
    # Its leader never heard that it arrived, and would send it for ever.
    (answer,) = member.sent
    assert isinstance(answer, AppendEntriesResponse)
    assert (answer.success, answer.match_index) == (True, 2)
    soon = attrs.evolve(META, raft=SnapshotMeta(3, 2, ABC))
    reception = member.driver.incoming.begin(announced(meta=soon))
    reception.write(DATA[:HALF])
    member.append((2, 1), command(3, 2), term=2, commit=3)
    member.driver.tick()
    assert temporary(member) == []
    with pytest.raises(SnapshotRefused, match="needed no more"):
        reception.write(DATA[HALF:])


def test_a_restart_forgets_what_was_not_finished() -> None:
    member = follower()
    half_received(member)
    again = member.again()
    assert temporary(again) == []
    member.driver.close()
    assert temporary(member) == []


# -- sending ----------------------------------------------------------------------------------


class Frozen(BytesSnapshot):
    """Counts how often it was given back."""

    released = 0

    def release(self) -> None:
        Frozen.released += 1


@pytest.fixture
def member() -> Member:
    """A follower: what is told here is the same on a leader."""
    return follower()


@pytest.fixture
def sending(member: Member) -> Iterator[OutgoingSnapshots]:
    """What a member sends whose snapshots are kept for three ticks."""
    Frozen.released = 0
    indexes = iter(range(2, 99))

    def freeze() -> tuple[StoredMeta, StateSnapshot]:
        return attrs.evolve(META, raft=SnapshotMeta(next(indexes), 1, ABC)), Frozen(DATA)

    yield OutgoingSnapshots(member.driver.core, "1", freeze, 3, lambda place: place)


def test_a_member_whose_stream_broke_is_offered_the_same_bytes(sending: OutgoingSnapshots) -> None:
    first = sending.open("c")
    assert sending.open("a").id != first.id, "each member has its own"
    sending.broke("c")
    again = sending.open("c")
    assert (again.id, again.meta) == (first.id, first.meta)
    assert b"".join(again.chunks()) == DATA
    sending.refused("c")
    assert Frozen.released == 1
    assert sending.open("c").id != first.id


def test_a_snapshot_is_given_back_when_nobody_comes_for_it(
    member: Member, sending: OutgoingSnapshots
) -> None:
    sending.open("a")
    first = sending.open("c")
    sending.broke("c")
    for ticks in range(3):
        sending.tick()
        assert Frozen.released == 0, f"after {ticks} ticks"
        member.driver.core.tick()
    sending.tick()
    assert Frozen.released == 1, "and what is being sent is not given back"
    assert sending.open("c").id != first.id


def test_a_snapshot_that_the_log_does_not_go_on_from_is_not_offered_again(
    member: Member, sending: OutgoingSnapshots
) -> None:
    first = sending.open("c")
    sending.broke("c")
    member.append((2, 1), command(3, 2), term=2, commit=3)
    member.driver.shorten_to_command(2)
    assert member.driver.core.log.snapshot.index > first.meta.raft.index
    assert sending.open("c").id != first.id
    assert Frozen.released == 1


def test_nothing_is_kept_once_the_member_takes_no_part_any_more(sending: OutgoingSnapshots) -> None:
    sending.open("a")
    sending.open("c")
    sending.broke("a")
    sending.close()
    assert Frozen.released == 1
    sending.broke("c")
    assert Frozen.released == 2


def go_on(member: Member, *sequences: int) -> None:
    """Have commands committed without "c", each in an entry of its own."""
    for sequence in sequences:
        propose(member, sequence)
        acknowledge(member)


def test_the_log_keeps_what_a_member_needs_after_its_snapshot() -> None:
    """Under load it would else be behind again each time that one has arrived."""
    member = leader(snapshot_entries=10)
    driver, log = member.driver, member.driver.core.log
    go_on(member, *range(1, 6))
    snapshot = driver.outgoing.open("c")
    go_on(member, *range(6, 31))
    assert not driver.wants_compaction
    driver.shorten_to_command(30)
    assert log.snapshot.index == snapshot.meta.raft.index
    driver.outgoing.arrived("c")
    go_on(member, *range(31, 41))
    driver.shorten_to_command(40)
    assert log.snapshot.index == snapshot.meta.raft.index, "it has the snapshot, and not the rest"
    acknowledge(member, "c")
    driver.tick()
    assert driver.wants_compaction
    driver.shorten_to_command(40)
    assert log.snapshot.index == log.last_index, "it has caught up"


def test_the_log_does_not_grow_without_bound_for_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "HELD_COMMANDS_MAX", 12)
    member = leader(snapshot_entries=10)
    go_on(member, *range(1, 6))
    member.driver.outgoing.open("c")
    go_on(member, *range(6, 31))
    assert member.driver.wants_compaction
    member.driver.shorten_to_command(30)
    log = member.driver.core.log
    assert log.snapshot.index == log.last_index - 12


async def test_a_stream_hurries_before_the_log_has_to_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "HELD_COMMANDS_MAX", 12)
    member = leader(snapshot_entries=10)
    go_on(member, *range(1, 6))
    hurried: list[bool] = []

    async def send(
        peer: str, term: int, header: Any, chunks: Iterator[bytes], hurries: Callable[[], bool]
    ) -> None:
        for sequences in (range(6, 12), range(12, 13)):
            go_on(member, *sequences)
            hurried.append(hurries())

    tasks: list[asyncio.Task[None]] = []

    def spawn(work: Coroutine[None, None, None]) -> None:
        tasks.append(asyncio.get_running_loop().create_task(work))

    transport = TcpTransport(
        TransportConfig(node_id="a", cluster="c", listen="127.0.0.1:0"), cast("Any", None)
    )
    monkeypatch.setattr(transport, "send_snapshot", send)
    SnapshotStreams(member.driver, transport, spawn, lambda: None, pytest.fail).send("c")
    await asyncio.gather(*tasks)
    assert hurried == [False, True]


# -- a running group --------------------------------------------------------------------------

CUT_AFTER_BYTES = 800_000
COMMAND_BYTES = 10_000


class Streams:
    """Watches what a member receives: for each snapshot, from where to where each stream was."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ranges: dict[bytes, list[list[int]]] = {}
        self.finished: dict[bytes, int] = {}
        begin, write, finish = IncomingSnapshots.begin, Reception.write, Reception.finish
        names: dict[Reception, bytes] = {}

        def begin_seen(incoming: IncomingSnapshots, announced: Announcement) -> Reception:
            reception = begin(incoming, announced)
            names[reception] = announced.id
            place = [reception.offset, reception.offset]
            self.ranges.setdefault(announced.id, []).append(place)
            return reception

        def write_seen(reception: Reception, chunk: bytes) -> None:
            write(reception, chunk)
            self.ranges[names[reception]][-1][1] += len(chunk)

        def finish_seen(reception: Reception, size: int, checksum: int) -> None:
            finish(reception, size, checksum)
            self.finished[names[reception]] = size

        patch.setattr(IncomingSnapshots, "begin", begin_seen)
        patch.setattr(Reception, "write", write_seen)
        patch.setattr(Reception, "finish", finish_seen)


def tls_settings(directory: Path) -> dict[str, Any]:
    """One certificate for all members of a group: they are all on loopback."""
    authority = Authority(directory / "tls")
    cert, key = authority.sign("member")
    files = TlsFiles(cert=cert, key=key, trusted_ca=authority.file)
    return {"tls_server": server_context(files), "tls_client": client_context(files)}


async def away_past_compaction(running: Group, victim: str) -> None:
    """Stop a member, and go on until the log does not reach back to where it was."""
    await running.stop(victim)
    await running.propose(120, size=COMMAND_BYTES)
    leader = await running.led()
    core = running.engine(leader)._running().core
    await wait_until(lambda: core.log.snapshot.index > 20, PATIENCE_S, "the log is shortened")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_nothing_that_has_arrived_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    """Every connection to the member that was away is cut after so many bytes."""
    victim = NAMES[-1]
    (port,) = free_ports(1)
    proxies = Registry(seed=1)
    dial: dict[str, str] = {}
    running = Group(
        tmp_path,
        snapshot_entries=20,
        election_timeout_ms=1_000,
        heartbeat_interval_ms=100,
        dial=dial,
        **(tls_settings(tmp_path) if secure else {}),
    )
    try:
        upstream = running.addresses[victim]
        dial[upstream] = f"127.0.0.1:{port}"
        proxy = await proxies.create(victim, f"127.0.0.1:{port}", upstream, True)
        async with started(running):
            await away_past_compaction(running, victim)
            seen = Streams(monkeypatch)
            limit = {"bytes": CUT_AFTER_BYTES}
            proxies.add_toxic(proxy, "limit_data", "cut", "upstream", 1.0, limit)
            await running.start(victim)
            await wait_until(lambda: bool(seen.finished), PATIENCE_S, "a snapshot arrives")
            proxies.remove_toxic(proxy, "cut")
            await running.caught_up()
    finally:
        proxies.close()
    for name, ranges in seen.ranges.items():
        for earlier, later in itertools.pairwise(ranges):
            assert later[0] == earlier[1], f"{name!r} came as {ranges}"
    for name, size in seen.finished.items():
        assert size > 2 * CUT_AFTER_BYTES
        assert seen.ranges[name][0][0] == 0 and seen.ranges[name][-1][1] == size
    assert any(place[0] > 0 for ranges in seen.ranges.values() for place in ranges)
