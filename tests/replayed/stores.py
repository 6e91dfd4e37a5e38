"""The multi-version store: bugs of etcd, on a real machine with its database."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.types import Entry
from kvstore.errors import Status
from kvstore.machine import COMMIT_RECORDS
from kvstore.mvcc.store import WatchSink
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command
from kvstore.pb.mvccpb_pb2 import Event
from tests.mutation import Mutant
from tests.replayed.basics import a_store_works
from tests.replayed.bug import Table, issue, must
from tests.replayed.machines import Stage, put_op, range_op

TABLE = Table(a_store_works)


class DiesAt(WatchSink):
    """Ends the process, as far as the machine can tell, when a revision is applied."""

    def __init__(self, revision: int) -> None:
        self._revision = revision

    def notify(self, revision: int, events: Sequence[Event]) -> None:
        """Die, or not yet."""
        if revision == self._revision:
            raise RuntimeError("killed")

    def restored(self) -> None:
        """Nothing."""

    def compacted(self, revision: int) -> None:
        """Nothing."""


@TABLE.replays(
    *issue("etcd-io/etcd", 13766, 13514),
    promise="after a restart the state is what the log says",
    mutant=Mutant(
        "a commit in the middle of a batch says that all of it is applied",
        "kvstore.machine:KVStateMachine.apply_batch",
        "self._moved(entry)",
        "self._moved(entries[-1])",
    ),
)
def the_position_on_disk_is_ahead_of_the_data(stage: Stage) -> None:
    """How far the log was applied was saved with data that was not that far yet. After a crash in
    between, entries were taken for applied that never were, and the member differed for ever.
    """
    member = stage.store()
    entries = [
        Entry(1, index, 0, Command(put=pb.PutRequest(key=b"k%d" % index)).SerializeToString())
        for index in range(1, COMMIT_RECORDS + 51)
    ]
    member.log.extend(entries)
    member.machine.watch_sink = DiesAt(revision=COMMIT_RECORDS + 32)
    try:
        member.machine.apply_batch(entries)
    except RuntimeError:
        member.kill()
    member.restart()
    everything = pb.RangeRequest(key=b"\0", range_end=b"\0", count_only=True)
    found = member.machine.query(everything).count
    assert found == len(entries), (
        f"{len(entries)} keys were written, and after a crash in between there are {found}"
    )


@TABLE.replays(
    *issue("etcd-io/etcd", 17780),
    promise="the revision never goes back",
    mutant=Mutant(
        "a start in the middle of a compaction goes on from its revision",
        "kvstore.mvcc.store:Store._load",
        "self.state: StoreState = load_state(self.backend)",
        "self.state: StoreState = load_state(self.backend)\n"
        "    if self.state.sweeping:\n"
        "        self.state.revision = self.state.compact_revision",
    ),
)
def a_crash_in_a_compaction_takes_the_revision_back(stage: Stage) -> None:
    """A member was killed while it compacted. It came back with a lower revision than it had
    answered with before, and gave the same revisions to other writes.
    """
    member = stage.store()
    for number in range(20):
        member.put(b"a", b"%d" % number)
    member.compact(11)
    member.machine.commit()
    before = member.revision
    member.kill()
    member.restart()
    assert member.revision == before, (
        f"the revision was {before}, and is {member.revision} after a crash"
    )
    member.sweep()
    assert member.put(b"a").header.revision == before + 1


@TABLE.replays(
    *issue("etcd-io/etcd", 14685),
    promise="the revision never goes back",
    mutant=Mutant(
        "defragmenting does not note how far its copy has come",
        "kvstore.defragment:_catch_up",
        "copy.set_position(Position(entry.index, entry.term, entry.clock_ms, group_id))",
        "pass",
    ),
)
def defragmenting_takes_writes_back_that_come_meanwhile(stage: Stage) -> None:
    """Defragmenting left a file whose index was older than its data, or whose data was older than
    what had been answered; a crash right after it showed that.
    """
    member = stage.store("one")
    twin = stage.store("twin")
    for number in range(50):
        for store in (member, twin):
            store.put(b"k%d" % number)
    steps = member.machine.defragment_steps()
    next(steps)
    for store in (member, twin):
        store.put(b"meanwhile")
    for _ in steps:
        pass
    assert member.revision == twin.revision, (
        f"the revision was {twin.revision}, and is {member.revision} after defragmenting"
    )
    member.kill()
    with must("a member comes back after a crash right after defragmenting"):
        member.restart()
    assert member.machine.state_hash() == twin.machine.state_hash(), "the members differ"


@TABLE.replays(
    *issue("etcd-io/etcd", 18089, 19179),
    promise="a watch from the compacted revision on misses nothing",
    mutant=Mutant(
        "compacting at a deletion removes it",
        "kvstore.mvcc.compaction:_sweep_some",
        "main < state.compact_revision",
        "main <= state.compact_revision",
    ),
)
def compacting_at_a_deletion_loses_its_event(stage: Stage) -> None:
    """Compacting at the very revision of a deletion removed the deletion. A watch from that
    revision on, which is allowed, went on without it: its client kept the key for ever.
    """
    member = stage.store()
    member.put(b"a")
    member.put(b"b")
    for key in (b"a", b"b"):
        member.delete(key)
        revision = member.revision
        member.put(b"a")
        member.compact(revision)
        member.sweep()
        events, _ = member.machine.store.history(revision, key, b"", 10, revision)
        assert events, f"the deletion of {key.decode()} at {revision} is not in its history"


@TABLE.replays(
    *issue("etcd-io/etcd", 18667),
    promise="the same log gives the same state on every member",
    mutant=Mutant(
        "what is compacted can be read until it is removed",
        "kvstore.mvcc.ranges:check_revision",
        "if revision < store.compact_revision:",
        "if revision < store.compact_revision and not store.state.sweeping:",
    ),
)
def members_disagree_about_a_transaction_that_reads_the_past(stage: Stage) -> None:
    """A transaction wrote, and read at a revision that was compacted. Some members refused it,
    others did not look at what it read and applied it, and they differed from then on.
    """
    swept, pending = stage.store("swept"), stage.store("pending")
    for member in (swept, pending):
        for number in range(5):
            member.put(b"a", b"%d" % number)
        member.compact(5)
    swept.sweep()
    answers = [member.txn(put_op(b"b"), range_op(b"a", revision=3)) for member in (swept, pending)]
    assert isinstance(answers[0], Status)
    assert answers[0] == answers[1], (
        "one member refuses a transaction, and one that has not removed the past yet applies it"
    )
    assert swept.machine.state_hash() == pending.machine.state_hash()
