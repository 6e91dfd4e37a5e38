"""The write-ahead log on the operating system's own files."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.sim.disk import SimDisk
from consensus.errors import StorageError
from consensus.raft.messages import EntryKind, LogEntry
from consensus.raft.ready import HardState
from consensus.storage.files import WRITE_AHEAD_BYTES, File, RealFile, RealFileSystem
from consensus.storage.records import Base, Record, crc32c
from consensus.storage.recovery import LogDamaged, Recovered
from consensus.storage.segments import BLOCK_BYTES, SLOT_OFFSETS, TERM_SLOT_OFFSETS
from consensus.storage.wal import WriteAheadLog
from tests.consensus.storage.images import MemoryFiles

SEGMENT_BYTES = 8_192
SMALL = 100


def entry(index: int, term: int = 1, size: int = SMALL) -> LogEntry:
    return LogEntry(index, term, EntryKind.COMMAND, bytes([index % 251]) * size)


def open_log(directory: Path, **settings: int) -> tuple[WriteAheadLog, Recovered]:
    files = RealFileSystem(directory)
    log = WriteAheadLog(files, **{"segment_bytes": SEGMENT_BYTES, **settings})
    return log, log.open()


def segments(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.wal"))


def filled(directory: Path, entries: int = 100) -> WriteAheadLog:
    log, _ = open_log(directory)
    for index in range(1, entries + 1):
        log.append([entry(index)])
    return log


def test_an_empty_directory_is_an_empty_log(tmp_path: Path) -> None:
    log, recovered = open_log(tmp_path)
    assert (recovered.entries, recovered.hard_state) == ([], HardState())
    log.close()
    log, recovered = open_log(tmp_path)
    assert (recovered.entries, recovered.base, recovered.torn_bytes) == ([], Base(0, 0), 0)
    log.close()


def test_what_was_appended_is_found_again(tmp_path: Path) -> None:
    log, _ = open_log(tmp_path)
    records: list[Record] = [entry(1), entry(2), HardState(3, "ann", 1)]
    log.append(records)
    log.close()
    log, recovered = open_log(tmp_path)
    assert recovered.entries == records[:2]
    assert recovered.hard_state == HardState(3, "ann", 1)
    log.close()


def test_an_entry_replaces_the_one_in_its_place_and_all_after_it(tmp_path: Path) -> None:
    log, _ = open_log(tmp_path)
    log.append([entry(1), entry(2), entry(3)])
    log.append([entry(2, term=2)])
    log.close()
    log, recovered = open_log(tmp_path)
    assert recovered.entries == [entry(1), entry(2, term=2)]
    log.close()


def test_segments_roll_and_every_one_is_preallocated(tmp_path: Path) -> None:
    log = filled(tmp_path)
    names = segments(tmp_path)
    assert len(names) > 2
    assert all((tmp_path / name).stat().st_size == SEGMENT_BYTES for name in names)
    log.close()
    log, recovered = open_log(tmp_path)
    assert [found.index for found in recovered.entries] == list(range(1, 101))
    log.close()


def test_a_batch_larger_than_a_segment_gets_one_of_its_size(tmp_path: Path) -> None:
    log = filled(tmp_path, 3)
    log.append([entry(4, size=5 * SEGMENT_BYTES)])
    log.append([entry(5)])
    log.close()
    log, recovered = open_log(tmp_path)
    assert recovered.entries[3:] == [entry(4, size=5 * SEGMENT_BYTES), entry(5)]
    log.close()


def test_segments_are_released_once_a_base_covers_them(tmp_path: Path) -> None:
    log = filled(tmp_path)
    before = segments(tmp_path)
    log.append([Base(60, 1, 60), HardState(1, None, 60)])
    log.release_before(60)
    after = segments(tmp_path)
    assert after == before[-len(after) :]
    assert 1 < len(after) < len(before)
    log.append([entry(101)])
    log.close()
    log, recovered = open_log(tmp_path)
    assert recovered.base == Base(60, 1, 60)
    assert [found.index for found in recovered.entries] == list(range(61, 102))
    log.close()


def test_an_old_base_in_the_first_segment_left_does_no_harm(tmp_path: Path) -> None:
    """It speaks of entries in a segment that a later base let go."""
    log, _ = open_log(tmp_path)
    for index in range(1, 60):
        log.append([entry(index)])
        if index % 10 == 5:  # the base lags behind, as with entries kept for slow members
            log.append([Base(max(1, index - 12), 1), HardState(1, None, index)])
            log.release_before(max(1, index - 12))
        log.close()
        log, recovered = open_log(tmp_path)
        assert recovered.last_index == index
    log.close()


def test_start_over_leaves_nothing_of_the_old_log(tmp_path: Path) -> None:
    log = filled(tmp_path)
    log.start_over(Base(500, 7, 400, b"{}"), HardState(7, "bob", 500))
    assert len(segments(tmp_path)) == 1
    log.append([entry(501, term=7)])
    log.close()
    log, recovered = open_log(tmp_path)
    assert recovered.base == Base(500, 7, 400, b"{}")
    assert recovered.hard_state == HardState(7, "bob", 500)
    assert recovered.entries == [entry(501, term=7)]
    log.close()


def test_start_over_works_on_a_log_that_cannot_be_read(tmp_path: Path) -> None:
    filled(tmp_path).close()
    first = tmp_path / segments(tmp_path)[0]
    flip(first, 5_000)
    log = WriteAheadLog(RealFileSystem(tmp_path), segment_bytes=SEGMENT_BYTES)
    with pytest.raises(LogDamaged):
        log.open()
    log.start_over(Base(200, 2), HardState(2))
    log.close()
    log, recovered = open_log(tmp_path)
    assert (recovered.base, recovered.entries) == (Base(200, 2), [])
    log.close()


# -- damage ---------------------------------------------------------------------------------------


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_damage_names_the_segment_and_the_offset(tmp_path: Path) -> None:
    filled(tmp_path).close()
    name = segments(tmp_path)[1]
    flip(tmp_path / name, 6_000)
    with pytest.raises(LogDamaged) as damaged:
        open_log(tmp_path)
    assert damaged.value.segment == name
    assert 6_000 - SMALL - 40 < damaged.value.offset <= 6_000
    assert f"log segment {name} is damaged at offset" in str(damaged.value)
    assert damaged.value.recovered.entries, "what comes before is not lost"


@pytest.mark.parametrize("page", [bytes(BLOCK_BYTES), os.urandom(BLOCK_BYTES)], ids=["lost", "bad"])
def test_a_log_whose_both_first_pages_are_damaged_is_not_taken_for_a_new_one(
    tmp_path: Path, page: bytes
) -> None:
    log, _ = open_log(tmp_path)
    log.append([Base(0, 0, 0, b"the founding members"), HardState(2)])
    log.close()
    path = tmp_path / segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[:BLOCK_BYTES] = page
    data[BLOCK_BYTES] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogDamaged):
        open_log(tmp_path)


def test_a_newest_segment_whose_both_first_pages_are_damaged_is_not_dropped(
    tmp_path: Path,
) -> None:
    """Even where nothing was written yet behind its first page of records."""
    filled(tmp_path).close()
    path = tmp_path / segments(tmp_path)[-1]
    data = path.read_bytes()
    assert len(data.rstrip(b"\0")) < 2 * BLOCK_BYTES
    path.write_bytes(os.urandom(2 * BLOCK_BYTES) + data[2 * BLOCK_BYTES :])
    with pytest.raises(LogDamaged, match="its first block does not match its checksum"):
        open_log(tmp_path)


@pytest.mark.parametrize("field", [44, *(at + 20 for at in SLOT_OFFSETS + TERM_SLOT_OFFSETS)])
def test_an_unfinished_segment_has_no_field_that_is_damaged(tmp_path: Path, field: int) -> None:
    """A field that is there to its end was not cut short by a crash."""
    filled(tmp_path).close()
    path = tmp_path / segments(tmp_path)[-1]
    size = path.stat().st_size
    path.write_bytes(bytes(size))
    open_log(tmp_path)[0].close()  # untouched: it is dropped
    assert path.name not in segments(tmp_path)
    path.write_bytes(bytes(field - 1) + b"\1" + bytes(size - field))
    with pytest.raises(LogDamaged):
        open_log(tmp_path)


def test_a_term_whose_note_was_lost_in_a_crash_is_noted_again(tmp_path: Path) -> None:
    """What is read counts from then on, so damage to it must not take the member back behind it."""
    log, _ = open_log(tmp_path)
    log.append([HardState(2), entry(1, 2)])
    path = tmp_path / segments(tmp_path)[0]
    before = path.read_bytes()[TERM_SLOT_OFFSETS[0] : BLOCK_BYTES]
    log.append([HardState(3, "me")])
    log.close()
    data = bytearray(path.read_bytes())
    data[TERM_SLOT_OFFSETS[0] : BLOCK_BYTES] = before
    path.write_bytes(data)
    log, recovered = open_log(tmp_path)
    log.close()
    assert recovered.hard_state == HardState(3, "me")
    end = len(data.rstrip(b"\0"))
    data = bytearray(path.read_bytes())
    data[end - 3] ^= 1
    path.write_bytes(data)
    log = WriteAheadLog(RealFileSystem(tmp_path), segment_bytes=SEGMENT_BYTES)
    with pytest.raises(LogDamaged) as damaged:
        log.open()
    assert log.salvage(damaged.value).hard_state.lost_term == 3
    log.close()


class BadBlock(RealFileSystem):
    """A directory in one of whose files a block cannot be read."""

    def __init__(self, directory: Path, name: str, block: int) -> None:
        super().__init__(directory)
        self._bad = name, block * BLOCK_BYTES

    def open(self, name: str) -> File:
        file = super().open(name)
        if name == self._bad[0]:
            at, read = self._bad[1], file.read

            def failing(offset: int, size: int) -> bytes:
                if offset < at + BLOCK_BYTES and offset + size > at:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return read(offset, size)

            file.read = failing  # type: ignore[method-assign]
        return file


@pytest.mark.parametrize("block", [1, 2, 3], ids=["opening", "records", "tail"])
@pytest.mark.parametrize("segment", [0, -1])
def test_a_block_that_cannot_be_read_is_damage(tmp_path: Path, segment: int, block: int) -> None:
    """So the other members bring what was there, as for a block that reads as something else."""
    size = 4 * BLOCK_BYTES
    log, _ = open_log(tmp_path, segment_bytes=size)
    for index in range(1, 150):
        log.append([entry(index)])
    log.close()
    name = segments(tmp_path)[segment]
    log = WriteAheadLog(BadBlock(tmp_path, name, block), segment_bytes=size)
    with pytest.raises(LogDamaged, match="it cannot be read") as damaged:
        log.open()
    assert damaged.value.segment == name
    log.salvage(damaged.value)
    log.close()
    log, recovered = open_log(tmp_path, segment_bytes=size)
    assert recovered.hard_state.term > 0, "it comes back in a term of which it promised nothing"
    log.close()


def test_a_first_block_that_cannot_be_read_hides_the_term(tmp_path: Path) -> None:
    filled(tmp_path).close()
    name = segments(tmp_path)[-1]
    log = WriteAheadLog(BadBlock(tmp_path, name, 0), segment_bytes=SEGMENT_BYTES)
    with pytest.raises(LogDamaged, match="it cannot be read") as damaged:
        log.open()
    with pytest.raises(LogDamaged):
        log.salvage(damaged.value)


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_segment_is_damage(tmp_path: Path, which: int) -> None:
    filled(tmp_path).close()
    (tmp_path / segments(tmp_path)[which]).unlink()
    with pytest.raises(LogDamaged, match="the segments before it are missing"):
        open_log(tmp_path)


def test_a_segment_that_ends_early_is_damage(tmp_path: Path) -> None:
    """Even where its last records read as if nothing had ever been written there."""
    filled(tmp_path).close()
    path = tmp_path / segments(tmp_path)[0]
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    path.write_bytes(data[: end - 200] + bytes(len(data) - end + 200))
    with pytest.raises(LogDamaged):
        open_log(tmp_path)


def test_a_segment_cut_short_is_damage(tmp_path: Path) -> None:
    filled(tmp_path).close()
    path = tmp_path / segments(tmp_path)[-1]
    os.truncate(path, 4_100)
    with pytest.raises(LogDamaged):
        open_log(tmp_path)


def test_nothing_is_left_open_after_damage() -> None:
    files = MemoryFiles()
    log = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES)
    log.open()
    for index in range(1, 100):
        log.append([entry(index)])
    log.close()
    files.contents["00000000000000000001.wal"][5_000] ^= 1
    with pytest.raises(LogDamaged):
        WriteAheadLog(files, segment_bytes=SEGMENT_BYTES).open()
    assert files.open_files == 0


def test_a_log_of_another_group_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    with pytest.raises(StorageError, match="belongs to group 0, not to group 7"):
        open_log(tmp_path, group_id=7)


@pytest.mark.parametrize("version", [1, 3])
def test_a_log_of_another_version_is_refused(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consensus.storage.segments.FORMAT_VERSION", version)
    filled(tmp_path, 3).close()
    monkeypatch.undo()
    said = f"format version {version}; this program reads version 2. The release that wrote it"
    with pytest.raises(StorageError, match=said):
        open_log(tmp_path)


def unknown_record() -> bytes:
    rest = (3).to_bytes(4, "little") + bytes([99]) + b"new"
    return crc32c(rest).to_bytes(4, "little") + rest


def test_a_record_of_an_unknown_kind_is_not_taken_for_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer version wrote it, and synced it."""
    log = filled(tmp_path, 3)
    monkeypatch.setattr("consensus.storage.wal.encode", lambda record: unknown_record())
    log.append([HardState(1)])
    monkeypatch.undo()
    log.append([entry(4)])
    log.close()
    with pytest.raises(LogDamaged, match="record kind 99 is unknown to this version"):
        open_log(tmp_path)


