"""A member with damage on its disk: how it comes back, what it must not do, when it is well."""

from __future__ import annotations

import random

import pytest

from consensus.errors import DataDamaged
from consensus.raft.configuration import Configuration
from consensus.raft.messages import (
    AppendEntriesResponse,
    Heartbeat,
    InstallSnapshot,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
)
from consensus.storage.segments import BLOCK_BYTES
from consensus.storage.snapshots import StoredMeta
from tests.consensus.native.member import ABC, SEGMENT_BYTES, ListHost, Member, command, noop
from tests.consensus.storage.images import MemoryFiles

TERM = 3


def acknowledged(bootstrap: Configuration = ABC, entries: int = 40) -> Member:
    """A member that acknowledged some entries of term 3, all but the last known as committed."""
    member = Member(bootstrap=bootstrap)
    commands = [command(index, TERM) for index in range(2, entries + 1)]
    member.append((0, 0), noop(1, TERM), *commands, term=TERM, commit=entries - 1)
    member.append((entries, TERM), command(entries + 1, TERM), term=TERM, commit=entries)
    return member


def damaged(member: Member, offset: int = 5_000) -> dict[str, bytes]:
    """The member's log with one bit of its newest segment flipped."""
    image = member.log_files.image()
    name = max(image)
    data = bytearray(image[name])
    data[offset] ^= 16
    return {**image, name: bytes(data)}


def asks_for_votes(member: Member) -> list[type]:
    """Let no leader be heard for long, and return the kinds of what the member says."""
    member.sent.clear()
    for _ in range(50):
        member.driver.tick()
        member.driver.pump()
    return [type(message) for message in member.sent]


def vote_of(member: Member, term: int, index: int) -> bool:
    """Ask for a vote on behalf of "c", whose log ends at ``index`` in the term before."""
    answers = member.receive(
        RequestVote(
            sender="c",
            receiver="b",
            term=term,
            last_log_index=index,
            last_log_term=term - 1,
            transfer=True,
        )
    )
    return any(isinstance(answer, RequestVoteResponse) and answer.granted for answer in answers)


def pre_vote_of(member: Member, term: int) -> bool:
    answers = member.receive(
        PreVote(sender="c", receiver="b", term=term, last_log_index=99, last_log_term=term - 1)
    )
    return any(isinstance(answer, PreVoteResponse) and answer.granted for answer in answers)


def test_a_damaged_member_keeps_what_comes_before_the_damage() -> None:
    member = acknowledged()
    again = member.again(damaged(member))
    log = again.driver.core.log
    assert "is damaged at offset" in again.driver.damage
    assert again.driver.core.repairing
    assert 0 < log.last_index < 41
    before = member.driver.core.log
    assert all(log.entry(i) == before.entry(i) for i in range(1, log.last_index + 1))


def test_a_damaged_member_comes_back_in_a_term_of_which_it_promised_nothing() -> None:
    """What it had acknowledged in the old term would still count for a leader of that term."""
    member = acknowledged()
    again = member.again(damaged(member))
    core = again.driver.core
    assert (core.term, core.voted_for, core.lost_term) == (TERM + 1, None, TERM)
    (answer,) = again.append((41, TERM), command(42, TERM), term=TERM)
    assert isinstance(answer, AppendEntriesResponse)
    assert not answer.success and answer.term == TERM + 1, "its old leader must step down"


def test_a_damaged_member_neither_votes_nor_campaigns_until_it_is_repaired() -> None:
    member = acknowledged()
    again = member.again(damaged(member))
    core = again.driver.core
    assert not asks_for_votes(again)
    assert not pre_vote_of(again, 6)
    assert not vote_of(again, 6, index=99)
    # A leader that was elected without it sends what it lacks; nothing of its own term yet.
    (answer,) = again.append(
        (0, 0), noop(1, TERM), *(command(i, TERM) for i in range(2, 43)), term=7, commit=42
    )
    assert isinstance(answer, AppendEntriesResponse) and answer.success
    assert core.applied_index == 42
    again.receive(Heartbeat(sender="a", receiver="b", term=7, leader_commit=42, round=1))
    assert core.repairing, "the leader may not know yet what is committed"
    assert not vote_of(again, 8, index=99)
    # Its own first entry comes after everything that any leader before it had committed.
    again.append((42, TERM), noop(43, 9), term=9, commit=42)
    assert core.repairing, "it is not committed yet"
    again.receive(Heartbeat(sender="a", receiver="b", term=9, leader_commit=43, round=1))
    again.receive(Heartbeat(sender="a", receiver="b", term=9, leader_commit=43, round=2))
    assert not core.repairing
    assert vote_of(again, 10, index=99)
    once_more = again.again()
    assert not once_more.driver.core.repairing and not once_more.driver.damage
    assert PreVote in asks_for_votes(once_more)


