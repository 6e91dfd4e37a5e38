"""One LMDB file, its tables, and the one long-open write transaction.

Everything that was applied and is not committed yet lives in that transaction; every read of the
serving path goes through it and so sees applied state at once. ``commit`` gives it to the file and
opens the next. ``abort`` throws it away: the file then holds the last commit, a consistent prefix.

The map is opened once, far larger than any database, and never resized: address space is free, and
the file grows only as pages are written. A commit syncs its pages, and not the page that says where
they are (LMDB's ``metasync``): a loss of power may undo the last commit, and never half of one.
``sync`` is for whoever needs to know that it stays.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from consensus import failpoints
from consensus.errors import DataDamaged, StorageError
from consensus.storage.durable import sync_directory
from kvstore.mvcc.records import Damaged, seal, unseal

MAP_SIZE_BYTES: Final = 64 * 2**30
"""Address space set aside for the database; also its largest possible size."""

FORMAT: Final = b"raftyard-kvstore-1"
"""What the ``meta`` table says under ``format``. The number grows when the layout changes."""

FORMAT_PREFIX: Final = b"raftyard-kvstore-"
FORMAT_KEY: Final = b"format"

PAGE_BYTES: Final = 4096
META_PAGES: Final = 2
TABLES: Final = (
    b"alarms",
    b"index",
    b"lease_keys",
    b"leases",
    b"long",
    b"members",
    b"meta",
    b"revisions",
)


class Backend:
    """The open database.

    Args:
        path: the database file; created where it does not exist.

    Raises:
        DataDamaged: the file is damaged, or not ours.
        StorageError: it cannot be opened, or is of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_header(path)
        try:
            self.env = lmdb.open(
                str(path),
                subdir=False,
                map_size=MAP_SIZE_BYTES,
                max_dbs=len(TABLES),
                readahead=False,
                metasync=False,
                mode=0o600,
            )
        except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
            raise Damaged("LMDB", b"", f"its beginning cannot be read: {error}") from error
        except (lmdb.Error, OSError, MemoryError) as error:
            raise StorageError(_explain_open(path, error)) from error
        try:
            self._fill_up()
            self._open_tables()
        except BaseException:
            self.env.close()
            raise

    def _fill_up(self) -> None:
        """Lengthen a file that was cut short, with nothing: a hole that LMDB finds is damage.

        Without it LMDB reads beyond the end of what it mapped, and the kernel ends the process
        (SIGBUS) before anything can be said. A few pages may be missing rightly, those that LMDB
        took and gave back in one transaction: hence no refusal here.
        """
        if self.path.stat().st_size < self.size_bytes():
            os.truncate(self.path, self.size_bytes())

    def _open_tables(self) -> None:
        with translated(self.path):
            self.txn = self.env.begin(write=True)
            fresh = self.txn.stat()["entries"] == 0
            if not fresh and self.txn.get(b"meta") is None:
                raise DataDamaged(
                    f"{self.path} is an LMDB database, but not one of kvstore, or it is damaged"
                )
            try:
                tables = {
                    name: self.env.open_db(name, txn=self.txn, create=fresh) for name in TABLES
                }
            except lmdb.NotFoundError as error:
                raise Damaged("LMDB", b"", f"a table is missing: {error}") from error
            for table in tables.values():
                # LMDB's statistics pass over a damaged root and leave a transaction that is of no
                # use, without a word; a cursor says what is wrong.
                with self.txn.cursor(db=table) as cursor:
                    cursor.first()
                    cursor.last()
        self.tables = tables
        self.alarms = tables[b"alarms"]
        self.index = tables[b"index"]
        self.lease_keys = tables[b"lease_keys"]
        self.leases = tables[b"leases"]
        self.long = tables[b"long"]
        self.members = tables[b"members"]
        self.meta = tables[b"meta"]
        self.revisions = tables[b"revisions"]
        if fresh:
            self.put_meta(FORMAT_KEY, FORMAT)
        elif (found := self.get_meta(FORMAT_KEY)) != FORMAT:
            raise _wrong_format(self.path, found)
        # The tables' handles belong to this transaction until it is committed.
        self.commit()
        if fresh:
            self.sync()
            sync_directory(self.path.parent)

    def get_meta(self, name: bytes) -> bytes | None:
        """Return what the ``meta`` table holds under ``name``.

        Raises:
            Damaged: it cannot be read, or its checksum does not match.
        """
        with translated(self.path):
            sealed = self.txn.get(name, db=self.meta)
        return None if sealed is None else unseal("meta", name, sealed)

    def put_meta(self, name: bytes, value: bytes) -> None:
        """Set what the ``meta`` table holds under ``name``."""
        self.txn.put(name, seal(name, value), db=self.meta)

    def commit(self) -> None:
        """Give everything written so far to the file, and open the next write transaction.

        A loss of power can undo it, until ``sync`` or a later commit; the process's end cannot.

        Raises:
            StorageError: the disk refused. Nothing of it is in the file; the backend is unusable.
        """
        failpoints.hit("machine.before_commit")
        with translated(self.path):
            self.txn.commit()
            self.txn = self.env.begin(write=True)
        failpoints.hit("machine.after_commit")

    def sync(self) -> None:
        """Make the last commit durable.

        Raises:
            StorageError: the disk refused. The last commit may be lost; the backend is unusable.
        """
        with translated(self.path):
            self.env.sync(True)

    def abort(self) -> None:
        """Throw away everything since the last commit, and open the next write transaction."""
        with translated(self.path):
            self.txn.abort()
            self.txn = self.env.begin(write=True)

    def size_bytes(self) -> int:
        """Bytes of the file that LMDB has ever used; it reuses free pages, but never shrinks."""
        return int(self.env.info()["last_pgno"] + 1) * PAGE_BYTES

    def size_in_use_bytes(self) -> int:
        """Bytes of the pages that hold data now, what is not committed yet included."""
        txn = self.txn
        pages = META_PAGES
        for table in (None, *self.tables.values()):
            stat = txn.stat() if table is None else txn.stat(table)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * PAGE_BYTES

    def close(self) -> None:
        """Give up what is not committed and close the file."""
        self.txn.abort()
        self.env.close()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn LMDB's errors into ours: see ``explain``."""
    try:
        yield
    except lmdb.Error as error:
        raise explain(path, error) from error


