"""Linearizable reads: bugs of other Raft implementations, on real cores and a real driver."""

from __future__ import annotations

from consensus.raft.messages import (
    AppendEntries,
    HeartbeatResponse,
    ReadIndex,
    ReadIndexResponse,
)
from tests.consensus.native.member import Member, command, noop
from tests.consensus.raft.group import Group, between, of_kind
from tests.mutation import Mutant
from tests.replayed.basics import a_disk_works, a_group_works
from tests.replayed.bug import Table, issue
from tests.replayed.machines import Stage
from tests.replayed.replication import known

TABLE = Table(a_group_works)


@TABLE.replays(
    *issue("etcd-io/etcd", 7331),
    promise="a read shows every write that was acknowledged before it",
    mutant=known("confirms reads before the term's first commit"),
)
def a_fresh_leader_answers_reads_with_what_it_knew_as_a_follower(stage: Stage) -> None:
    """A leader does not know what is committed before an entry of its own term is. It answered
    reads all the same, without the newest writes of the leader before it.
    """
    group = Group("abc")
    group.elect("a")
    written = group.propose("a", "x")
    group.deliver(between("a"))
    group.deliver(between(None, "a"))
    assert group.members["a"].commands == ["x"], "it is acknowledged"
    group.wire.clear()
    group.cut = {"a"}
    group.win("b")
    group["b"].read_index(1)
    group.run("b")
    group.drop(of_kind(AppendEntries))
    group.deliver(between("b", "c"))
    group.deliver(between("c", "b"))
    for read in group.members["b"].reads:
        index = read.index or 0
        assert index >= written, f"x was acknowledged at {written}, and a read is served at {index}"


@TABLE.replays(
    *issue("etcd-io/etcd", 20418),
    promise="a read shows every write that was acknowledged before it",
    mutant=known("an answer to an old round confirms a read"),
)
def an_old_confirmation_serves_a_read_after_a_pause(stage: Stage) -> None:
    """A leader stood still, was replaced, and went on. Answers to a question from before the pause
    were taken for answers to the one that it asked now, and confirmed a read of the past.
    """
    group = Group("abc")
    group.elect("a")
    group.tick("a")
    group.deliver(between("a"))
    answers = [m for m in group.wire if isinstance(m, HeartbeatResponse)]
    assert len(answers) == 2
    group.wire.clear()
    group.cut = {"a"}
    group.elect("b")
    written = group.propose("b", "x")
    group.stabilize("b", "c")
    assert group.members["b"].commands == ["x"], "it is acknowledged"
    assert group["a"].is_leader, "as far as it knows"
    group["a"].read_index(1)
    group.run("a")
    group.wire.clear()
    for answer in answers:
        group.step(answer)
    for read in group.members["a"].reads:
        index = read.index if read.index is not None else written
        assert index >= written, f"x was acknowledged at {written}, and a read is served at {index}"


@TABLE.replays(
    *issue("RedisLabs/redisraft", 18),
    promise="a read shows every write that was acknowledged before it",
    mutant=Mutant(
        "answers a confirmed read before the machine has caught up",
        "consensus.engines.native.driver:Driver._resolve_reads",
        "if index <= self.core.applied_index:",
        "if index <= self.core.log.last_index:",
    ),
    basic=a_disk_works,
)
def a_restarted_member_answers_reads_with_an_empty_state(stage: Stage) -> None:
    """A process that came back had its log but had not applied it yet, and answered reads: for
    some seconds everything seemed to be gone.
    """
    member = Member()
    member.append((0, 0), noop(1, 1), command(2, 1), command(3, 1), term=1, commit=1)
    again = member.again()
    again.append((3, 1), term=1)
    seen: list[list[str]] = []
    again.driver.read_index(lambda index: seen.append(list(again.host.commands)))
    again.driver.pump()
    (asked,) = [m for m in again.sent if isinstance(m, ReadIndex)]
    again.receive(
        ReadIndexResponse(sender="a", receiver="b", term=1, request=asked.request, index=3)
    )
    again.append((3, 1), term=1, commit=3)
    assert len(seen) == 1, f"a read was answered {len(seen)} times"
    assert seen == [["2@1", "3@1"]], f"2@1 and 3@1 were acknowledged, and a read shows {seen[0]}"