# -- a disk that fails ----------------------------------------------------------------------------


def test_a_failed_sync_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it nobody knows what is on disk: Linux may have dropped the pages (fsyncgate, 2018)."""
    log = filled(tmp_path, 3)
    syncs = []

    def fail(self: RealFile) -> None:
        syncs.append(self)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(RealFile, "sync", fail)
    with pytest.raises(StorageError, match=r"writing the log failed: .*the node must stop"):
        log.append([entry(4)])
    calls: list[Callable[[], None]] = [
        lambda: log.append([entry(4)]),
        lambda: log.release_before(2),
        lambda: log.start_over(Base(9, 1), HardState(1)),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="Input/output error"):
            call()
    assert len(syncs) == 1
    monkeypatch.undo()
    log.close()
    log, recovered = open_log(tmp_path)
    assert len(recovered.entries) in (3, 4), "synced or not, it is whole"
    log.close()


def test_a_full_disk_is_final_once_a_new_segment_is_needed() -> None:
    """What was reserved can be written; a new segment cannot be made, and that stops the node."""
    disk = SimDisk(random.Random(0), lambda: None)
    files = disk.directory()
    log = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES)
    log.open()
    disk.full = True
    log.append([entry(1)])
    with pytest.raises(StorageError, match="no space left"):
        log.append([entry(2, size=SEGMENT_BYTES)])
    disk.full = False
    with pytest.raises(StorageError, match="no space left"):
        log.append([entry(2)])
    log.close()
    recovered = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES).open()
    assert recovered.entries == [entry(1)]


def test_a_directory_that_cannot_be_read_gives_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 3).close()

    def fail(self: File, offset: int, size: int) -> bytes:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(RealFile, "read", fail)
    with pytest.raises(StorageError, match="opening the log failed"):
        open_log(tmp_path)


def test_one_sync_for_each_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none that touches a file's size, which would cost another write of metadata."""
    log = filled(tmp_path, 3)
    size = (tmp_path / segments(tmp_path)[0]).stat().st_size
    syncs = []
    real = RealFile.sync

    def count(self: RealFile) -> None:
        syncs.append(self)
        real(self)

    monkeypatch.setattr(RealFile, "sync", count)
    for index in range(4, 14):
        log.append([entry(index), HardState(1, None, index)])
    assert len(syncs) == 10
    assert (tmp_path / segments(tmp_path)[0]).stat().st_size == size
    log.close()


def test_a_log_that_was_opened_again_is_written_ahead_as_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = open_log(tmp_path, segment_bytes=SEGMENT_BYTES * 1024)
    log.append([entry(1)])
    log.close()
    log, _ = open_log(tmp_path, segment_bytes=SEGMENT_BYTES * 1024)
    ahead: list[int] = []
    pwrite = os.pwrite

    def note(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) == WRITE_AHEAD_BYTES and not any(data):
            ahead.append(offset)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", note)
    log.append([entry(2)])
    log.append([entry(3)])
    assert len(ahead) == 1
    log.close()
    assert [found.index for found in open_log(tmp_path)[1].entries] == [1, 2, 3]
