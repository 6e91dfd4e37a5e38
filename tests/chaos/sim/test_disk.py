"""The simulated disk forgets what a real one may, and nothing else."""

from __future__ import annotations

import errno
import random
from collections import Counter

import pytest

from chaos.sim.disk import CrashMode, SimDisk, SimulatedCrash

SYNCED = b"s" * 1_000
UNSYNCED = b"u" * 1_000


def crashed(mode: CrashMode, seed: int, counts: Counter[str] | None = None) -> bytes:
    """Return what is left of a file of which the second half was not synced."""
    seen = counts if counts is not None else Counter[str]()
    disk = SimDisk(random.Random(seed), count=lambda what: seen.update([what]))
    files = disk.directory()
    file = files.open("log")
    file.write(0, SYNCED)
    file.sync()
    files.sync_names()
    file.write(1_000, UNSYNCED)
    file.write(2_000, UNSYNCED)
    assert file.read(0, 3_000) == SYNCED + UNSYNCED + UNSYNCED
    disk.crash(mode)
    return files.open("log").read(0, 10_000)


@pytest.mark.parametrize("mode", CrashMode)
def test_what_was_synced_survives_every_crash(mode: CrashMode) -> None:
    for seed in range(20):
        assert crashed(mode, seed)[:1_000] == SYNCED


def test_a_crash_may_lose_everything_unsynced() -> None:
    assert crashed(CrashMode.LOSE_ALL, 1) == SYNCED


def test_a_crash_may_keep_everything_unsynced() -> None:
    assert crashed(CrashMode.KEEP_ALL, 1) == SYNCED + UNSYNCED + UNSYNCED


def test_a_crash_may_keep_a_prefix_and_tear_the_write_after_it() -> None:
    counts: Counter[str] = Counter()
    lengths = {len(crashed(CrashMode.KEEP_PREFIX, seed, counts)) for seed in range(60)}
    assert {1_000, 2_000, 3_000} <= lengths
    torn = lengths - {1_000, 2_000, 3_000}
    # Sectors end at multiples of 512 bytes of the file, whatever the write began at.
    assert torn and all(length % 512 == 0 for length in torn)
    assert counts["torn write"] > 0


def test_a_crash_may_keep_a_later_write_without_an_earlier_one() -> None:
    counts: Counter[str] = Counter()
    left = [crashed(CrashMode.KEEP_SOME, seed, counts) for seed in range(60)]
    assert any(len(data) > 2_000 and data[1_000:2_000] != UNSYNCED for data in left)
    assert counts["reordered writes"] > 0


def test_the_size_of_a_sector_is_a_setting() -> None:
    disk = SimDisk(random.Random(3), sector_bytes=64)
    files = disk.directory()
    file = files.open("log")
    file.sync()
    files.sync_names()
    file.write(0, b"u" * 640)
    disk.crash(CrashMode.KEEP_SOME)
    data = files.open("log").read(0, 640)
    pieces = {data[start : start + 64] for start in range(0, len(data), 64)}
    assert pieces == {b"u" * 64, bytes(64)}


def test_names_are_durable_only_when_the_directory_was_synced() -> None:
    disk = SimDisk(random.Random(1))
    files = disk.directory()
    file = files.open("new.tmp")
    file.write(0, b"data")
    file.sync()
    files.rename("new.tmp", "new")
    disk.crash(CrashMode.LOSE_ALL)
    assert list(files.names()) == []

    file = files.open("new.tmp")
    file.write(0, b"data")
    file.sync()
    files.rename("new.tmp", "new")
    files.sync_names()
    files.remove("new")
    disk.crash(CrashMode.LOSE_ALL)
    assert list(files.names()) == ["new"]


def test_a_failing_sync_fails_once_and_loses_what_it_had() -> None:
    """As Linux does: the page is marked clean, and the next sync says that all is well."""
    disk = SimDisk(random.Random(1))
    files = disk.directory()
    file = files.open("log")
    files.sync_names()
    file.write(0, b"lost")
    disk.fail_next_sync = True
    with pytest.raises(OSError) as failed:
        file.sync()
    assert failed.value.errno == errno.EIO
    file.sync()
    assert file.read(0, 4) == b"lost"
    disk.crash(CrashMode.LOSE_ALL)
    assert files.open("log").read(0, 4) == b""


def test_a_full_disk_refuses_to_grow_and_takes_overwrites() -> None:
    disk = SimDisk(random.Random(1))
    file = disk.directory().open("log")
    file.resize(100)
    disk.full = True
    file.write(0, b"x" * 100)
    with pytest.raises(OSError) as failed:
        file.write(50, b"x" * 100)
    assert failed.value.errno == errno.ENOSPC
    with pytest.raises(OSError):
        file.resize(200)
    assert disk.raised
    disk.full = False
    file.resize(200)


def test_after_a_crash_inside_nothing_more_reaches_the_disk() -> None:
    """Handlers that still run while the exception unwinds belong to a process that is gone."""
    left = [3]

    def operation() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise SimulatedCrash

    disk = SimDisk(random.Random(1), operation=operation)
    files = disk.directory()
    file = files.open("log")
    file.write(0, b"one")
    file.sync()
    with pytest.raises(SimulatedCrash):
        file.write(3, b"two")
    file.write(3, b"three")
    file.sync()
    files.sync_names()
    disk.crash(CrashMode.KEEP_ALL)
    assert files.open("log").read(0, 10) == b"one"


def test_bits_flip_only_where_damage_can_be_told_from_a_torn_write() -> None:
    for seed in range(50):
        disk = SimDisk(random.Random(seed))
        files = disk.directory()
        file = files.open("log")
        files.sync_names()
        file.write(0, b"a" * 300)
        file.sync()
        assert not disk.flip_bits(random.Random(seed))  # all of it is the latest batch
        file.write(300, b"b" * 300)
        file.sync()
        assert disk.flip_bits(random.Random(seed))
        data = file.read(0, 600)
        assert data[300:] == b"b" * 300
    changed = sum(_flipped(seed) for seed in range(50))
    assert changed > 40


def _flipped(seed: int) -> bool:
    disk = SimDisk(random.Random(seed))
    files = disk.directory()
    file = files.open("log")
    files.sync_names()
    for batch in range(2):
        file.write(batch * 300, b"a" * 300)
        file.sync()
    disk.flip_bits(random.Random(seed))
    disk.crash(CrashMode.LOSE_ALL)
    return files.open("log").read(0, 600) != b"a" * 600
