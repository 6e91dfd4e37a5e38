"""Keys at revisions: the core that reads and writes single keys and ranges of the index.

A *write* is everything one command changes: it has one revision, and each changed key a place in
it (``sub``). ``begin_write`` opens it, ``put`` and ``delete_range`` add to it, ``end_write`` makes
its revision current, hands its events to the watch sink, and says which revision to answer. Reads
between them see what was written so far.

The same entries give the same bytes of every ``KeyValue`` on every member. Where a member is with
the physical removal of compacted records is its own business, and changes no answer.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from consensus.errors import StorageError
from consensus.storage.durable import sync_directory
from consensus.types import Position
from kvstore.errors import COMPACTED, FUTURE_REVISION, Status
from kvstore.mvcc.absence import OUT_OF_ORDER
from kvstore.mvcc.backend import Backend, translated
from kvstore.mvcc.history import history
from kvstore.mvcc.keyspace import Keyspace, Table
from kvstore.mvcc.records import (
    LINK_EVERY,
    PREVIOUS_TOMBSTONE,
    REVISION,
    TOMBSTONE,
    Damaged,
    Head,
    Record,
    advance_links,
    decode_head,
    decode_record,
    encode_head,
    encode_record,
    head_summary,
    link,
    living_payload,
    seal,
    unseal,
)
from kvstore.mvcc.state import StoreState, load_state, save_state
from kvstore.pb.command_pb2 import MemberAttributes
from kvstore.pb.mvccpb_pb2 import Event, KeyValue

FIRST_REVISION: Final = 1
"""The revision of an empty store, as in etcd; the first write makes it 2."""

SLICE_S: Final = 0.002
"""How long a sliced walk works before it lets other work run."""


class WatchSink(Protocol):
    """Who is told of changes. All calls come from inside ``apply`` and must be short."""

    def notify(self, revision: int, events: Sequence[Event]) -> None:
        """A revision was applied; ``events`` in the order inside it, without ``prev_kv``."""

    def restored(self) -> None:
        """All state was replaced by a snapshot."""

    def compacted(self, revision: int) -> None:
        """History before ``revision`` can no longer be read."""


class Store:
    """The multi-version store on one LMDB file.

    Args:
        path: the database file.

    Raises:
        StorageError: see ``Backend``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.watch_sink: WatchSink | None = None
        self.snapshots = 0
        """Snapshots that are still being read from the file."""
        self._pins = 0
        self._main = 0
        self._open()

    def _open(self) -> None:
        self.backend = Backend(self.path)
        self.keyspace = Keyspace(self.backend.index, self.backend.long)
        self._load()

    def _load(self) -> None:
        """Take everything that is kept in memory from the file."""
        self.state: StoreState = load_state(self.backend)
        self.uncommitted = 0
        """Records written or removed since the last commit."""
        self.dirty = False
        """Whether anything changed since the last commit."""
        self.written_bytes = 0
        """Bytes of records written since the file was opened or went back."""
        self._sub = 0
        self._events: list[Event] = []

    @property
    def current_revision(self) -> int:
        """The revision of the newest write; 1 in an empty store."""
        return self.state.revision

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can be read; 0 before the first compaction."""
        return max(self.state.compact_revision, 0)

    @property
    def pinned(self) -> bool:
        """Whether a sliced read is under way, so that nothing may be physically removed."""
        return self._pins > 0

    # -- writing ---------------------------------------------------------------------------------

    def begin_write(self) -> None:
        """Open the write of one command."""
        self._main = self.state.revision + 1
        self._sub = 0
        self._events = []

    @property
    def write_revision(self) -> int:
        """What an answer inside the open write reports: its revision once it changed something."""
        return self._main if self._sub else self.state.revision

    def end_write(self) -> int:
        """Close the open write; return the revision to answer with."""
        if self._sub:
            self.state.revision = self._main
            events = self._events
            self._events = []
            self._sub = 0
            if self.watch_sink is not None:
                self.watch_sink.notify(self._main, events)
        return self.state.revision

    def head(self, key: bytes) -> Head | None:
        """Return what the index knows of ``key``: its newest record, which may be a tombstone."""
        raw = self.keyspace.get(self.backend.txn, key)
        return None if raw is None else decode_head(key, raw)

    def put(self, key: bytes, value: bytes, lease: int, head: Head | None) -> None:
        """Write one key in the open write.

        Args:
            head: what ``self.head(key)`` says now.
        """
        main = self._main
        if head is None:
            create = main
            version = depth = 1
            flags = previous_main = previous_sub = 0
            links = b""
        else:
            flags, previous_main, previous_sub, create, version, _, depth, links = head
            depth += 1
            if flags & TOMBSTONE:
                create, version, flags = main, 1, PREVIOUS_TOMBSTONE
            else:
                version += 1
        event = Event()
        pair = event.kv
        pair.key = key
        pair.create_revision = create
        pair.mod_revision = main
        pair.version = version
        pair.value = value
        if lease:
            pair.lease = lease
        name = REVISION.pack(main, self._sub)
        own = b""
        if not depth % LINK_EVERY:
            own, links = advance_links(links, depth, name)
        self._append(
            name,
            encode_record(name, flags, previous_main, previous_sub, own, pair.SerializeToString()),
            key,
            encode_head(key, 0, name, create, version, lease, depth, links),
            event,
        )

    def delete(self, key: bytes, head: Head) -> None:
        """Write the tombstone of one living key in the open write. ``head`` as for ``put``."""
        event = Event(type=Event.DELETE, kv=KeyValue(key=key, mod_revision=self._main))
        name = REVISION.pack(self._main, self._sub)
        depth = head.depth + 1
        own, links = advance_links(head.links, depth, name)
        payload = event.kv.SerializeToString()
        self._append(
            name,
            encode_record(name, TOMBSTONE, head.main, head.sub, own, payload),
            key,
            encode_head(key, TOMBSTONE, name, 0, 0, 0, depth, links),
            event,
        )

    def _append(self, name: bytes, record: bytes, key: bytes, head: bytes, event: Event) -> None:
        """Write a record at the next place of the open write, and make it its key's newest."""
        txn = self.backend.txn
        if not txn.put(name, record, append=True, db=self.backend.revisions):
            raise Damaged("revision", name, "a record is there already, or a later one")
        self.keyspace.put(txn, key, head)
        self._sub += 1
        self.uncommitted += 1
        self.written_bytes += len(record)
        if self.watch_sink is not None:
            self._events.append(event)

    # -- reading ---------------------------------------------------------------------------------

    def record(self, main: int, sub: int) -> Record:
        """Return a record that must be there.

        Raises:
            Damaged: it is missing or its checksum does not match.
        """
        name = REVISION.pack(main, sub)
        sealed = self.backend.txn.get(name, db=self.backend.revisions)
        if sealed is None:
            raise Damaged("revision", name, "missing")
        return decode_record(name, sealed)

    def payload(self, main: int, sub: int) -> bytes:
        """Return the marshalled KeyValue of a record that must be there, and no deletion.

        Raises:
            Damaged: the record is missing, damaged, or a deletion.
        """
        name = REVISION.pack(main, sub)
        sealed = self.backend.txn.get(name, db=self.backend.revisions)
        if sealed is None:
            raise Damaged("revision", name, "missing")
        return living_payload(name, sealed)

    def locate(self, head: Head, revision: int) -> tuple[int, int] | None:
        """Return (main, sub) of the record that a key shows at ``revision``, or None.

        ``revision`` is at least 1 and not compacted.
        """
        if head.main <= revision:
            return None if head.flags & TOMBSTONE else (head.main, head.sub)
        level = len(head.links) // REVISION.size
        links = head.links
        record: Record | None = None
        while level:
            far_main, far_sub = link(links, level)
            if far_main > revision:
                record = self.record(far_main, far_sub)
                links = record.links
            else:
                level -= 1
        if record is None:
            record = self.record(head.main, head.sub)
        while record.previous_main > revision:
            record = self.record(record.previous_main, record.previous_sub)
        if not record.previous_main or record.flags & PREVIOUS_TOMBSTONE:
            return None
        return record.previous_main, record.previous_sub

    def visible(self, head: Head, revision: int) -> bytes | None:
        """Return the marshalled KeyValue of a key as it was at ``revision``; None if it was not.

        ``revision`` must not be compacted.
        """
        place = self.locate(head, revision)
        return None if place is None else self.payload(*place)

    def history(
        self, from_revision: int, key: bytes, range_end: bytes, max_revisions: int, to_revision: int
    ) -> tuple[list[tuple[int, list[Event]]], int]:
        """Read past events in slices: see ``kvstore.mvcc.history.history``."""
        with translated(self.path):
            return history(self, from_revision, key, range_end, max_revisions, to_revision)

    def get_at(self, key: bytes, revision: int) -> KeyValue | None:
        """Return ``key`` as it was at ``revision``; None if it was not, or that is compacted.

        Raises:
            Damaged: what should be answered is damaged.
        """
        if revision < max(self.state.compact_revision, 1):
            return None
        with translated(self.path):
            head = self.head(key)
            payload = None if head is None else self.visible(head, revision)
        return None if payload is None else KeyValue.FromString(payload)

    def rows(self, table: Table, start: bytes) -> Iterator[tuple[bytes, bytes] | None]:
        """Yield a table's raw (name, value) from ``start`` on, pausing as ``heads`` does.

        Raises:
            Damaged: the names are out of order.
        """
        last = b""
        while True:
            deadline = time.perf_counter() + SLICE_S
            with self.backend.txn.cursor(db=table) as cursor:
                if not cursor.set_range(start):
                    return
                for name, value in cursor.iternext():
                    if name <= last:
                        raise Damaged("LMDB", name, OUT_OF_ORDER)
                    last = name
                    yield name, value
                    if time.perf_counter() > deadline:
                        start = name + b"\0"
                        break
                else:
                    return
            yield None

    def heads(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, Head] | None]:
        """Yield (key, head) for each key of the index in [start, end), tombstones too, in order.

        A None in between is a pause: only there other work may run, and the walk goes on behind
        the last key whatever was written meanwhile. ``end`` None: to the last key.
        """
        scan = self.keyspace.scan
        while True:
            deadline = time.perf_counter() + SLICE_S
            for key, raw in scan(self.backend.txn, start, end):
                yield key, decode_head(key, raw)
                if time.perf_counter() > deadline:
                    start = key + b"\0"
                    break
            else:
                return
            yield None

    def count_steps(
        self, start: bytes, end: bytes | None, revision: int
    ) -> Generator[None, None, int]:
        """Count the keys in [start, end) that live at ``revision``, pausing as ``heads`` does.

        A head is read no further than to its flags and revision: a Range with a limit counts many
        more keys than it returns.
        """
        newest = revision.to_bytes(8, "big")
        total = 0
        while True:
            deadline = time.perf_counter() + SLICE_S
            for key, raw in self.keyspace.scan(self.backend.txn, start, end):
                flags, main = head_summary(key, raw)
                if main <= newest:
                    total += not flags & TOMBSTONE
                else:
                    total += self.locate(decode_head(key, raw), revision) is not None
                if time.perf_counter() > deadline:
                    start = key + b"\0"
                    break
            else:
                return total
            yield

    def living(self, key: bytes, range_end: bytes) -> list[tuple[bytes, Head]]:
        """Return the keys of a range that live now, without pausing. ``range_end`` as etcd's."""
        if not range_end:
            head = self.head(key)
            return [] if head is None or head.flags & TOMBSTONE else [(key, head)]
        return [
            (name, head)
            for name, raw in self.keyspace.scan(self.backend.txn, key, scan_end(range_end))
            if not (head := decode_head(name, raw)).flags & TOMBSTONE
        ]

    @contextmanager
    def pin(self) -> Iterator[None]:
        """Hold back physical removal while a sliced read at a fixed revision is under way."""
        self._pins += 1
        try:
            yield
        finally:
            self._pins -= 1

    def compact(self, revision: int) -> Status | None:
        """Refuse reads before ``revision`` from now on; ``compaction.sweep`` removes the rest.

        Returns:
            None, or why not: it is compacted already, or not there yet.
        """
        state = self.state
        if revision <= state.compact_revision:
            return COMPACTED
        if revision > state.revision:
            return FUTURE_REVISION
        # What the last compaction kept at its own revision may have to go now.
        start = (max(state.compact_revision, 0), 0)
        if not state.sweeping or start < (state.sweep_main, state.sweep_sub):
            state.sweep_main, state.sweep_sub = start
        state.sweeping = True
        state.compact_revision = revision
        self.dirty = True
        if self.watch_sink is not None:
            self.watch_sink.compacted(revision)
        return None

    # -- members ---------------------------------------------------------------------------------

    def set_member(self, attributes: MemberAttributes) -> None:
        """Keep what a member says of itself."""
        name = attributes.id.to_bytes(8, "big")
        packed = attributes.SerializeToString(deterministic=True)
        self.backend.txn.put(name, seal(name, packed), db=self.backend.members)
        self.dirty = True

    def members(self) -> list[MemberAttributes]:
        """Return what the members said of themselves, in order of id.

        Raises:
            Damaged: a record is.
        """
        with self.backend.txn.cursor(db=self.backend.members) as cursor:
            return [
                MemberAttributes.FromString(unseal("member", name, sealed))
                for name, sealed in cursor
            ]

    # -- durability ------------------------------------------------------------------------------

    def set_position(self, position: Position) -> None:
        """Record the last applied entry; written with the data by the next ``commit``."""
        self.state.position = position
        self.dirty = True

    def touch(self) -> None:
        """Note that ``state`` changed, so that the next ``commit`` writes it."""
        self.dirty = True

    def removed(self, found: bool) -> None:
        """Count a record that was physically removed toward the next commit."""
        self.uncommitted += found

    def commit(self) -> None:
        """Give everything applied so far to the file, with its position; see ``Backend.commit``.

        Raises:
            StorageError: the disk refused; the store is back at the last commit.
        """
        if not self.dirty:
            return
        try:
            save_state(self.backend, self.state)
            self.backend.commit()
        except StorageError:
            self.abort()
            raise
        self.uncommitted = 0
        self.dirty = False

    def abort(self) -> None:
        """Go back to the last commit."""
        self.backend.abort()
        self._load()

    def replace_file(self, replacement: Path | None) -> None:
        """Give up this store's file for another, atomically; None is an empty store.

        A kill at any moment leaves the old file or the new one (or none: an empty store).

        Raises:
            StorageError: the new file cannot be opened.
        """
        self.backend.close()
        if replacement is None:
            self.path.unlink()
        else:
            replacement.replace(self.path)
        sync_directory(self.path.parent)
        self._open()

    def close(self) -> None:
        """Commit, make it durable, and close the file."""
        self.commit()
        self.backend.sync()
        self.backend.close()


def scan_end(range_end: bytes) -> bytes | None:
    """Turn etcd's ``range_end`` of a range into a scan's: ``\\0`` means to the last key."""
    return None if range_end == b"\0" else range_end
