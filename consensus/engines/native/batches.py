"""One entry of the log for many commands: what a node proposes in one turn of its loop, mostly.

An entry costs the leader, each member, the wire and the disk the same whatever it holds; a command
in it costs little more than its bytes. All proposals of an entry are of one node, and are appended,
lost or forwarded together. As the data of a COMMAND entry, little-endian:

    count        u32   of the proposals, at least 1
    member       u64   who proposed them, and in which incarnation
    incarnation  u64
    sequences    u64   each
    clocks       u64   each, in milliseconds
    lengths      u32   each, of the commands
    commands
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Final

from consensus.raft.messages import EntryKind, LogEntry
from consensus.types import Committed, Proposal

BATCH_COMMANDS_MAX: Final = 256
"""Commands in one entry. A machine is handed whole entries."""

BATCH_BYTES_MAX: Final = 256 * 1024
"""Bytes of commands in one entry. A longer command has an entry of its own."""

_HEAD: Final = struct.Struct("<IQQ")
_COUNT_BYTES: Final = 4
_ROW_BYTES: Final = 8 + 8 + 4


def split(proposals: Sequence[Proposal]) -> Iterator[Sequence[Proposal]]:
    """Yield the proposals of each entry, in order."""
    first = size = 0
    for number, (_, _, command) in enumerate(proposals):
        size += len(command)
        if number > first and (size > BATCH_BYTES_MAX or number - first >= BATCH_COMMANDS_MAX):
            yield proposals[first:number]
            first, size = number, len(command)
    if first < len(proposals):
        yield proposals[first:]


def encode_batch(proposals: Sequence[Proposal]) -> bytes:
    """Return the data of a COMMAND entry. There is at least one proposal, all of one node."""
    identities, clocks, commands = zip(*proposals, strict=True)
    count = len(commands)
    (member, incarnation, _) = identities[0]
    columns = struct.pack(
        f"<{2 * count}Q{count}I",
        *[identity[2] for identity in identities],
        *clocks,
        *map(len, commands),
    )
    return b"".join((_HEAD.pack(count, member, incarnation), columns, *commands))


def decode_batch(data: bytes, term: int, index: int) -> Committed:
    """Read what ``encode_batch`` wrote, as committed in ``term`` from command ``index`` on."""
    count, member, incarnation = _HEAD.unpack_from(data)
    columns = struct.unpack_from(f"<{2 * count}Q{count}I", data, _HEAD.size)
    start = _HEAD.size + count * _ROW_BYTES
    ends = accumulate(columns[2 * count :], initial=start)
    return Committed(
        term,
        index,
        member,
        incarnation,
        columns[:count],
        columns[count : 2 * count],
        [data[begin:end] for begin, end in pairwise(ends)],
    )


def count_of(data: bytes) -> int:
    """Return how many commands the data of a COMMAND entry holds."""
    return int.from_bytes(data[:_COUNT_BYTES], "little")


def commands_in(entry: LogEntry) -> int:
    """Return how many commands any entry holds."""
    _, _, kind, data = entry
    return count_of(data) if kind is EntryKind.COMMAND else 0
