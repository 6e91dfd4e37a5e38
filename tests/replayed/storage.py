"""Logs, snapshots and the driver: bugs of other implementations, on real files and drivers."""

from __future__ import annotations

import json
import random

from chaos.sim.disk import CrashMode, SimDisk
from consensus.engines.native.proposals import FORWARD_TIMEOUTS_MAX
from consensus.raft.messages import (
    AppendEntriesResponse,
    InstallSnapshot,
    Propose,
    ProposeRejected,
    SnapshotMeta,
)
from consensus.storage.snapshots import StoredMeta
from consensus.storage.wal import WriteAheadLog
from tests.consensus.native.member import (
    ABC,
    SEGMENT_BYTES,
    ListHost,
    Member,
    command,
    noop,
    proposal,
)
from tests.consensus.raft.group import entries_of
from tests.mutation import Mutant
from tests.replayed.basics import a_disk_works
from tests.replayed.bug import Table, issue, must
from tests.replayed.machines import Stage
from tests.replayed.replication import known

TABLE = Table(a_disk_works)


def snapshot_at(member: Member, index: int, commands: list[str]) -> StoredMeta:
    """Have a snapshot arrive on a member's disk."""
    meta = StoredMeta(SnapshotMeta(index, 1, ABC), index, 5_000)
    writer = member.driver.snapshots.writer(meta)
    writer.write(json.dumps(commands).encode())
    writer.finish()
    return meta


def announce(meta: StoredMeta) -> InstallSnapshot:
    """The leader's word that a snapshot is there."""
    return InstallSnapshot(sender="a", receiver="b", term=1, snapshot=meta.raft)


@TABLE.replays(
    *issue("etcd-io/etcd", 14143, 14140),
    promise="what was acknowledged survives a loss of power",
    mutant=known("the log is not synced"),
)
def a_majority_loses_power_and_what_it_acknowledged(stage: Stage) -> None:
    """Members answered before their log was on the disk. When a majority of them lost its power
    at once, writes that clients had been told of were gone, and two histories went on.
    """
    for name in "bc":
        disk = SimDisk(random.Random(0))
        logs, snapshots = disk.directory(), disk.directory()
        member = Member(name, log_files=logs, snapshot_files=snapshots)
        said = member.append((0, 0), noop(1, 1), command(2, 1), term=1)
        (answer,) = [m for m in said if isinstance(m, AppendEntriesResponse)]
        disk.crash(CrashMode.LOSE_ALL)
        again = Member(name, log_files=logs, snapshot_files=snapshots, incarnation=2)
        last = again.driver.core.log.last_index
        assert last >= answer.match_index, (
            f"{name} acknowledged entry {answer.match_index}, and after a loss of power its log "
            f"ends at {last}"
        )


@TABLE.replays(
    *issue("etcd-io/etcd", 10951),
    promise="what was acknowledged survives a loss of power",
    mutant=Mutant(
        "the name of a new segment is not synced",
        "consensus.storage.wal:WriteAheadLog._add_segment",
        "self._files.sync_names()",
        "pass",
    ),
)
def the_newest_file_of_the_log_is_gone_after_a_reboot(stage: Stage) -> None:
    """A machine was restarted, and the newest part of a member's log was no longer there: its
    bytes had been written, and that there is such a file had not.
    """
    disk = SimDisk(random.Random(0))
    files = disk.directory()
    log = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES)
    log.open()
    entries = entries_of(*[1] * 30)
    for entry in entries:
        log.append([entry._replace(data=bytes(1_000))])
    assert len(files.names()) > 1
    disk.crash(CrashMode.LOSE_ALL)
    with must("a log is read after a loss of power"):
        found = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES).open()
    assert found.last_index == 30, f"30 entries were synced, and the log ends at {found.last_index}"


