"""The driver's start: what it makes of a log, a snapshot file and a machine that a crash left."""

from __future__ import annotations

import random

import pytest

from consensus.engines.native.restore import HELD_APPLIED
from consensus.errors import DataDamaged, StorageError
from consensus.raft.configuration import Configuration
from consensus.raft.messages import (
    AppendEntriesResponse,
    InstallSnapshot,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
)
from consensus.storage.snapshots import StoredMeta
from consensus.types import Position
from tests.consensus.native.member import ABC, ListHost, Member, command, noop
from tests.consensus.storage.images import MemoryFiles, crash_images


def test_a_commit_index_never_speaks_of_entries_that_a_crash_cut_off() -> None:
    """The hard state follows the entries: alone it would commit what an older leader left there."""
    member = Member()
    member.append((0, 0), noop(1, 1), *(command(index, 1) for index in range(2, 31)), term=1)
    before = len(member.log_files.operations)
    new = [noop(2, 2), *(command(index, 2) for index in range(3, 31))]
    member.append((1, 1), *new, term=2, commit=25)
    committed = [f"{index}@2" for index in range(3, 26)]
    assert member.host.commands == committed
    images = 0
    for done, image in crash_images(member.log_files.operations, random.Random(1), subsets=10):
        if done > before:
            found = member.again(image).host.commands
            assert found == committed[: len(found)], "entries of a deposed leader were applied"
            images += 1
    assert images > 100


def test_a_term_is_never_below_that_of_the_log() -> None:
    """A crash may leave new entries without the hard state behind them."""
    member = Member()
    member.append((0, 0), noop(1, 1), term=1)
    before = len(member.log_files.operations)
    member.append((1, 1), *(command(index, 5) for index in range(2, 20)), term=5)
    terms = set()
    for done, image in crash_images(member.log_files.operations, random.Random(1)):
        if done > before:
            core = member.again(image).driver.core
            assert core.term >= core.log.last_term
            # Of the vote that may have been lost it knows only that it gives no other.
            assert core.voted_for in (None, core.node_id)
            terms.add((core.term, core.log.last_index))
    assert (5, 19) in terms
    assert {term for term, _ in terms} == {1, 5}


def test_a_vote_is_on_disk_before_it_is_sent_and_after_every_crash_since() -> None:
    member = Member()
    member.driver.core.now_ticks = 100
    ask = RequestVote(sender="c", receiver="b", term=3, last_log_index=0, last_log_term=0)
    (answer,) = member.receive(ask)
    assert isinstance(answer, RequestVoteResponse)
    assert answer.granted
    again = member.again()
    assert (again.driver.core.term, again.driver.core.voted_for) == (3, "c")


def test_what_is_acknowledged_is_synced_when_it_is_said() -> None:
    member = Member()
    heard: list[int] = []

    def say(message: object) -> None:
        if isinstance(message, AppendEntriesResponse):
            last_write = max(
                number
                for number, operation in enumerate(member.log_files.operations)
                if operation.kind == "write" and operation.offset >= 4096
            )
            assert any(o.kind == "sync" for o in member.log_files.operations[last_write:])
            heard.append(message.match_index)

    member.driver._send = say
    member.append((0, 0), noop(1, 1), command(2, 1), term=1)
    assert heard == [2]


# -- snapshots, logs and machines that do not belong together --------------------------------------


def stored_at(index: int, term: int, command_index: int) -> StoredMeta:
    return StoredMeta(SnapshotMeta(index, term, ABC), command_index, 5_000)


def put_aside(member: Member, meta: StoredMeta, commands: list[str]) -> None:
    """A snapshot arrives and is whole on disk; the crash comes before anything is made of it."""
    writer = member.driver.snapshots.writer(meta)
    writer.write(str(commands).replace("'", '"').encode())
    writer.finish()


