"""The basic path of each part: what still works with a mutant that is worth anything."""

from __future__ import annotations

import asyncio

from consensus.storage.wal import WriteAheadLog
from tests.consensus.native.member import SEGMENT_BYTES, Member, command, noop
from tests.consensus.raft.group import Group, entries_of
from tests.consensus.storage.images import MemoryFiles
from tests.replayed.machines import Stage, put_op, range_op
from tests.replayed.streams import Client, hub_of


def a_group_works(stage: Stage) -> None:
    """Three cores elect a leader, replicate, read, hand over, and take one back that was away."""
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x", "y")
    group.stabilize()
    group.beat("a")
    assert all(group.members[name].commands == ["x", "y"] for name in "abc")
    assert group["a"].read_index(1)
    group.stabilize()
    assert [read.request for read in group.members["a"].reads] == [1]
    group.cut = {"c"}
    group.propose("a", "z")
    group.beat("a")
    assert group.members["a"].commands == group.members["b"].commands == ["x", "y", "z"]
    group.cut = set()
    for _ in range(3):
        group.beat("a")
    assert group.members["c"].commands == ["x", "y", "z"]
    group["a"].transfer_leadership("b")
    group.stabilize()
    assert group["b"].is_leader


def a_disk_works(stage: Stage) -> None:
    """A member writes its log, stops, and comes back with all of it; a log gets long."""
    member = Member()
    member.append((0, 0), noop(1, 1), command(2, 1), command(3, 1), term=1, commit=3)
    again = member.again()
    again.append((3, 1), command(4, 1), term=1, commit=4)
    assert again.host.commands == ["2@1", "3@1", "4@1"]
    files = MemoryFiles()
    log = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES)
    log.open()
    entries = entries_of(*[1] * 100)
    for entry in entries:
        log.append([entry])
    log.close()
    assert WriteAheadLog(files, segment_bytes=SEGMENT_BYTES).open().entries == entries


def a_store_works(stage: Stage) -> None:
    """A store is written, read, compacted, restarted, defragmented, copied; a lease ends."""
    member = stage.store("one")
    assert member.put(b"a", b"1").header.revision == 2
    member.put(b"a", b"2")
    answer = member.txn(put_op(b"b", b"3"), range_op(b"b"))
    assert answer.responses[1].response_range.kvs[0].value == b"3"
    assert (member.get(b"a"), member.get(b"a", revision=2)) == (b"2", b"1")
    member.grant(7)
    member.put(b"c", b"4", lease=7)
    member.expire(7, decided_in_term=1)
    assert member.get(b"c") is None
    member.delete(b"b")
    member.compact(member.revision - 1)
    member.sweep()
    member.machine.commit()
    member.kill()
    member.restart()
    assert (member.get(b"a"), member.get(b"b")) == (b"2", None)
    for _ in member.machine.defragment_steps():
        pass
    copy = stage.store("copy")
    copy.restore(member.snapshot())
    assert copy.machine.state_hash() == member.machine.state_hash()


def a_watch_works(stage: Stage) -> None:
    """A watch from the past goes on with what happens, hears of progress, and can be of a range."""

    async def story() -> None:
        member = stage.store()
        client = Client(hub_of(member))
        for _ in range(5):
            member.put(b"a")
        await client.watch(b"a", start_revision=3)
        await client.watch(b"a", b"c")
        await client.take()
        assert client.revisions == [3, 4, 5, 6]
        member.put(b"b")
        member.put(b"a")
        await client.ask_progress()
        await client.take()
        assert sorted(client.revisions) == [3, 4, 5, 6, 7, 8, 8]
        assert client.taken[-1].header.revision == 8

    asyncio.run(story())
