"""A follower behind the log is sent a snapshot: the paper's section 7."""

from __future__ import annotations

from consensus.raft.configuration import Configuration
from consensus.raft.messages import (
    AppendEntries,
    InstallSnapshot,
    SnapshotMeta,
)
from consensus.raft.progress import ProgressState
from consensus.raft.ready import HardState
from tests.consensus.raft.group import Group, entries_of, follower, of_kind, terms_of

ABC = Configuration.of("abc")


def compacted(entries: int = 20) -> Group:
    """A leader whose log begins after what "c", which was away, lacks."""
    group = Group("abc")
    for name in "aba":
        group.elect(name)
    group.cut = {"c"}
    for number in range(entries):
        group.propose("a", str(number))
        group.stabilize("a", "b")
    group["a"].compact(group["a"].applied_index - 3)
    group.members["a"].disk.snapshot = group["a"].log.snapshot
    group.wire.clear()
    group.cut = set()
    return group


def test_a_follower_behind_the_log_gets_a_snapshot() -> None:
    """Paper, section 7."""
    group = compacted()
    for _ in range(3):
        group.beat("a")
    assert group.members["c"].commands == [str(number) for number in range(20)]
    assert group["c"].log.snapshot == group["a"].log.snapshot
    assert group["a"].progress["c"].state is ProgressState.REPLICATE


def test_nothing_is_sent_while_a_snapshot_is_under_way() -> None:
    group = compacted()
    while not [m for m in group.wire if isinstance(m, InstallSnapshot)]:
        group.tick("a")
        group.deliver(lambda m: not isinstance(m, InstallSnapshot))
    assert group["a"].progress["c"].state is ProgressState.SNAPSHOT
    group.drop(lambda m: not isinstance(m, InstallSnapshot))
    group.propose("a", "later")
    assert not [m for m in group.wire if isinstance(m, AppendEntries) and m.receiver == "c"]
    group.stabilize()
    assert group.members["c"].commands[-1] == "later"


def test_a_snapshot_that_was_lost_is_sent_again() -> None:
    group = compacted()
    lost = 0
    for _ in range(10):
        group.tick("a")
        lost += group.drop(of_kind(InstallSnapshot))
        group.deliver()
    assert lost > 1
    for _ in range(3):
        group.beat("a")
    assert group.members["c"].commands == group.members["a"].commands


def test_a_snapshot_that_the_log_covers_drops_nothing() -> None:
    """Paper, figure 13, rule 6: entries after it are kept."""
    group = compacted()
    for _ in range(3):
        group.beat("a")
    core = group["c"]
    last, snapshot = core.log.last_index, core.log.snapshot
    group.step(InstallSnapshot(sender="a", receiver="c", term=group["a"].term, snapshot=snapshot))
    assert core.log.last_index == last
    assert core.applied_index == last


def test_entries_after_a_snapshots_last_one_are_kept() -> None:
    """Paper, figure 13, rule 6, where the follower did not know yet that they are committed."""
    group = follower(1, 1, 2, 3)
    snapshot = SnapshotMeta(3, 2, ABC)
    group.step(InstallSnapshot(sender="a", receiver="b", term=3, snapshot=snapshot))
    assert terms_of(group["b"]) == [1, 1, 2, 3]
    assert group["b"].commit_index == 3
    assert group.members["b"].commands == ["1@1", "2@1", "3@2"]


def test_a_snapshot_replaces_a_log_that_conflicts_with_it() -> None:
    """Paper, figure 13, rule 7: what an older leader left is dropped, however long it is."""
    group = compacted()
    group.add("c", ABC, entries_of(*[1] * 30), HardState(1))
    assert group["c"].log.last_index > group["a"].log.last_index
    for _ in range(4):
        group.beat("a")
    assert group["c"].log.snapshot == group["a"].log.snapshot
    assert terms_of(group["c"]) == terms_of(group["a"])
    assert group.members["c"].commands == group.members["a"].commands


def test_a_snapshot_is_on_disk_before_it_is_acknowledged() -> None:
    """Paper, section 7, with figure 2's rule for answers."""
    group = compacted()
    while not [m for m in group.wire if isinstance(m, InstallSnapshot)]:
        group.tick("a")
        group.deliver(lambda m: not isinstance(m, InstallSnapshot))
    group.held = {"c"}
    group.stabilize()
    covered = group["a"].log.snapshot.index
    assert group["c"].log.snapshot.index == covered
    assert group["a"].progress["c"].match_index < covered
    group.persist("c")
    group.stabilize()
    assert group["a"].progress["c"].match_index >= covered
