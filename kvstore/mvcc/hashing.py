"""Digests of the state: sliced walks over everything that is stored.

A digest covers what the replicated state is, and not how far one member's physical compaction is:
a record that compaction will remove is left out whether it is still there or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from typing import Final

import attrs
import google_crc32c

from kvstore.errors import COMPACTED, FUTURE_REVISION, Status
from kvstore.mvcc.records import TOMBSTONE, Damaged, Record, decode_record, place_of
from kvstore.mvcc.store import Store
from kvstore.pb.mvccpb_pb2 import KeyValue

_TOMBSTONE_MARK: Final = b"t"


@attrs.frozen(slots=True)
class KvHash:
    """A HashKV answer: CRC32C over all readable records up to ``revision``."""

    hash: int
    revision: int
    compact_revision: int


def hash_kv_steps(store: Store, revision: int) -> Generator[None, None, KvHash | Status]:
    """Hash all readable records up to a revision (0: the newest), in slices.

    Raises:
        Damaged: a record is.
    """
    if revision > store.current_revision:
        return FUTURE_REVISION
    if 0 < revision < store.compact_revision:
        return COMPACTED
    revision = revision if revision > 0 else store.current_revision
    compact_revision = store.state.compact_revision
    digest = 0
    with store.pin():
        for item in _records(store, revision, compact_revision):
            if item is None:
                yield
                continue
            name, record = item
            digest = google_crc32c.extend(digest, name)
            if record.flags & TOMBSTONE:
                digest = google_crc32c.extend(digest, _TOMBSTONE_MARK)
            digest = google_crc32c.extend(digest, record.payload)
    return KvHash(digest, revision, compact_revision)


def state_hash_steps(store: Store) -> Generator[None, None, bytes]:
    """Hash the whole replicated state in slices; nothing may be applied until it is done.

    Raises:
        Damaged: a record is.
    """
    digest = hashlib.sha256()
    state = store.state
    digest.update(b"%d %d\n" % (state.revision, state.compact_revision))
    for item in _records(store, state.revision, state.compact_revision):
        if item is None:
            yield
            continue
        name, record = item
        digest.update(name + bytes((record.flags & TOMBSTONE,)) + record.payload)
    backend = store.backend
    for table in (backend.leases, backend.lease_keys, backend.alarms, backend.members):
        digest.update(b"\n")
        for row in store.rows(table, b"\0"):
            if row is None:
                yield
            else:
                digest.update(row[0] + row[1])
    return digest.digest()


def _records(
    store: Store, revision: int, compact_revision: int
) -> Iterator[tuple[bytes, Record] | None]:
    """Yield each readable record up to ``revision`` with its name, and None for a pause."""
    for row in store.rows(store.backend.revisions, b"\0"):
        if row is None:
            yield None
            continue
        name, sealed = row
        main, sub = place_of(name)
        if main > revision:
            return
        record = decode_record(name, sealed)
        if main > compact_revision or _survives(store, main, sub, record, compact_revision):
            yield name, record


def _survives(store: Store, main: int, sub: int, record: Record, compact_revision: int) -> bool:
    """Whether a record at or below the compact revision is kept by physical compaction."""
    if record.flags & TOMBSTONE:
        return main == compact_revision
    if not store.state.sweeping:
        return True
    key = KeyValue.FromString(record.payload).key
    head = store.head(key)
    if head is None:
        raise Damaged("index", key, "missing")
    return store.locate(head, compact_revision) == (main, sub)