def test_a_damaged_member_stays_so_across_restarts() -> None:
    member = acknowledged()
    again = member.again(damaged(member))
    for _ in range(2):
        again = again.again()
        assert not again.driver.damage, "it is not damaged again"
        assert again.driver.core.repairing
        assert not vote_of(again, again.driver.core.term + 1, index=99)


def test_a_snapshot_of_a_leader_elected_without_it_repairs_a_member() -> None:
    member = acknowledged()
    again = member.again(damaged(member))
    meta = StoredMeta(SnapshotMeta(60, 7, ABC), 50, 9_000)
    writer = again.driver.snapshots.writer(meta)
    writer.write(b'["from the leader"]')
    writer.finish()
    again.install(InstallSnapshot(sender="a", receiver="b", term=7, snapshot=meta.raft), meta)
    assert again.host.commands == ["from the leader"]
    assert not again.driver.core.repairing
    assert not again.again().driver.core.repairing


def test_the_damaged_only_member_stops_and_names_the_place() -> None:
    member = acknowledged(bootstrap=Configuration.of("b"))
    image = damaged(member)
    logs = MemoryFiles(image)
    with pytest.raises(DataDamaged, match=r"segment 0+1\.wal is damaged at offset \d+"):
        Member(log_files=logs, bootstrap=Configuration.of("b"))
    assert logs.image() == image, "nothing was cut"


def test_a_member_that_cannot_tell_its_term_is_not_repaired() -> None:
    """It might vote a second time in a term."""
    member = acknowledged()
    image = damaged(member)
    name = max(image)
    garbage = random.Random(1).randbytes(BLOCK_BYTES)
    with pytest.raises(DataDamaged):
        member.again({**image, name: garbage + image[name][BLOCK_BYTES:]})


def test_no_damaged_page_goes_unnoticed() -> None:
    """A whole page that reads as something else, anywhere in what was settled."""
    member = acknowledged(entries=400)
    image = member.log_files.image()
    assert len(image) > 1
    core = member.driver.core
    noticed = 0
    for name in sorted(image):
        for start in range(0, len(image[name]), BLOCK_BYTES):
            data = bytearray(image[name])
            if not any(data[start : start + BLOCK_BYTES]) or len(data) > SEGMENT_BYTES:
                continue
            data[start : start + BLOCK_BYTES] = random.Random(start).randbytes(BLOCK_BYTES)
            try:
                again = member.again({**image, name: bytes(data)})
            except DataDamaged:
                noticed += 1
                continue
            if again.driver.damage:
                assert again.driver.core.term > core.term
                noticed += 1
                continue
            assert again.driver.core.log.last_index >= core.log.last_index - 1
            assert again.driver.core.term >= core.term
    assert noticed > 3


def test_a_log_that_nothing_reaches_any_more_is_given_up_for_the_others() -> None:
    """The snapshot that a machine in memory was to start from is damaged."""
    member = acknowledged()
    for _ in member.driver.take_snapshot():
        pass
    (name,) = member.snapshot_files.names()
    member.snapshot_files.contents[name][-1] ^= 1
    again = member.again()
    core = again.driver.core
    assert f"snapshot {name}" in again.driver.damage
    assert core.repairing and core.term == TERM + 1
    assert core.log.last_index == core.applied_index == 0
    assert again.snapshot_files.names() == []


def test_a_machine_that_is_not_to_be_trusted_is_taken_away_and_rebuilt() -> None:
    member = acknowledged()
    host = ListHost()
    image = member.log_files.image()
    again = Member(log_files=MemoryFiles(image), host=host, distrust="the store is damaged")
    core = again.driver.core
    assert host.discarded == ["the store is damaged"]
    assert again.driver.damage == "the store is damaged"
    assert core.repairing and core.log.last_index == 0 and core.term == TERM + 1
    entries = [noop(1, TERM), *(command(i, TERM) for i in range(2, 42)), noop(42, 5)]
    again.append((0, 0), *entries, term=5, commit=42)
    again.receive(Heartbeat(sender="a", receiver="b", term=5, leader_commit=42, round=1))
    assert host.commands == [f"{i}@{TERM}" for i in range(2, 42)]
    assert not core.repairing


def records(files: MemoryFiles) -> dict[str, bytes]:
    """What the segments hold behind their first block, which notes how far they are synced."""
    return {name: data[BLOCK_BYTES:] for name, data in files.image().items()}


def test_the_only_member_keeps_a_machine_that_nobody_can_rebuild() -> None:
    member = acknowledged(bootstrap=Configuration.of("b"))
    host = ListHost()
    logs = MemoryFiles(member.log_files.image())
    with pytest.raises(DataDamaged, match="the store is damaged"):
        Member(
            log_files=logs,
            host=host,
            bootstrap=Configuration.of("b"),
            distrust="the store is damaged",
        )
    assert not host.discarded
    assert records(logs) == records(member.log_files)
