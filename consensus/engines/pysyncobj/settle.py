"""Where a machine stands in this log: the rule that ``Engine.start`` is held to."""

from __future__ import annotations

from consensus.engines.pysyncobj.codec import decode_frame
from consensus.engines.pysyncobj.journal import REMEDY, SegmentJournal
from consensus.engines.pysyncobj.raft import frame_text
from consensus.errors import StorageError
from consensus.types import Position


def misplaced(position: Position, base: Position, journal: SegmentJournal) -> str:
    """Return why the machine's position is not in this log, in words; empty when it is.

    Args:
        position: of the machine; its index is not 0.
        base: of the snapshot that the log goes on from (index 0: from the beginning).
        journal: the log; its first two entries are the snapshot's last, where there is one.

    Raises:
        StorageError: an entry of the log cannot be read.
    """
    where = f"the machine stands at index {position.index} of term {position.term}"
    if position.group_id != base.group_id:
        return f"{where} of group {position.group_id}; this log is of group {base.group_id}"
    if position.index < base.index:
        return f"{where}; this log begins after index {base.index}"
    if position.index == base.index:
        if position.term == base.term:
            return ""
        return f"{where}; this log has term {base.term} there"
    index = base.index
    after_base = 2 if base.index else 0
    for command, raft_index, term in journal[after_base:]:
        try:
            text = frame_text(command)
            count = 0 if text is None else len(decode_frame(text).proposals)
        except (StorageError, ValueError) as error:
            raise StorageError(
                f"log entry {raft_index} cannot be read: {error}. {REMEDY}"
            ) from None
        index += count
        if index >= position.index:
            return "" if term == position.term else f"{where}; this log has term {term} there"
    return f"{where}; this log ends at index {index}"