@TABLE.replays(
    *issue("RedisLabs/redisraft", 43),
    promise="a member comes back after every crash",
    mutant=known("segments are released that are needed yet"),
)
def the_log_begins_after_a_gap_behind_the_snapshot(stage: Stage) -> None:
    """More of the log was dropped than the snapshot covers. At its next start the member found a
    gap between the two and panicked.
    """
    member = Member(catch_up_entries=0)
    entries = [command(index, 1, f"{index}".ljust(2_000)) for index in range(2, 61)]
    member.append((0, 0), noop(1, 1), *entries[:20], term=1)
    for number, entry in enumerate(entries[20:], 21):
        member.append((number, 1), entry, term=1, commit=40)
    for _ in member.driver.take_snapshot():
        pass
    with must("a member starts after its log was shortened"):
        again = member.again()
    assert not again.driver.damage, f"its disk is well, and it says: {again.driver.damage}"
    last = again.driver.core.log.last_index
    assert last == 60, f"it acknowledged 60 entries, and its log ends at {last}"


@TABLE.replays(
    *issue("bakwc/PySyncObj", 189),
    promise="nothing that arrives stops a member",
    mutant=Mutant(
        "a late refusal breaks the driver",
        "consensus.engines.native.proposals:Proposals._end_forward",
        "self._forwarded.pop(request, None)",
        "self._forwarded.pop(request)",
    ),
)
def a_late_answer_about_a_command_stops_the_member(stage: Stage) -> None:
    """The answer to a command that had been sent to the leader came when nobody waited for it any
    more. The exception ended the thread that drives everything; the process lived on, dead.
    """
    member = Member()
    member.append((0, 0), noop(1, 1), term=1, commit=1)
    member.sent.clear()
    member.driver.propose([proposal(1)])
    member.driver.pump()
    (asked,) = [m for m in member.sent if isinstance(m, Propose)]
    ticks = FORWARD_TIMEOUTS_MAX * member.driver.core.config.election_timeout_ticks
    for index in range(ticks + 1):
        member.driver.tick()
        if not index % 5:
            member.append((1, 1), term=1, commit=1)
    assert 1 in member.host.outcomes, "it was given up as unknown"
    with must("an answer that comes late is taken or ignored"):
        member.receive(ProposeRejected(sender="a", receiver="b", term=1, request=asked.request))
    member.append((1, 1), command(2, 1), term=1, commit=2)
    assert member.host.commands == ["2@1"]


@TABLE.replays(
    *issue("etcd-io/etcd", 18055),
    promise="a member that lags catches up, whatever comes how fast",
    mutant=Mutant(
        "a snapshot that begins to arrive removes the one before it",
        "consensus.storage.snapshots:SnapshotStore.writer",
        "return SnapshotWriter(",
        "self.remove_before(meta.raft.index)\n    return SnapshotWriter(",
    ),
)
def a_second_snapshot_takes_the_first_ones_file_away(stage: Stage) -> None:
    """A second snapshot came while the first was still to be loaded. The first one's file was
    removed as out of date, and the member panicked when it opened it.
    """
    member = Member()
    member.append((0, 0), noop(1, 1), command(2, 1), term=1, commit=2)
    first = snapshot_at(member, 50, ["first"])
    member.driver.receive_snapshot(announce(first), first)
    member.driver.pump()
    second = snapshot_at(member, 60, ["second"])
    with must("a snapshot is loaded while another arrives"):
        while member.driver.restore_slice():
            pass
        assert member.host.commands == ["first"]
        member.install(announce(second), second)
    assert member.host.commands == ["second"]


@TABLE.replays(
    *issue("RedisLabs/redisraft", 14),
    promise="a member that takes over has the state that was acknowledged",
    mutant=Mutant(
        "a snapshot's state does not reach the machine",
        "consensus.engines.native.driver:Driver._install",
        "self._host.restore_steps(position, self.snapshots.contents(snapshot)),",
        "(),",
    ),
)
def a_member_that_takes_over_has_an_empty_state(stage: Stage) -> None:
    """Every change of the leader lost all data: whoever took over had taken part in everything, and
    had an empty state.
    """
    member = Member(host=ListHost())
    received = snapshot_at(member, 50, ["x", "y"])
    member.install(announce(received), received)
    found = member.host.commands
    assert found == ["x", "y"], f"the leader's state is x and y, and this member's is {found}"