def test_a_received_snapshot_beyond_the_log_takes_its_place_at_the_next_start() -> None:
    member = Member()
    member.append((0, 0), noop(1, 1), command(2, 1), term=1, commit=2)
    put_aside(member, stored_at(50, 3, 40), ["from snapshot"])
    again = member.again()
    assert again.host.commands == ["from snapshot"]
    core = again.driver.core
    assert (core.log.snapshot.index, core.applied_index, core.commit_index) == (50, 50, 50)
    assert core.term == 3
    again.append((50, 3), command(51, 3, "next"), term=3, commit=51)
    assert again.host.commands == ["from snapshot", "next"]
    assert again.host.at.index == 41


def test_a_received_snapshot_wins_over_a_log_that_disagrees_with_it() -> None:
    """The log's tail there was never committed, and its numbers of commands may differ."""
    member = Member()
    entries = [noop(1, 1), *(command(index, 1) for index in range(2, 41))]
    member.append((0, 0), *entries, term=1, commit=2)
    put_aside(member, stored_at(20, 2, 15), ["from snapshot"])
    again = member.again()
    core = again.driver.core
    assert (core.log.snapshot.index, core.log.last_index, core.commit_index) == (20, 20, 20)
    assert again.host.commands == ["from snapshot"]


def test_a_snapshot_within_the_log_leaves_the_log_alone() -> None:
    member = Member()
    entries = [noop(1, 1), *(command(index, 1) for index in range(2, 41))]
    member.append((0, 0), *entries, term=1, commit=30)
    for _ in member.driver.take_snapshot():
        pass
    again = member.again()
    assert again.driver.core.log.last_index == 40
    assert again.host.commands == [f"{index}@1" for index in range(2, 31)]


def test_a_damaged_snapshot_does_not_take_the_logs_place() -> None:
    """Whatever it says of itself: first it is checked whole, then the log is dropped.

    The member goes on with its log: a snapshot that the log did not make way for was never
    acknowledged.
    """
    member = Member()
    member.append((0, 0), noop(1, 1), command(2, 1), term=1, commit=2)
    put_aside(member, stored_at(50, 3, 40), ["from snapshot"])
    (name,) = member.snapshot_files.names()
    image = member.snapshot_files.image()
    for position in range(0, len(image[name]), 3):
        damaged = bytearray(image[name])
        damaged[position] ^= 4
        logs = MemoryFiles(member.log_files.image())
        again = Member(log_files=logs, snapshot_files=MemoryFiles({name: bytes(damaged)}))
        assert again.host.commands == ["2@1"]
        assert not again.driver.damage
        assert logs.image() == member.log_files.image()
    assert member.again().host.commands == ["from snapshot"]


def test_a_log_that_begins_after_a_snapshot_that_is_gone_is_damage() -> None:
    member = Member(bootstrap=Configuration.of("b"))
    entries = [noop(1, 1), *(command(index, 1) for index in range(2, 41))]
    member.append((0, 0), *entries, term=1, commit=40)
    for _ in member.driver.take_snapshot():
        pass
    assert member.driver.core.log.snapshot.index > 0
    member.snapshot_files.contents.clear()
    with pytest.raises(DataDamaged, match="neither the machine nor a snapshot file reaches"):
        member.again()


def test_a_durable_machine_that_the_log_confirms_goes_on_where_it_stands() -> None:
    member = Member()
    entries = [noop(1, 1), *(command(index, 1) for index in range(2, 11))]
    member.append((0, 0), *entries, term=1, commit=10)
    host = ListHost((Position(4, 1, 9), ["kept"] * 4))
    again = member.again(host=host)
    again.append((10, 1), term=1, commit=10)
    assert host.discarded == []
    assert host.commands == ["kept"] * 4 + [f"{index}@1" for index in range(6, 11)]


@pytest.mark.parametrize(
    "position", [Position(4, 2, 9), Position(99, 1, 9), Position(4, 1, 9, group_id=3)]
)
def test_a_durable_machine_that_the_log_does_not_confirm_is_rebuilt(position: Position) -> None:
    """Another term, beyond the log, another group: the rule of ``Engine.start``, and no other."""
    member = Member()
    entries = [noop(1, 1), *(command(index, 1) for index in range(2, 11))]
    member.append((0, 0), *entries, term=1, commit=10)
    host = ListHost((position, ["foreign"]))
    again = member.again(host=host)
    again.append((10, 1), term=1, commit=10)
    assert len(host.discarded) == 1
    assert host.commands == [f"{index}@1" for index in range(2, 11)]


