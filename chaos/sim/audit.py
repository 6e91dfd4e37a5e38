"""Checks that look past what a member says: at the bytes of its disk, and across logs.

The reader here shares no code with the write-ahead log but the layout of a record. It reads what a
crash at this moment would leave at worst.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import google_crc32c

from chaos.sim.disk import SimFileSystem
from chaos.sim.invariants import Violation, Vote
from consensus.raft.core import Core
from consensus.raft.log import RaftLog
from consensus.raft.messages import LogEntry
from consensus.types import NodeId

RECORDS_START: Final = 4096
MATCH_TAIL: Final = 60
"""Entries compared at intervals; at the end of a run whole logs are."""

_HEADER: Final = struct.Struct("<IIB")
_ENTRY: Final = struct.Struct("<QQB")
_PAIR: Final = struct.Struct("<QQ")
_TRIPLE: Final = struct.Struct("<QQQ")
_KIND_ENTRY, _KIND_HARD_STATE, _KIND_BASE, _KIND_REPAIRING = 1, 2, 3, 4


@attrs.define(slots=True)
class DurableLog:
    """What a disk says: the last vote, where the log begins, and its entries by index."""

    vote: Vote = attrs.field(factory=lambda: Vote(0, None))
    base_index: int = 0
    entries: dict[int, tuple[int, bytes]] = attrs.field(factory=dict)
    last_index: int = 0


def entry_record(entry: LogEntry) -> bytes:
    """Return an entry as it must be on disk."""
    body = _ENTRY.pack(entry.index, entry.term, entry.kind) + entry.data
    rest = struct.pack("<IB", len(body), _KIND_ENTRY) + body
    return struct.pack("<I", google_crc32c.value(rest)) + rest


def holds(files: SimFileSystem, entry: LogEntry) -> bool:
    """Whether an entry's record is durable, looked for in the newest segment first."""
    record = entry_record(entry)
    return any(record in content.durable for content in reversed(files.durable_contents()))


def durable_vote(files: SimFileSystem) -> Vote:
    """Return the term and vote that the newest segment ends with; each begins with them."""
    contents = files.durable_contents()
    if not contents:
        return Vote(0, None)
    vote = Vote(0, None)
    for kind, body in _records(contents[-1].durable):
        if kind in (_KIND_HARD_STATE, _KIND_REPAIRING):
            vote = _vote(kind, body)
    return vote


def read_log(files: SimFileSystem) -> DurableLog:
    """Read a whole log, up to its first record that is not whole."""
    found = DurableLog()
    for content in files.durable_contents():
        for kind, body in _records(content.durable):
            if kind in (_KIND_HARD_STATE, _KIND_REPAIRING):
                found.vote = _vote(kind, body)
            elif kind == _KIND_ENTRY:
                index, term, _ = _ENTRY.unpack_from(body)
                for stale in range(index, found.last_index + 1):
                    found.entries.pop(stale, None)
                found.entries[index] = (term, body[_ENTRY.size :])
                found.last_index = index
            elif kind == _KIND_BASE:
                _rebase(found, *_PAIR.unpack_from(body))
    return found


def _rebase(found: DurableLog, index: int, term: int) -> None:
    first = min(found.entries, default=found.base_index + 1)
    if index < max(found.base_index, first - 1):
        return  # where segments were released, what is left may begin after an older base
    before = found.entries.get(index)
    joins = before[0] == term if before else index == first - 1
    found.entries = {at: entry for at, entry in found.entries.items() if joins and at > index}
    found.base_index = index
    found.last_index = max(found.entries, default=index)


def _vote(kind: int, body: bytes) -> Vote:
    numbers = _TRIPLE if kind == _KIND_REPAIRING else _PAIR
    return Vote(numbers.unpack_from(body)[0], body[numbers.size :].decode() or None)


