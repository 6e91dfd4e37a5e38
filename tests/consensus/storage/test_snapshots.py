"""Snapshot files: there whole or not at all, and never taken for whole when they are not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from consensus.errors import StorageError
from consensus.raft.configuration import Configuration
from consensus.raft.messages import SnapshotMeta
from consensus.storage.files import RealFileSystem
from consensus.storage.snapshots import READ_BYTES, SnapshotStore, StoredMeta, file_name
from tests.consensus.storage.images import MemoryFiles, crash_images


def meta_at(index: int, term: int = 1) -> StoredMeta:
    return StoredMeta(SnapshotMeta(index, term, Configuration.of("abc", "d")), index - 1, 77)


def store_of(files: MemoryFiles, group_id: int = 0) -> SnapshotStore:
    store = SnapshotStore(files, group_id=group_id)
    store.open()
    return store


def write(store: SnapshotStore, meta: StoredMeta, data: bytes = b"state") -> None:
    writer = store.writer(meta)
    for offset in range(0, len(data), 1_000):
        writer.write(data[offset : offset + 1_000])
    writer.finish()


def read(store: SnapshotStore, meta: StoredMeta) -> bytes:
    return b"".join(store.chunks(meta.raft))


@pytest.mark.parametrize("size", [0, 1, 5_000, READ_BYTES, 3 * READ_BYTES + 17])
def test_a_snapshot_is_read_as_it_was_written(size: int, tmp_path: Path) -> None:
    data = random.Random(size).randbytes(size)
    files = RealFileSystem(tmp_path)
    store = SnapshotStore(files)
    store.open()
    assert store.newest() is None
    write(store, meta_at(9), data)
    again = SnapshotStore(files)
    again.open()
    assert again.newest() == meta_at(9)
    assert b"".join(again.chunks(meta_at(9).raft)) == data


def test_every_crash_leaves_the_old_newest_or_the_new_one_whole() -> None:
    files = MemoryFiles()
    store = store_of(files)
    write(store, meta_at(10), b"ten" * 500)
    mark = len(files.operations)
    write(store, meta_at(20, 2), b"twenty" * 500)
    finished = len(files.operations)
    store.remove_before(20)
    seen = set()
    for done, image in crash_images(files.operations, random.Random(3), subsets=6):
        after = MemoryFiles(image)
        again = store_of(after)
        assert not [name for name in after.names() if name.endswith(".tmp")]
        newest = again.newest()
        if done >= finished:
            assert newest == meta_at(20, 2)
        elif done >= mark:
            assert newest in (meta_at(10), meta_at(20, 2))
        if newest is not None:
            expected = {10: b"ten" * 500, 20: b"twenty" * 500}[newest.raft.index]
            assert read(again, newest) == expected
            seen.add(newest.raft.index)
    assert seen == {10, 20}


def test_no_flipped_bit_goes_unseen() -> None:
    files = MemoryFiles()
    store = store_of(files)
    write(store, meta_at(10), b"some state")
    (name,) = files.names()
    size = len(files.contents[name])
    for position in range(size):
        for bit in (0, 5):
            files.contents[name][position] ^= 1 << bit
            with pytest.raises(StorageError, match=f"snapshot {name} cannot be used"):
                read(store, meta_at(10))
            files.contents[name][position] ^= 1 << bit
    assert read(store, meta_at(10)) == b"some state"


def test_what_a_snapshot_says_of_itself_is_checked_before_it_is_believed() -> None:
    """``newest`` decides what the log continues from: a flipped bit must not move it."""
    files = MemoryFiles()
    store = store_of(files)
    write(store, meta_at(10), b"")
    (name,) = files.names()
    whole = len(files.contents[name])
    for position in range(whole - 32):
        files.contents[name][position] ^= 2
        with pytest.raises(StorageError, match=name):
            store.newest()
        files.contents[name][position] ^= 2


@pytest.mark.parametrize("size", [0, 10, 40, 100])
def test_a_snapshot_that_is_cut_short_is_refused(size: int) -> None:
    files = MemoryFiles()
    store = store_of(files)
    write(store, meta_at(10), b"some state")
    del files.contents[files.names()[0]][size:]
    with pytest.raises(StorageError, match="cannot be used"):
        read(store, meta_at(10))


def test_a_renamed_snapshot_is_refused() -> None:
    files = MemoryFiles()
    store = store_of(files)
    write(store, meta_at(10))
    files.rename(files.names()[0], file_name(meta_at(11).raft))
    with pytest.raises(StorageError, match="it is of index 10 and term 1"):
        store.newest()


def test_snapshots_of_another_group_or_a_newer_version_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = MemoryFiles()
    write(store_of(files, group_id=3), meta_at(10))
    with pytest.raises(StorageError, match="belongs to group 3, not to group 0"):
        store_of(files).newest()
    files = MemoryFiles()
    monkeypatch.setattr("consensus.storage.snapshots.FORMAT_VERSION", 2)
    write(store_of(files), meta_at(10))
    monkeypatch.undo()
    with pytest.raises(StorageError, match="format version 2; this program reads 1"):
        store_of(files).newest()


def test_a_snapshot_that_is_gone_says_so() -> None:
    with pytest.raises(StorageError, match=r"\.snap is missing"):
        read(store_of(MemoryFiles()), meta_at(10))


def test_two_of_one_index_may_be_written_at_once() -> None:
    """Two leaders may send the same one; neither may write into the other's file."""
    files = MemoryFiles()
    store = store_of(files)
    one, other = store.writer(meta_at(10)), store.writer(meta_at(10))
    for _ in range(3):
        one.write(b"1")
        other.write(b"22")
    one.finish()
    assert read(store, meta_at(10)) == b"111"
    other.write(b"2")
    other.finish()
    assert read(store, meta_at(10)) == b"2222222"


def test_a_snapshot_that_was_given_up_leaves_nothing() -> None:
    files = MemoryFiles()
    store = store_of(files)
    writer = store.writer(meta_at(10))
    writer.write(b"half")
    writer.abort()
    assert files.names() == []
    assert files.open_files == 0


def test_older_snapshots_are_removed_and_the_one_named_stays() -> None:
    files = MemoryFiles()
    store = store_of(files)
    for index in (5, 10, 15):
        write(store, meta_at(index))
    store.remove_before(10)
    assert files.names() == [file_name(meta_at(index).raft) for index in (10, 15)]
    assert store.newest() == meta_at(15)