def test_a_snapshot_is_installed_while_running() -> None:
    member = Member()
    member.append((0, 0), noop(1, 1), command(2, 1), term=1, commit=2)
    meta = stored_at(50, 1, 40)
    put_aside(member, meta, ["from snapshot"])
    message = InstallSnapshot(sender="a", receiver="b", term=1, snapshot=meta.raft)
    member.install(message, meta)
    assert member.host.commands == ["from snapshot"]
    assert member.again().host.commands == ["from snapshot"]


def test_what_is_committed_while_a_machine_is_restored_waits_and_is_applied_in_order() -> None:
    """The log goes on meanwhile: it acknowledges, and reads wait for the machine."""
    member = Member()
    member.append((0, 0), noop(1, 1), command(2, 1), term=1, commit=2)
    meta = stored_at(50, 1, 40)
    put_aside(member, meta, ["from snapshot"])
    message = InstallSnapshot(sender="a", receiver="b", term=1, snapshot=meta.raft)
    member.driver.receive_snapshot(message, meta)
    member.driver.pump()
    assert member.driver.restoring
    assert member.host.commands == ["2@1"], "nothing was restored inside the turn of the message"
    reads: list[int | None] = []
    member.driver.read_index(reads.append)
    entries = [command(index, 1) for index in range(51, 951)]
    asked, answer = member.append((50, 1), *entries, term=1, commit=950)
    assert isinstance(asked, ReadIndex)
    assert isinstance(answer, AppendEntriesResponse) and answer.match_index == 950
    member.receive(
        ReadIndexResponse(sender="a", receiver="b", term=1, request=asked.request, index=60)
    )
    assert not member.driver.wants_compaction
    slices = 1
    while member.driver.restore_slice():
        assert not reads
        slices += 1
    assert slices > 900 // HELD_APPLIED
    assert member.host.commands == ["from snapshot", *(f"{i}@1" for i in range(51, 951))]
    assert reads == [940]
    member.append((950, 1), command(951, 1, "after"), term=1, commit=951)
    assert member.host.commands[-1] == "after"


def test_every_crash_while_a_snapshot_is_installed_leaves_the_old_log_or_the_new() -> None:
    member = Member()
    entries = [noop(1, 1), *(command(index, 1) for index in range(2, 11))]
    member.append((0, 0), *entries, term=4, commit=5)
    before = len(member.log_files.operations)
    meta = stored_at(50, 4, 40)
    put_aside(member, meta, ["from snapshot"])
    message = InstallSnapshot(sender="a", receiver="b", term=4, snapshot=meta.raft)
    member.install(message, meta)
    for done, image in crash_images(member.log_files.operations, random.Random(2)):
        if done > before:
            again = member.again(image)
            assert again.host.commands == ["from snapshot"]
            assert again.driver.core.term == 4, "the term was forgotten"
            assert again.driver.core.log.snapshot.index == 50


def test_a_configuration_is_found_in_the_snapshot_and_in_the_log() -> None:
    member = Member(bootstrap=Configuration.of("abc"))
    meta = StoredMeta(SnapshotMeta(50, 3, Configuration.of("abcd", "e")), 40, 5_000)
    put_aside(member, meta, [])
    assert member.again().driver.core.configuration == Configuration.of("abcd", "e")


def test_logs_may_be_refused_but_nothing_stays_open() -> None:
    member = Member()
    member.append((0, 0), noop(1, 1), command(2, 1), term=1, commit=2)
    member.driver.close()
    files = MemoryFiles(member.log_files.image())
    for position in (4_100, 1_540, 2_052):  # a record, and both notes of the term
        files.contents["00000000000000000001.wal"][position] ^= 1
    with pytest.raises(StorageError):
        Member(log_files=files)
    assert files.open_files == 0
