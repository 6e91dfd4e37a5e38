"""The scrub: a sliced walk over everything that is stored, which leaves no damage unseen.

Every value matches its checksum. Beyond that, since pages have none: a walk and a lookup agree
about every name; every key's newest record is there and is of that key; no revision is missing;
every record's key is in the index, which knows of that record or of a later one; every key of a
lease is on it, and hangs on it.
"""

from __future__ import annotations

from collections.abc import Generator

from kvstore.mvcc.absence import OUT_OF_ORDER, check_end, check_follows
from kvstore.mvcc.records import (
    TOMBSTONE,
    Damaged,
    Head,
    decode_head,
    decode_record,
    lease_key_name,
    place_of,
    unseal,
)
from kvstore.mvcc.store import Store
from kvstore.pb.mvccpb_pb2 import KeyValue

Steps = Generator[None, None, int]


def scrub_steps(store: Store) -> Steps:
    """Check every stored value, pausing every few milliseconds.

    Ends early where the database file is replaced meanwhile: the next scrub sees the new one.

    Returns:
        How many values were checked.

    Raises:
        Damaged: the first value that is.
    """
    backend = store.backend
    checked = 0
    for part in (_heads(store), _records(store), _small_tables(store)):
        checked += yield from part
        if store.backend is not backend:
            break
    return checked


def _heads(store: Store) -> Steps:
    """Check the index against itself, its newest records, and the leases."""
    backend = store.backend
    checked = 0
    for item in store.heads(b"\0", None):
        if item is None:
            yield
            if store.backend is not backend:
                return checked
            continue
        key, head = item
        if store.head(key) != head:
            raise Damaged("index", key, OUT_OF_ORDER)
        record = store.record(head.main, head.sub)
        if KeyValue.FromString(record.payload).key != key:
            raise Damaged("index", key, "points to the record of another key")
        if head.lease:
            _check_lease(store, head.lease, key)
        checked += 1
    return checked


def _records(store: Store) -> Steps:
    """Check the records against each other, and the index against them."""
    backend = store.backend
    checked = 0
    behind = (0, 0)
    for row in store.rows(backend.revisions, b"\0"):
        if row is None:
            yield
            if store.backend is not backend:
                return checked
            continue
        name, sealed = row
        main, sub = place_of(name)
        check_follows(behind, (main, sub), store.compact_revision)
        behind = (main, sub + 1)
        record = decode_record(name, sealed)
        if main > store.compact_revision or not record.flags & TOMBSTONE:
            _check_indexed(store, KeyValue.FromString(record.payload).key, main, sub)
        checked += 1
    check_end(behind[0], store.current_revision, store.compact_revision)
    return checked


def _check_indexed(store: Store, key: bytes, main: int, sub: int) -> None:
    """Make sure that the index knows of a record of a key, or of a later one."""
    raw = store.keyspace.get(store.backend.txn, key)
    if raw is None:
        raise Damaged("index", key, "missing")
    head: Head = decode_head(key, raw)
    if (head.main, head.sub) < (main, sub):
        raise Damaged("index", key, "does not know of its newest record")
    store.keyspace.check_path(store.backend.txn, key)


def _check_lease(store: Store, lease: int, key: bytes) -> None:
    """Make sure that a key is among those of its lease."""
    name = lease_key_name(lease, key)
    if store.backend.txn.get(name, db=store.backend.lease_keys) is None:
        raise Damaged("lease key", name, "missing")


def _small_tables(store: Store) -> Steps:
    """Check what is neither index nor record."""
    backend = store.backend
    checked = 0
    for label, table in (
        ("lease", backend.leases),
        ("lease key", backend.lease_keys),
        ("alarm", backend.alarms),
        ("member", backend.members),
        ("meta", backend.meta),
    ):
        for row in store.rows(table, b"\0"):
            if row is None:
                yield
                if store.backend is not backend:
                    return checked
                continue
            name, sealed = row
            body = unseal(label, name, sealed)
            if backend.txn.get(name, db=table) != sealed:
                raise Damaged(label, name, OUT_OF_ORDER)
            if table is backend.lease_keys:
                head = store.head(body)
                if head is None or lease_key_name(head.lease, body) != name:
                    raise Damaged(label, name, "its key does not hang on this lease")
            checked += 1
    return checked
