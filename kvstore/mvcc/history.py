"""Past events, read back from the records: what a watcher that starts in the past is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvstore.errors import COMPACTED, EtcdError
from kvstore.mvcc.absence import check_end, check_follows
from kvstore.mvcc.records import REVISION, TOMBSTONE, decode_record, place_of

if TYPE_CHECKING:
    from kvstore.mvcc.store import Store
from kvstore.pb.mvccpb_pb2 import Event, KeyValue

HISTORY_BYTES_MAX: Final = 4 * 2**20
"""Bytes of records read in one call, but for a single revision that is larger."""

RevisionEvents = tuple[int, list[Event]]


def history(
    store: Store,
    from_revision: int,
    key: bytes,
    range_end: bytes,
    max_revisions: int,
    to_revision: int,
) -> tuple[list[RevisionEvents], int]:
    """Read the events of revisions in [from_revision, to_revision] that touch a range of keys.

    A revision is never split. Reading stops early after ``max_revisions`` revisions, touched or
    not, or ``HISTORY_BYTES_MAX`` bytes: call again with the second value until it is above
    to_revision.

    Args:
        range_end: as etcd's: empty for ``key`` alone, one zero byte for all from ``key`` on.

    Returns:
        (revision, its events in order) of each revision that touches the range, and the revision to
        go on with. ``prev_kv`` is not filled; a DELETE carries only key and mod_revision.

    Raises:
        EtcdError: from_revision is compacted.
        Damaged: a record on the way is, or is missing.
    """
    if from_revision < store.compact_revision:
        raise EtcdError(COMPACTED)
    found: list[RevisionEvents] = []
    at = scanned = size = 0
    backend = store.backend
    behind = (from_revision - 1, 1)
    with backend.txn.cursor(db=backend.revisions) as cursor:
        there = cursor.set_range(REVISION.pack(from_revision, 0))
        for name, sealed in cursor.iternext() if there else ():
            main, sub = place_of(name)
            check_follows(behind, (main, sub), store.compact_revision)
            behind = (main, sub + 1)
            if main > to_revision:
                break
            if main != at:
                if scanned == max_revisions or size > HISTORY_BYTES_MAX:
                    return found, main
                at = main
                scanned += 1
            size += len(sealed)
            record = decode_record(name, sealed)
            pair = KeyValue.FromString(record.payload)
            if not _touches(pair.key, key, range_end):
                continue
            event = Event(kv=pair)
            if record.flags & TOMBSTONE:
                event.type = Event.DELETE
            if found and found[-1][0] == main:
                found[-1][1].append(event)
            else:
                found.append((main, [event]))
        else:
            newest = min(to_revision, store.current_revision)
            check_end(behind[0], newest, store.compact_revision)
    return found, to_revision + 1


def _touches(changed: bytes, key: bytes, range_end: bytes) -> bool:
    if not range_end:
        return changed == key
    return changed >= key and (range_end == b"\0" or changed < range_end)
