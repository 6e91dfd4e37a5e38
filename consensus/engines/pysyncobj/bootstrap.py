"""A log that begins with a snapshot: how a new group starts from a backup.

The directory gets a dump at index 1 of term 0 and no log. Every member of the new group must get
the same; then their logs begin with the same two empty entries, which the dump stands for, and go
on from there. A member that has to forget its machine later comes back to this dump, not to
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pysyncobj.syncobj import _COMMAND_TYPE

from consensus.engines.pysyncobj.dump import DUMP_NAME, DumpHead, DumpWriter
from consensus.engines.pysyncobj.setup import GROUP_ID
from consensus.storage.durable import sync_directory
from consensus.types import NodeId, Position

BASE_INDEX: Final = 1
"""Commands that the snapshot counts as: not 0, which means that nothing was applied."""


def write_base(directory: Path, members: Sequence[NodeId], chunks: Iterable[bytes]) -> None:
    """Make a new engine's ``directory`` begin with a machine's snapshot, durable at the end.

    Args:
        directory: where the engine will keep its log; must exist and be empty.
        members: names of the new group, for a person who finds the file.
        chunks: the machine's snapshot, as its ``chunks`` yields it.

    Raises:
        OSError: the file cannot be written. What ``chunks`` raises passes through; no dump is left.
    """
    empty = bytes([_COMMAND_TYPE.NO_OP])
    position = Position(index=BASE_INDEX, term=0, clock_ms=0, group_id=GROUP_ID)
    head = DumpHead(position, (empty, 1, 0), (empty, 2, 0), tuple(members))
    writer = DumpWriter(directory / f"{DUMP_NAME}.writing", head)
    try:
        for chunk in chunks:
            writer.write(chunk)
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    writer.path.replace(directory / DUMP_NAME)
    sync_directory(directory)
