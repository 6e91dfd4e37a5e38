"""The state machine that makes a replicated log an etcd v3 store.

``apply`` decodes one ``Command``, dispatches it, and returns the response message with
``header.revision`` filled in, or a ``Status`` where etcd refuses. The service that proposed fills
in the rest of the header. Nothing here reads a clock to decide anything: the same log gives the
same state on every member.

What is applied is visible at once and durable later: ``commit`` runs after ``COMMIT_RECORDS``
changed records or ``COMMIT_BYTES``, or, through ``tick``, ``COMMIT_INTERVAL_S`` after the first of
them. ``position`` makes it durable and says where that is.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import lmdb

from consensus.statemachine import StateMachine, StateSnapshot
from consensus.stats import Durations
from consensus.types import Entry, Position
from kvstore.applier import Applier
from kvstore.defragment import Backlog, rewrite_steps
from kvstore.errors import Status
from kvstore.lease.lessor import LeaseListener
from kvstore.mvcc.backend import explain, translated
from kvstore.mvcc.commands import is_read_only
from kvstore.mvcc.compaction import sweep
from kvstore.mvcc.hashing import hash_kv_steps, state_hash_steps
from kvstore.mvcc.ranges import range_now, range_steps
from kvstore.mvcc.scrub import scrub_steps
from kvstore.mvcc.snapshot import StoreSnapshot, load_steps, remove_database
from kvstore.mvcc.store import Store, WatchSink
from kvstore.pb.command_pb2 import MemberAttributes
from kvstore.pb.etcdserverpb_pb2 import (
    AlarmRequest,
    AlarmResponse,
    HashKVRequest,
    HashKVResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    RangeRequest,
    TxnRequest,
)
from kvstore.quota import effective_quota

DATABASE_NAME: Final = "state.mdb"
RESTORE_NAME: Final = "restore.mdb"
DEFRAGMENT_NAME: Final = "defragment.mdb"

COMMIT_RECORDS: Final = 1_000
"""Changed records after which the open transaction is committed, so that a commit stays short."""

COMMIT_BYTES: Final = 8 * 1024 * 1024
"""The same for records that are large."""

COMMIT_INTERVAL_S: Final = 0.5
"""Longest time that something applied waits for its commit, while ``tick`` is called."""

DEFAULT_MIN_LEASE_TTL_S: Final = 2
"""etcd's shortest TTL with its default election timeout of 1 s: ceil(1.5 election timeouts)."""


