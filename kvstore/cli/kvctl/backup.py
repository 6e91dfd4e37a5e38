"""Backups as files: what is in one, and a data directory made from one.

A restore makes the data directory of one member of a *new* cluster (its log begins anew): run it
for each member with the same file. It is built aside and takes its name only when it is whole.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import google_crc32c

from consensus.errors import ConfigError, StorageError
from kvstore.cli.kvctl.failures import Failure
from kvstore.cli.kvctl.printers import SnapshotStatus
from kvstore.config import ServerConfig, load
from kvstore.datadir import DataDirectory
from kvstore.engines import seed_engine
from kvstore.goflags import UsageError
from kvstore.identity import identify
from kvstore.machine import DATABASE_NAME
from kvstore.mvcc.snapshot import MAGIC, load_steps
from kvstore.mvcc.store import Store
from kvstore.snapshot_file import DIGEST_BYTES, stream_pieces

BBOLT_MAGIC: Final = (0xED0CDAED).to_bytes(4, "little")
BBOLT_MAGIC_OFFSET: Final = 16
"""Where etcd's own backups carry the mark of their database, behind the first page's header."""


def status_of(path: Path) -> SnapshotStatus:
    """Return what a backup holds, verified by loading it.

    Raises:
        Failure: it is not a whole backup of kvstore; the text says what it is instead.
    """
    _refuse_foreign(path)
    crc = 0

    def counted() -> Iterator[bytes]:
        nonlocal crc
        for piece in stream_pieces(path):
            crc = int(google_crc32c.extend(crc, piece))
            yield piece

    try:
        with tempfile.TemporaryDirectory(prefix="kvctl-") as directory:
            database = Path(directory) / DATABASE_NAME
            for _ in load_steps(database, counted(), None):
                pass
            store = Store(database)
            keys = int(store.backend.txn.stat(db=store.backend.revisions)["entries"])
            revision = store.current_revision
            store.close()
    except StorageError as error:
        raise Failure(str(error)) from None
    return SnapshotStatus(crc, revision, keys, path.stat().st_size - DIGEST_BYTES)


def restore(path: Path, flags: list[str]) -> ServerConfig:
    """Make a member's data directory from a backup; returns the member's settings.

    Args:
        flags: of the member, as ``kvstore`` takes them: name, data directory, initial cluster.

    Raises:
        Failure: the backup or a flag is wrong, or the directory exists already.
    """
    _refuse_foreign(path)
    try:
        config = load(flags, {}, offline=True)
    except (ConfigError, UsageError) as error:
        raise Failure(str(error)) from None
    target = config.data_dir
    if target.exists():
        raise Failure(f'data-dir "{target}" exists: give another, or remove it if it is not needed')
    aside = target.with_name(target.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _build(aside, config, path)
        aside.rename(target)
    except (ConfigError, StorageError, OSError) as error:
        raise Failure(f"cannot restore {path} to {target}: {error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return config


def _build(directory: Path, config: ServerConfig, path: Path) -> None:
    identity = identify(config.initial_cluster, config.name, config.cluster_token)
    data = DataDirectory(directory, identity, engine=config.engine)
    try:
        seed_engine(config, identity, data.engine, _checked(path))
    finally:
        data.close()


def _checked(path: Path) -> Iterator[bytes]:
    """Yield the stream in a backup. Raises ``StorageError`` if it is not the store's."""
    first = True
    for piece in stream_pieces(path):
        if first and not piece.startswith(MAGIC):
            raise StorageError(f"{path} is not a snapshot of kvstore's store")
        first = False
        yield piece


def _refuse_foreign(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(BBOLT_MAGIC_OFFSET + len(BBOLT_MAGIC))
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from None
    if head[BBOLT_MAGIC_OFFSET:] == BBOLT_MAGIC:
        raise Failure(
            f"{path} is a backup of etcd itself (a bbolt database), which kvctl cannot read: use "
            "etcdctl or etcdutl with it. To move its keys, restore it there and copy them over"
        )
