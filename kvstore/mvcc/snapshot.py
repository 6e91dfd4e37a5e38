"""The whole store as a stream of bytes, and back into a file of its own.

Stream: magic and format, then rows (table number, length of name, length of value, name, value) in
the order of ``TABLES`` and of names, then an end row, then the SHA-256 of all before. A row may
span chunks. A snapshot is an LMDB read transaction: frozen at once, and pages it needs stay
untouched; so it must not live long.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs
import lmdb

from consensus.errors import StorageError
from consensus.statemachine import SNAPSHOT_CHUNK_BYTES_MAX, StateSnapshot
from consensus.types import Position
from kvstore.mvcc.absence import OUT_OF_ORDER
from kvstore.mvcc.backend import TABLES, Backend, explain
from kvstore.mvcc.records import Damaged, unseal
from kvstore.mvcc.state import load_state, save_state
from kvstore.mvcc.store import Store

MAGIC: Final = b"RAFTYARD-KVSTORE-SNAPSHOT-"
STREAM_FORMAT: Final = b"0001"
HEADER: Final = MAGIC + STREAM_FORMAT
_ROW: Final = struct.Struct(">BIQ")
_END: Final = 255
_DIGEST_BYTES: Final = 32
LONG_TABLE: Final = b"long"

SNAPSHOT_AGE_MAX_S: Final = 600.0
"""A snapshot older than this gives up: as long as it lives, no freed page can be reused."""

RESTORE_COMMIT_BYTES: Final = 2**20
"""Bytes loaded between two commits of the new file, so that no step holds the loop."""

_BAD: Final = "the snapshot cannot be restored: {}. The state before it is untouched; take another"


@attrs.define(slots=True)
class StoreSnapshot(StateSnapshot):
    """A store as it was when this was made, uncommitted writes included."""

    _store: Store
    _txn: lmdb.Transaction[bytes] = attrs.field(init=False)
    _taken_s: float = attrs.field(init=False, factory=time.monotonic)
    _tables: dict[bytes, lmdb._Database] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._store.commit()
        self._store.snapshots += 1
        self._txn = self._store.backend.env.begin()
        self._tables = self._store.backend.tables

    def chunks(self) -> Iterator[bytes]:
        """Yield the stream in pieces of at most ``SNAPSHOT_CHUNK_BYTES_MAX`` bytes.

        Raises:
            Damaged: what should be sent is damaged.
            StorageError: the snapshot became too old, or the store was replaced meanwhile.
        """
        digest = hashlib.sha256()
        for piece in _pieces(self._stream()):
            if time.monotonic() - self._taken_s > SNAPSHOT_AGE_MAX_S:
                raise StorageError(
                    f"a snapshot was not written within {SNAPSHOT_AGE_MAX_S:.0f} s and gives up, "
                    "since it keeps the database from reusing space. Check the disk or the link"
                )
            digest.update(piece)
            yield piece
        yield digest.digest()

    def _stream(self) -> Iterator[bytes]:
        yield HEADER
        try:
            for number, table in enumerate(TABLES):
                for name, value in self._rows(table):
                    yield _ROW.pack(number, len(name), len(value)) + name + value
        except lmdb.Error as error:
            raise explain(self._store.path, error) from error
        yield _ROW.pack(_END, 0, 0)

    def _rows(self, table: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield a table's rows, checked: damage must not travel to the other members."""
        database = self._tables[table]
        label = table.decode()
        sealed = table != LONG_TABLE  # there it takes the whole key to check: the scrub does
        last = b""
        rows = 0
        with self._txn.cursor(db=database) as cursor:
            for name, value in cursor:
                if name <= last:
                    raise Damaged(label, name, OUT_OF_ORDER)
                if sealed:
                    unseal(label, name, value)
                last = name
                rows += 1
                yield name, value
        if rows != self._txn.stat(database)["entries"]:
            raise Damaged(label, last, "rows behind it are missing")

    def release(self) -> None:
        """End the read transaction."""
        self._store.snapshots -= 1
        self._txn.abort()