class KVStateMachine(StateMachine):
    """An etcd v3 store as a durable state machine.

    Args:
        directory: where the database lives; created where it does not exist.
        quota_bytes: ``--quota-backend-bytes``: 0 is 2 GiB, below 0 is no quota.
        min_lease_ttl_s: shorter TTLs are raised to this; the same on every member.

    Raises:
        StorageError: the database cannot be opened, is damaged, foreign, or of a newer format.
    """

    def __init__(
        self,
        directory: Path,
        *,
        quota_bytes: int = 0,
        min_lease_ttl_s: int = DEFAULT_MIN_LEASE_TTL_S,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._restore_path = directory / RESTORE_NAME
        self._defragment_path = directory / DEFRAGMENT_NAME
        remove_database(self._restore_path)
        remove_database(self._defragment_path)
        self._backlog: Backlog | None = None
        self.quota_bytes = effective_quota(quota_bytes)
        """The space quota in bytes, or None for none."""
        self.store = Store(directory / DATABASE_NAME)
        self._min_lease_ttl_s = min_lease_ttl_s
        self._applier = Applier(self.store, min_lease_ttl_s)
        self.lessor = self._applier.lessor
        self.alarms = self._applier.alarms
        self.commits = Durations()
        """How long commits of the database took."""
        self._changed_s = 0.0
        self._measure()

    # -- who is told -----------------------------------------------------------------------------

    @property
    def watch_sink(self) -> WatchSink | None:
        """Who is told of every revision; None: nobody."""
        return self.store.watch_sink

    @watch_sink.setter
    def watch_sink(self, sink: WatchSink | None) -> None:
        self.store.watch_sink = sink

    @property
    def lease_listener(self) -> LeaseListener | None:
        """Who is told of granted and revoked leases; None: nobody."""
        return self.lessor.listener

    @lease_listener.setter
    def lease_listener(self, listener: LeaseListener | None) -> None:
        self.lessor.listener = listener

    def leases(self) -> Iterator[tuple[int, int]]:
        """Yield (id, granted TTL in seconds) of every lease.

        Raises:
            Damaged: a record is.
        """
        with translated(self.store.path):
            yield from self.lessor.leases()

    # -- applying --------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> Any:
        """Apply one entry; see ``apply_batch``."""
        return self.apply_batch((entry,))[0]

    def apply_batch(self, entries: Sequence[Entry]) -> list[Any]:
        """Apply entries in order; return for each its response message or a ``Status``.

        Raises:
            UnknownCommand: this release does not know a command (see ``kvstore.applier``).
            StorageError: the disk failed, or something stored is damaged (``Damaged``).
            Whatever is raised, the state is back at the last commit.
        """
        store = self.store
        apply = self._applier.apply
        results = []
        try:
            for entry in entries:
                results.append(apply(entry))
                if self._backlog is not None:
                    self._backlog.add(entry)
                if self._is_full():
                    self._moved(entry)
                    self.commit()
            if entries:
                self._moved(entries[-1])
        except BaseException as error:
            store.abort()
            self.alarms.reload()
            if self._backlog is not None:
                self._backlog.give_up("an entry could not be applied")
            if isinstance(error, lmdb.Error):
                raise explain(store.path, error) from error
            raise
        return results

    def _is_full(self) -> bool:
        """Whether the open transaction holds as much as a commit should take."""
        store = self.store
        return (
            store.uncommitted >= COMMIT_RECORDS
            or store.written_bytes - self._measured_written >= COMMIT_BYTES
        )

    def _moved(self, entry: Entry) -> None:
        group_id = self.store.state.position.group_id
        if not self.store.dirty:
            self._changed_s = time.monotonic()
        self.store.set_position(Position(entry.index, entry.term, entry.clock_ms, group_id))

    # -- reading ---------------------------------------------------------------------------------

    def query(self, request: Any) -> Any:
        """Answer a read at once: Range, a Txn without writes, LeaseLeases, Alarm GET.

        Under a CORRUPT alarm reads are answered, as etcd does: only what goes through the log
        is refused.

        Returns:
            The response message with ``header.revision`` (but for alarms), or a ``Status``.

        Raises:
            Damaged: what should be answered is damaged.
            TypeError: the request is not a read.
        """
        try:
            return self._query(request)
        except lmdb.Error as error:
            raise explain(self.store.path, error) from error

    def _query(self, request: Any) -> Any:
        if isinstance(request, RangeRequest):
            return range_now(self.store, request)
        if isinstance(request, TxnRequest):
            if not is_read_only(request):
                raise TypeError("a Txn that writes must be proposed")
            return self._applier.commands.txn(request)
        if isinstance(request, LeaseLeasesRequest):
            return self._lease_leases()
        if isinstance(request, AlarmRequest) and request.action == AlarmRequest.GET:
            return AlarmResponse(alarms=self.alarms.get(request.alarm))
        raise TypeError(f"{type(request).__name__} is not a read")

    def _lease_leases(self) -> LeaseLeasesResponse:
        response = LeaseLeasesResponse()
        response.header.revision = self.store.current_revision
        for id, _ in self.lessor.leases():
            response.leases.add().ID = id
        return response

    def query_steps(self, request: Any) -> Generator[None, None, Any]:
        """Answer a read in slices of a few milliseconds; the return value is ``query``'s.

        Range over many keys, and HashKV, belong here; what is applied at a ``yield`` is not seen.
        """
        with translated(self.store.path):
            if isinstance(request, RangeRequest) and request.range_end:
                return (yield from range_steps(self.store, request))
            if isinstance(request, HashKVRequest):
                return (yield from self._hash_kv_steps(request))
        return self.query(request)

    def _hash_kv_steps(
        self, request: HashKVRequest
    ) -> Generator[None, None, HashKVResponse | Status]:
        found = yield from hash_kv_steps(self.store, request.revision)
        if isinstance(found, Status):
            return found
        response = HashKVResponse(
            hash=found.hash,
            compact_revision=found.compact_revision,
            hash_revision=found.revision,
        )
        response.header.revision = self.store.current_revision
        return response

    # -- durability ------------------------------------------------------------------------------

    def position(self) -> Position:
        """Make everything applied so far durable, and return where the state on disk stands.

        Raises:
            StorageError: the disk refused.
        """
        self.commit()
        self.store.backend.sync()
        return self.store.state.position

    @property
    def commit_due(self) -> bool:
        """Whether something applied has waited long enough for its commit."""
        return self.store.dirty and time.monotonic() - self._changed_s >= COMMIT_INTERVAL_S

    def commit(self) -> None:
        """Give everything applied so far to the file, if not for good: see ``Backend.commit``.

        Raises:
            StorageError: the disk refused.
        """
        if self.store.dirty:
            began = time.perf_counter()
            self.store.commit()
            self.commits.observe(time.perf_counter() - began)
        else:
            self.store.commit()
        self._measure()

    def tick(self) -> None:
        """Do what time asks for: a due commit, and a slice of pending compaction.

        Call it from a timer of the loop, every few milliseconds; it returns within about 10 ms.

        Raises:
            StorageError: the disk failed, or something stored is damaged. Stop the node.
        """
        if self.store.state.sweeping:
            if not self.store.dirty:
                self._changed_s = time.monotonic()
            with translated(self.store.path):
                sweep(self.store)
        if self.commit_due or self._is_full():
            self.commit()

    @property
    def compacting(self) -> bool:
        """Whether physical compaction has work left: CompactionRequest.physical waits for it."""
        return self.store.state.sweeping

    # -- space -----------------------------------------------------------------------------------

    def _measure(self) -> None:
        with translated(self.store.path):
            self._in_use_bytes = self.store.backend.size_in_use_bytes()
        self._measured_written = self.store.written_bytes

    def has_space(self, cost_bytes: int) -> bool:
        """Whether a request of this cost fits the quota (``kvstore.quota`` tells costs)."""
        if self.quota_bytes is None:
            return True
        used = self._in_use_bytes + self.store.written_bytes - self._measured_written
        return used + cost_bytes <= self.quota_bytes

    def defragment_steps(self) -> Generator[None, None, None]:
        """Rewrite the database without free pages, in slices, while entries are applied.

        One that is under way already is waited for.

        Raises:
            StorageError: it could not be done; the database is as it was. See
                ``kvstore.defragment``.
        """
        if self._backlog is not None:
            while self._backlog is not None:
                yield
            return
        self._backlog = Backlog()
        try:
            yield from rewrite_steps(
                self.store, self._defragment_path, self._min_lease_ttl_s, self._backlog
            )
        finally:
            self._backlog = None
        self._measure()

    @property
    def db_size(self) -> int:
        """Bytes that the database takes on disk: pages in use, and free ones it will reuse."""
        return self.store.backend.size_bytes()

    @property
    def db_size_in_use(self) -> int:
        """Bytes of the pages that hold data."""
        return self.store.backend.size_in_use_bytes()

    # -- snapshots -------------------------------------------------------------------------------

    def snapshot(self) -> StateSnapshot:
        """Commit, and freeze the state."""
        return StoreSnapshot(self.store)

    def restore(self, data: bytes) -> None:
        """Replace all state with a snapshot, its position included."""
        for _ in self._restore_steps((data,), None):
            pass

    def restore_steps(self, chunks: Iterable[bytes], position: Position) -> Iterator[None]:
        """Load a snapshot into a file of its own, then switch to it atomically.

        Raises:
            StorageError: the stream is no snapshot of ours, damaged, cut, or of a newer format.
        """
        return self._restore_steps(chunks, position)

    def _restore_steps(self, chunks: Iterable[bytes], position: Position | None) -> Iterator[None]:
        yield from load_steps(self._restore_path, chunks, position)
        self.store.replace_file(self._restore_path)
        self._replaced()

    def discard(self) -> None:
        """Forget everything: the store is empty, at index 0."""
        self.store.replace_file(None)
        self._replaced()

    def _replaced(self) -> None:
        if self._backlog is not None:
            self._backlog.give_up("the state was replaced meanwhile")
        self.alarms.reload()
        self._measure()
        if self.lessor.listener is not None:
            self.lessor.listener.reset()
        if self.store.watch_sink is not None:
            self.store.watch_sink.restored()

    def state_hash(self) -> bytes:
        """Return the SHA-256 of the replicated state, at once; see ``state_hash_steps``."""
        steps = self.state_hash_steps()
        while True:
            try:
                next(steps)
            except StopIteration as done:
                digest: bytes = done.value
                return digest

    def state_hash_steps(self) -> Generator[None, None, bytes]:
        """Hash the replicated state in slices; apply nothing until it is done."""
        return state_hash_steps(self.store)

    def scrub_steps(self) -> Generator[None, None, int]:
        """Check every stored value in slices, while entries are applied.

        Returns:
            How many values were checked.

        Raises:
            StorageError: one is damaged (``Damaged``).
        """
        with translated(self.store.path):
            return (yield from scrub_steps(self.store))

    def members(self) -> list[MemberAttributes]:
        """Return what the members said of themselves, by id.

        Raises:
            Damaged: a record is.
        """
        with translated(self.store.path):
            return self.store.members()

    def close(self) -> None:
        """Commit and close the database."""
        self.store.close()

    def abandon(self) -> None:
        """Close the database of a machine that is given up, without a commit."""
        self.store.backend.close()
