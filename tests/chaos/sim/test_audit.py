"""The checks that read disks and compare logs see what is missing there."""

from __future__ import annotations

import pytest

from chaos.sim import audit
from chaos.sim.disk import CrashMode
from chaos.sim.invariants import Violation, Vote
from consensus.raft.log import RaftLog
from consensus.raft.messages import SnapshotMeta
from consensus.raft.ready import HardState
from consensus.storage.records import Base
from consensus.storage.wal import WriteAheadLog
from tests.chaos.sim.cores import THREE, core_with, disk_with, files_of, log_entries


def test_the_reader_reads_what_the_log_wrote() -> None:
    disk = disk_with((1, 1, 2), HardState(2, "n3", 1))
    found = audit.read_log(files_of(disk))
    assert found.vote == Vote(2, "n3") == audit.durable_vote(files_of(disk))
    assert found.entries == {1: (1, b"c1"), 2: (1, b"c2"), 3: (2, b"c3")}


def test_the_reader_follows_overwritten_entries_and_bases() -> None:
    disk = disk_with((1, 1, 1, 1), HardState(1, None, 0))
    wal = WriteAheadLog(files_of(disk))
    wal.open()
    wal.append(log_entries((1, 1, 2))[2:])
    wal.append([Base(1, 1, 1, THREE.encode()), HardState(2, None, 0)])
    found = audit.read_log(files_of(disk))
    assert found.base_index == 1
    assert {at: term for at, (term, _) in found.entries.items()} == {2: 1, 3: 2}


def test_an_acknowledged_entry_that_is_not_synced_is_seen() -> None:
    disk = disk_with((1, 1), HardState(1, None, 0))
    core = core_with("n1", (1, 1, 1))
    audit.check_acknowledged("n1", core, files_of(disk), 2)
    with pytest.raises(Violation, match="entry 3, which is not on its disk"):
        audit.check_acknowledged("n1", core, files_of(disk), 3)


def test_a_write_in_the_page_cache_is_not_on_disk() -> None:
    disk = disk_with((1,), HardState(1, None, 0))
    segment = files_of(disk).open(files_of(disk).names()[0])
    segment.write(4096 + 500, audit.entry_record(log_entries((1, 1))[1]))
    with pytest.raises(Violation):
        audit.check_acknowledged("n1", core_with("n1", (1, 1)), files_of(disk), 2)
    segment.sync()
    audit.check_acknowledged("n1", core_with("n1", (1, 1)), files_of(disk), 2)


def test_a_vote_that_is_not_on_disk_is_seen() -> None:
    files = files_of(disk_with((), HardState(4, "n2", 0)))
    audit.check_vote_durable("n1", files, 4, "n2")
    for term, candidate in ((4, "n3"), (5, "n2")):
        with pytest.raises(Violation, match="its disk says term 4"):
            audit.check_vote_durable("n1", files, term, candidate)


def test_a_commit_without_a_majority_of_disks_is_seen() -> None:
    full = files_of(disk_with((1, 1), HardState(1, None, 0)))
    short = files_of(disk_with((1,), HardState(1, None, 0)))
    leader = core_with("n1", (1, 1), commit=2)
    audit.check_committed("n1", leader, {"n1": full, "n2": full, "n3": short})
    with pytest.raises(Violation, match="no majority"):
        audit.check_committed("n1", leader, {"n1": full, "n2": short, "n3": short})


def test_both_majorities_of_a_joint_configuration_are_needed() -> None:
    full = files_of(disk_with((1, 1), HardState(1, None, 0)))
    short = files_of(disk_with((1,), HardState(1, None, 0)))
    leader = core_with("n1", (1, 1), commit=2)
    leader.configurations.append((1, THREE.change(("n1", "n4", "n5"))))
    disks = {"n1": full, "n2": full, "n3": short, "n4": short, "n5": short}
    with pytest.raises(Violation, match="no majority of n1, n4, n5"):
        audit.check_committed("n1", leader, disks)


def test_logs_that_agree_late_and_differ_early_break_log_matching() -> None:
    one = RaftLog(SnapshotMeta(0, 0, THREE), log_entries((1, 1, 2)))
    other = RaftLog(SnapshotMeta(0, 0, THREE), log_entries((1, 1, 2)))
    audit.check_log_matching([("n1", one), ("n2", other)])
    differing = log_entries((1, 1), text="x") + log_entries((1, 1, 2))[2:]
    wrong = RaftLog(SnapshotMeta(0, 0, THREE), differing)
    with pytest.raises(Violation, match="log matching"):
        audit.check_log_matching([("n1", one), ("n2", wrong)])


def test_logs_may_differ_after_the_last_index_they_agree_on() -> None:
    one = RaftLog(SnapshotMeta(0, 0, THREE), log_entries((1, 1, 2, 2)))
    other = RaftLog(SnapshotMeta(0, 0, THREE), log_entries((1, 1, 3)))
    audit.check_log_matching([("n1", one), ("n2", other)])


def test_a_core_that_believes_more_than_its_disk_holds_is_seen() -> None:
    disk = disk_with((1, 1), HardState(1, None, 0))
    audit.check_disk("n1", core_with("n1", (1, 1)), files_of(disk))
    with pytest.raises(Violation, match="believes that entry 3"):
        audit.check_disk("n1", core_with("n1", (1, 1, 1)), files_of(disk))
    with pytest.raises(Violation, match="is in term 2"):
        audit.check_disk("n1", core_with("n1", (1, 1), term=2), files_of(disk))


def test_what_a_crash_lost_is_missed() -> None:
    disk = disk_with((1, 1), HardState(1, None, 0))
    disk.crash(CrashMode.LOSE_ALL)
    audit.check_disk("n1", core_with("n1", (1, 1)), files_of(disk))