def _pieces(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Join and cut ``parts`` into pieces of exactly the largest chunk, and a rest."""
    buffer = bytearray()
    for part in parts:
        buffer += part
        while len(buffer) >= SNAPSHOT_CHUNK_BYTES_MAX:
            yield bytes(buffer[:SNAPSHOT_CHUNK_BYTES_MAX])
            del buffer[:SNAPSHOT_CHUNK_BYTES_MAX]
    if buffer:
        yield bytes(buffer)


class _Reader:
    """Takes a stream's chunks; gives exact lengths; keeps the digest of what was given."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = bytearray()
        self._digest = hashlib.sha256()

    def steps(self, length: int) -> Iterator[None]:
        """Pull chunks until ``length`` bytes are there, pausing after each."""
        while len(self._buffer) < length:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise StorageError(_BAD.format("it ends early"))
            self._buffer += chunk
            yield

    def take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._digest.update(taken)
        return taken

    def finish(self) -> Iterator[None]:
        """Check the digest, and that nothing follows it."""
        yield from self.steps(_DIGEST_BYTES)
        expected = self._digest.digest()
        if self.take(_DIGEST_BYTES) != expected:
            raise StorageError(_BAD.format("its SHA-256 does not match"))
        if self._buffer or any(self._chunks):
            raise StorageError(_BAD.format("bytes follow its end"))


def load_steps(path: Path, chunks: Iterable[bytes], position: Position | None) -> Iterator[None]:
    """Write a snapshot's stream into a new file at ``path``, durable at the end; pauses often.

    Args:
        position: recorded in the new file as where it stands; None keeps the snapshot's own.

    Raises:
        StorageError: the stream is not a snapshot of ours, of a newer format, damaged or cut.
    """
    remove_database(path)
    reader = _Reader(chunks)
    yield from reader.steps(len(HEADER))
    header = reader.take(len(HEADER))
    if not header.startswith(MAGIC):
        raise StorageError(_BAD.format("it is not a kvstore snapshot"))
    if header != HEADER:
        raise StorageError(
            _BAD.format(
                f"its format is {header[len(MAGIC) :]!r}, this kvstore reads {STREAM_FORMAT!r}"
            )
        )
    backend = Backend(path)
    try:
        yield from _load_rows(backend, reader)
        state = load_state(backend)
        if position is not None:
            state.position = position
        save_state(backend, state)
        backend.commit()
        backend.sync()
    except BaseException:
        backend.close()
        remove_database(path)
        raise
    backend.close()
    path.with_name(path.name + LOCK_SUFFIX).unlink(missing_ok=True)


def _load_rows(backend: Backend, reader: _Reader) -> Iterator[None]:
    pending = 0
    while True:
        yield from reader.steps(_ROW.size)
        number, name_length, value_length = _ROW.unpack(reader.take(_ROW.size))
        if number == _END:
            yield from reader.finish()
            return
        if number >= len(TABLES):
            raise StorageError(_BAD.format(f"it names table {number}, which is unknown"))
        yield from reader.steps(name_length + value_length)
        name = reader.take(name_length)
        value = reader.take(value_length)
        # Appending fills pages whole; only the meta table is not empty in a new file.
        table = TABLES[number]
        append = table != b"meta"
        if not backend.txn.put(name, value, append=append, db=backend.tables[table]):
            raise StorageError(_BAD.format("its rows are not in order"))
        pending += name_length + value_length
        if pending > RESTORE_COMMIT_BYTES:
            pending = 0
            backend.commit()
            yield


LOCK_SUFFIX: Final = "-lock"


def set_aside(path: Path) -> None:
    """Give a damaged database another name, for a person to look at; an older one makes way."""
    path.replace(path.with_name(path.name + ".damaged"))
    remove_database(path)


def remove_database(path: Path) -> None:
    """Remove a database file, and LMDB's lock file beside it, if they are there."""
    for name in (path.name, path.name + LOCK_SUFFIX):
        path.with_name(name).unlink(missing_ok=True)