_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.CursorFullError,  # pages that lead in a circle
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
)


def explain(path: Path, error: lmdb.Error) -> StorageError:
    """Return what to raise for an error of LMDB: damage by name, anything else as it is."""
    if isinstance(error, _DAMAGE):
        return Damaged("LMDB", b"", str(error))
    if isinstance(error, lmdb.MapFullError):
        return StorageError(
            f"{path} has reached its largest size, {MAP_SIZE_BYTES >> 30} GiB. Compact the "
            "history, and lower --quota-backend-bytes so that the quota acts first"
        )
    return StorageError(
        f"{path} cannot be written or read: {error}. Check the disk's free space and the "
        "system log, then restart"
    )


def _check_header(path: Path) -> None:
    """Refuse a file whose beginning cannot be right, before LMDB maps it.

    LMDB's two meta pages have no checksums; sizes in them that cannot be would have it ask for
    more address space than there is, or for a file of exabytes.
    """
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            beginning = file.read(META_PAGES * PAGE_BYTES)
    except OSError as error:
        kind = DataDamaged if error.errno == errno.EIO else StorageError
        raise kind(f"{path} cannot be read: {error.strerror}") from error
    if beginning and not all(
        _is_meta(beginning[at : at + PAGE_BYTES]) for at in range(0, len(beginning), PAGE_BYTES)
    ):
        raise DataDamaged(f"{path} is not a kvstore database, or its beginning is damaged")


def _is_meta(page: bytes) -> bool:
    if len(page) < _META.size:
        return False
    _, magic, version, _, map_bytes, _, last_page, _ = _META.unpack_from(page)
    return (
        (magic, version) == (LMDB_MAGIC, LMDB_FORMAT)
        and map_bytes <= MAP_SIZE_BYTES
        and last_page < MAP_SIZE_BYTES // PAGE_BYTES
    )


_META: Final = struct.Struct("<16sIIQQ96sQQ")
"""Page header, magic, format, address, size of the map, two trees, last page, transaction."""

LMDB_MAGIC: Final = 0xBEEFC0DE
LMDB_FORMAT: Final = 1


def _explain_open(path: Path, error: BaseException) -> str:
    if "Cannot allocate memory" in str(error) or isinstance(error, MemoryError):
        return (
            f"{path} needs {MAP_SIZE_BYTES >> 30} GiB of address space (not of memory), which this "
            "process may not have: lift `ulimit -v` and vm.overcommit_memory=2"
        )
    return f"{path} cannot be opened: {error}. Check that it is a file of this user, and the disk"


def _wrong_format(path: Path, found: bytes | None) -> StorageError:
    if found is not None and found.startswith(FORMAT_PREFIX):
        return StorageError(
            f"{path} was written in format {found.decode(errors='replace')}; this kvstore reads "
            f"{FORMAT.decode()}. Start the newer kvstore that wrote it"
        )
    return DataDamaged(f"{path} does not say its format: it is damaged, or was never written whole")