def _records(data: bytearray) -> list[tuple[int, bytes]]:
    found = []
    offset = RECORDS_START
    while offset + _HEADER.size <= len(data):
        checksum, length, kind = _HEADER.unpack_from(data, offset)
        end = offset + _HEADER.size + length
        if not kind or end > len(data):
            break
        if google_crc32c.value(bytes(data[offset + 4 : end])) != checksum:
            break
        found.append((kind, bytes(data[offset + _HEADER.size : end])))
        offset = end
    return found


# -- checks -----------------------------------------------------------------------------------


def check_acknowledged(node: NodeId, core: Core, files: SimFileSystem, index: int) -> None:
    """No acknowledgement of an entry that is not on the acknowledging member's own disk."""
    if index <= core.log.snapshot.index:
        return
    if not holds(files, core.log.entry(index)):
        raise Violation(f"{node} acknowledges entry {index}, which is not on its disk")


def check_vote_durable(node: NodeId, files: SimFileSystem, term: int, candidate: NodeId) -> None:
    """A vote is on disk before anybody hears of it."""
    vote = durable_vote(files)
    if vote.term < term or (vote.term == term and vote.voted_for != candidate):
        raise Violation(
            f"{node} votes for {candidate} in term {term}; its disk says term {vote.term}, "
            f"vote for {vote.voted_for}"
        )


def check_committed(leader: NodeId, core: Core, disks: Mapping[NodeId, SimFileSystem]) -> None:
    """What a leader calls committed is on the disks of every majority that it needs.

    ``disks`` has the voters whose disks can be looked at, and whose logs begin before the entry.
    """
    if core.commit_index <= core.log.snapshot.index:
        return
    entry = core.log.entry(core.commit_index)
    lacking = {name for name, files in disks.items() if not holds(files, entry)}
    configuration = core.configuration
    for voters in (configuration.voters, configuration.voters_outgoing):
        having = sum(voter not in lacking for voter in voters)
        if voters and having <= len(voters) // 2:
            raise Violation(
                f"{leader} committed entry {entry.index} of term {entry.term}, which is not on the "
                f"disks of {', '.join(sorted(lacking))}: no majority of {', '.join(voters)} has it"
            )


def check_log_matching(logs: Sequence[tuple[NodeId, RaftLog]], tail: int | None = None) -> None:
    """Log matching: where two logs agree on an index and its term, they agree on all before it."""
    for number, (one, log) in enumerate(logs):
        for other, another in logs[:number]:
            _check_pair(one, log, other, another, tail)


def _check_pair(
    one: NodeId, log: RaftLog, other: NodeId, another: RaftLog, tail: int | None
) -> None:
    first = max(log.first_index, another.first_index)
    last = min(log.last_index, another.last_index)
    if tail is not None:
        first = max(first, last - tail)
    if last < first:
        return
    ours, theirs = log.slice(first, last + 1), another.slice(first, last + 1)
    while ours and ours[-1].term != theirs[-1].term:
        ours.pop()
        theirs.pop()
    if ours != theirs:
        at = next(a.index for a, b in zip(ours, theirs, strict=True) if a != b)
        raise Violation(
            f"log matching: {one} and {other} agree at {ours[-1].index} of term {ours[-1].term} "
            f"and differ at {at}"
        )


def check_disk(node: NodeId, core: Core, files: SimFileSystem) -> None:
    """A member's disk holds what its core believes is there."""
    found = read_log(files)
    log = core.log
    if found.vote.term != core.term or found.vote.voted_for != core.voted_for:
        raise Violation(
            f"{node} is in term {core.term} with a vote for {core.voted_for}; its disk says "
            f"{found.vote.term} and {found.vote.voted_for}"
        )
    if found.base_index != log.snapshot.index:
        raise Violation(
            f"{node}'s log begins after {log.snapshot.index}, on disk after {found.base_index}"
        )
    for entry in log.slice(log.first_index, log.persisted_index + 1):
        if found.entries.get(entry.index) != (entry.term, entry.data):
            raise Violation(f"{node} believes that entry {entry.index} is on its disk; it is not")
