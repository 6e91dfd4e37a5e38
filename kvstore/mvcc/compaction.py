"""Physical compaction: removing, slice by slice, what no readable revision shows any more.

Of each key the newest record at or below the compact revision C stays; a deletion below C goes, one
at C itself stays until the next compaction (as etcd does since 3.5.16, so that a watch from C sees
it). One walk over the records from the last compact revision up to C is enough: every record met
outlives the one before it of the same key, and a deletion ends its key.

How far the walk is belongs to the stored state, so it goes on after a restart. It is no part of the
replicated state: members may be at different places of it and still answer alike.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import Final

from kvstore.mvcc.records import (
    PREVIOUS_TOMBSTONE,
    REVISION,
    TOMBSTONE,
    Damaged,
    decode_record,
    place_of,
)
from kvstore.mvcc.store import SLICE_S, Store
from kvstore.pb.mvccpb_pb2 import KeyValue

SWEEP_RECORDS: Final = 64
"""Records read before what they replace is removed."""


def sweep(store: Store) -> None:
    """Do one slice of the pending removal; nothing while a sliced read is under way.

    Raises:
        Damaged: a record on the way is.
    """
    state = store.state
    deadline = time.perf_counter() + SLICE_S
    while state.sweeping and not store.pinned and time.perf_counter() < deadline:
        _sweep_some(store)


def _sweep_some(store: Store) -> None:
    state = store.state
    backend = store.backend
    start = REVISION.pack(state.sweep_main, state.sweep_sub)
    with backend.txn.cursor(db=backend.revisions) as cursor:
        found = list(islice(cursor.iternext(), SWEEP_RECORDS)) if cursor.set_range(start) else []
    for name, sealed in found:
        main, sub = place_of(name)
        if main > state.compact_revision:
            state.sweeping = False
            break
        record = decode_record(name, sealed)
        if record.previous_main and not record.flags & PREVIOUS_TOMBSTONE:
            previous = REVISION.pack(record.previous_main, record.previous_sub)
            store.removed(backend.txn.delete(previous, db=backend.revisions))
        if record.flags & TOMBSTONE and main < state.compact_revision:
            _bury(store, name, main, sub, record.payload)
        state.sweep_main, state.sweep_sub = main, sub + 1
    if len(found) < SWEEP_RECORDS:
        state.sweeping = False
    store.touch()


def _bury(store: Store, name: bytes, main: int, sub: int, payload: bytes) -> None:
    """Remove a deletion, and its key from the index unless it was written again."""
    store.removed(store.backend.txn.delete(name, db=store.backend.revisions))
    key = KeyValue.FromString(payload).key
    head = store.head(key)
    if head is None:
        raise Damaged("index", key, "missing")
    if (head.main, head.sub) == (main, sub):
        store.keyspace.delete(store.backend.txn, key)
