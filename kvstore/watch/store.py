"""What the watch hub needs of the store: where it stands, and its history.

``kvstore.mvcc`` is the real one; the tests have a small one in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kvstore.pb import mvccpb_pb2


class HistoryStore(Protocol):
    """A store of revisions, read from the event loop only.

    Range ends follow etcd: ``b""`` is the single key, ``b"\\0"`` every key from the first on.
    """

    @property
    def current_revision(self) -> int:
        """The revision of the last applied change."""

    @property
    def compact_revision(self) -> int:
        """The last revision that was compacted away (it is itself still readable); 0 for none."""

    def get_at(self, key: bytes, revision: int) -> mvccpb_pb2.KeyValue | None:
        """Return the key as it was at ``revision``; None where absent or compacted."""

    def history(
        self, from_revision: int, key: bytes, range_end: bytes, max_revisions: int, to_revision: int
    ) -> tuple[Sequence[tuple[int, Sequence[mvccpb_pb2.Event]]], int]:
        """Return what happened to a range in [from_revision, to_revision], in order.

        At most ``max_revisions`` revisions are returned, each whole, with the revision from which
        to go on reading; that is ``to_revision + 1`` when everything was returned.
        """
