"""What the core wants done, in one frozen value, with the order of doing it in its fields.

The driver does, for each ``Ready`` in turn:

1. send ``messages`` (at once: they promise nothing about this node's disk);
2. write ``snapshot``, ``entries`` (the first one replaces whatever is at or after its index) and
   ``hard_state``, in this order, and sync if ``must_sync``; then call ``Core.persisted(number)``;
3. only then send ``messages_after_persist``;
4. apply ``committed``, then call ``Core.applied(index)``.

In step 2 a crash may leave the first part only. The hard state comes last because its commit index
speaks of the log with these entries in it: in front of them, it would commit whatever an older
leader had left in their place.

Steps 1 and 2 may overlap: a leader's own sync runs while its followers write (thesis, section
10.2.1). Step 4 never runs ahead of this node's disk: ``committed`` holds synced entries only.
"""

from __future__ import annotations

import attrs

from consensus.raft.messages import AnyMessage, LogEntry, SnapshotMeta
from consensus.types import NodeId


@attrs.frozen(slots=True)
class HardState:
    """What must survive a crash. ``commit_index`` is only a hint: losing it costs nothing.

    ``lost_term`` is above 0 where this member's disk was damaged: it may have acknowledged, in
    terms up to this one, what its log no longer has. See ``Core.repairing``.
    """

    term: int = 0
    voted_for: NodeId | None = None
    commit_index: int = 0
    lost_term: int = 0


@attrs.frozen(slots=True)
class ReadState:
    """A read that this node asked for may be served once ``index`` is applied.

    ``index`` is None where the read failed: leadership was lost before it was confirmed.
    """

    request: int
    index: int | None


@attrs.frozen(slots=True, kw_only=True)
class Ready:
    """One step's worth of work."""

    number: int
    messages: tuple[AnyMessage, ...]
    hard_state: HardState | None
    entries: tuple[LogEntry, ...]
    snapshot: SnapshotMeta | None
    must_sync: bool
    messages_after_persist: tuple[AnyMessage, ...]
    committed: tuple[LogEntry, ...]
    reads: tuple[ReadState, ...]
    rejected_proposals: tuple[int, ...]
