"""The file system that forgets: what a crash takes and leaves; the mount, and its end."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.lossyfs.disk import LossyDisk, _try_one, why_not
from chaos.lossyfs.mounts import is_mounted
from chaos.lossyfs.volatile import SECTOR_BYTES, Forget, VolatileDirectory
from tests.waiting import wait_until_sync


@pytest.fixture
def volatile(tmp_path: Path) -> VolatileDirectory:
    return VolatileDirectory(tmp_path, seed=1)


def create(volatile: VolatileDirectory, path: str, data: bytes = b"", *, sync: bool = False) -> int:
    handle = volatile.create(path, os.O_RDWR | os.O_CREAT, 0o600)
    if data:
        volatile.write(handle, data, 0)
    if sync:
        volatile.sync(handle)
    return handle


def content(volatile: VolatileDirectory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in volatile.files.iterdir()}


def test_what_was_synced_stays_and_the_rest_goes(volatile: VolatileDirectory) -> None:
    handle = create(volatile, "/a", b"synced", sync=True)
    volatile.write(handle, b"XX", 1)
    volatile.write(handle, b"more", 6)
    create(volatile, "/b", b"never")
    assert content(volatile) == {"a": b"sXXcedmore", "b": b"never"}
    assert volatile.forget(Forget.ALL) == 4
    assert content(volatile) == {"a": b"synced"}
    assert volatile.pending == 0


def test_sizes_are_forgotten_too(volatile: VolatileDirectory) -> None:
    handle = create(volatile, "/a", b"0123456789", sync=True)
    volatile.resize(handle, 4)
    volatile.resize(handle, 6)
    assert content(volatile) == {"a": b"0123\0\0"}
    volatile.forget(Forget.ALL)
    assert content(volatile) == {"a": b"0123456789"}


def test_a_file_written_after_its_name_was_taken_away(volatile: VolatileDirectory) -> None:
    handle = create(volatile, "/a", b"old", sync=True)
    volatile.remove("/a")
    volatile.write(handle, b"new", 0)
    volatile.forget(Forget.ALL)
    assert content(volatile) == {"a": b"old"}


def rename_over(volatile: VolatileDirectory) -> None:
    create(volatile, "/a", b"old", sync=True)
    create(volatile, "/a.tmp", b"new", sync=True)
    volatile.rename("/a.tmp", "/a")


def test_a_rename_needs_its_directory_synced(volatile: VolatileDirectory) -> None:
    rename_over(volatile)
    assert content(volatile) == {"a": b"new"}
    volatile.forget(Forget.ALL)
    assert content(volatile) == {"a": b"old", "a.tmp": b"new"}


def test_and_then_it_stays(volatile: VolatileDirectory) -> None:
    rename_over(volatile)
    volatile.sync_names("/")
    volatile.forget(Forget.ALL)
    assert content(volatile) == {"a": b"new"}


def test_names_in_other_directories_are_not_synced(volatile: VolatileDirectory) -> None:
    (volatile.files / "d").mkdir()
    create(volatile, "/d/a", b"x", sync=True)
    volatile.remove("/d/a")
    volatile.sync_names("/")
    volatile.forget(Forget.ALL)
    assert (volatile.files / "d" / "a").read_bytes() == b"x"


def test_a_new_file_in_place_of_a_removed_one(volatile: VolatileDirectory) -> None:
    """Syncing the new one keeps what came before it in the same journal."""
    create(volatile, "/a", b"old", sync=True)
    volatile.remove("/a")
    create(volatile, "/a", b"new", sync=True)
    volatile.forget(Forget.ALL)
    assert content(volatile) == {"a": b"new"}


def test_what_a_failed_sync_dropped_later_syncs_do_not_bring_back(
    volatile: VolatileDirectory,
) -> None:
    handle = create(volatile, "/a", b"old", sync=True)
    volatile.write(handle, b"new", 0)
    volatile.fail_sync(handle)
    volatile.sync(handle)
    volatile.write(handle, b"+", 3)
    volatile.sync(handle)
    assert content(volatile) == {"a": b"new+"}
    volatile.forget(Forget.ALL)
    assert content(volatile)["a"][:3] == b"old"


def test_torn_leaves_a_prefix_and_some_leaves_any_sectors(tmp_path: Path) -> None:
    """Over many seeds: torn is always a prefix of the writes, some is not always."""
    shapes: dict[Forget, set[bytes]] = {Forget.TORN: set(), Forget.SOME: set()}
    for mode, found in shapes.items():
        for seed in range(40):
            volatile = VolatileDirectory(tmp_path / f"{mode.value}{seed}", seed)
            handle = create(volatile, "/a", sync=True)
            for number in range(3):
                for_two_sectors = bytes([number + 1]) * (2 * SECTOR_BYTES)
                volatile.write(handle, for_two_sectors, 2 * SECTOR_BYTES * number)
            volatile.forget(mode)
            data = content(volatile)["a"]
            found.add(data[::SECTOR_BYTES])
            assert len(data) % SECTOR_BYTES == 0
            os.close(handle)
    prefixes = {b"\1\1\2\2\3\3"[:length] for length in range(7)}
    assert len(shapes[Forget.TORN]) > 3
    assert shapes[Forget.TORN] <= prefixes
    assert not shapes[Forget.SOME] <= prefixes


def test_the_seed_decides(tmp_path: Path) -> None:
    outcomes = []
    for name in ("one", "other"):
        volatile = VolatileDirectory(tmp_path / name, seed=9)
        handle = create(volatile, "/a", sync=True)
        volatile.write(handle, os.urandom(0) + bytes(range(256)) * 16, 0)
        volatile.forget(Forget.SOME)
        outcomes.append(content(volatile))
        os.close(handle)
    assert outcomes[0] == outcomes[1]


def test_too_much_that_is_not_synced_is_written_back(
    volatile: VolatileDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.lossyfs.volatile.PENDING_BYTES_MAX", 100)
    handle = create(volatile, "/a", sync=True)
    for number in range(5):
        volatile.write(handle, bytes([number + 1]) * 40, 40 * number)
    assert volatile.pending == 2
    volatile.forget(Forget.ALL)
    assert content(volatile)["a"] == b"".join(bytes([n + 1]) * 40 for n in range(3))


# -- mounted ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LossyDisk]:
    if why_not():
        pytest.skip(why_not())
    found = LossyDisk("d", tmp_path / "store", tmp_path / "mnt", tmp_path / "log", seed=1)
    found.mount()
    yield found
    found.unmount()
    assert not is_mounted(found.mountpoint)


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What serves a mount changes into the root directory; a run's ``--out`` is often relative."""
    if why_not():
        pytest.skip(why_not())
    monkeypatch.chdir(tmp_path)
    disk = LossyDisk("d", Path("here/store"), Path("here/mnt"), Path("here/log"), seed=1)
    disk.mount()
    try:
        (disk.mountpoint / "a").write_bytes(b"x")
        assert (tmp_path / "here/store/files/a").read_bytes() == b"x"
    finally:
        disk.unmount()
    assert not is_mounted(disk.mountpoint)


def failure_of(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as failed:
        call()
    return failed.value.errno


def test_a_mounted_disk(disk: LossyDisk) -> None:
    """One mount for many questions: files, maps, locks, crashes, errors."""
    path = disk.mountpoint / "wal" / "a"
    path.parent.mkdir()
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(handle, 0, 1 << 20)
    os.pwrite(handle, b"synced", 0)
    os.fsync(handle)
    os.pwrite(handle, b"UNSYNC", 0)
    with mmap.mmap(handle, 4096) as mapped:
        assert mapped[:6] == b"UNSYNC"
    assert sorted(os.listdir(path.parent)) == ["a"]
    os.close(handle)
    assert disk.forget(Forget.ALL) == 1
    assert path.read_bytes()[:6] == b"synced"
    assert path.stat().st_size == 1 << 20

    handle = os.open(path, os.O_WRONLY | os.O_DSYNC)  # as LMDB opens its database
    os.pwrite(handle, b"DSYNCD", 0)
    assert disk.forget(Forget.ALL) == 0
    assert path.read_bytes()[:6] == b"DSYNCD"

    disk.command(sync_errors=1)
    os.pwrite(handle := os.open(path, os.O_RDWR), b"!", 0)
    assert failure_of(lambda: os.fsync(handle)) == errno.EIO
    os.fsync(handle)
    disk.command(read_errors=20)  # the kernel reads ahead, and again what it could not
    reader = os.open(path, os.O_RDONLY)
    assert failure_of(lambda: os.pread(reader, 10, 500_000)) == errno.EIO
    disk.command(full=True)
    assert failure_of(lambda: os.pwrite(handle, b"x", 0)) == errno.ENOSPC
    assert failure_of((disk.mountpoint / "new").touch) == errno.ENOSPC
    disk.heal()
    os.pwrite(handle, b"x", 0)
    counts = disk.counts()
    assert (counts["sync errors"], counts["refused for space"]) == (1, 2)
    assert counts["read errors"] >= 1
    assert failure_of(lambda: disk.command(earthquake=1)) == errno.EINVAL


def test_errors_can_be_aimed(disk: LossyDisk) -> None:
    """At the syncs of some files, and at one block of one, whatever it is called later."""
    for name in ("a", "b"):
        (disk.mountpoint / name).write_bytes(b"x" * 8 * 4096)
    a, b = (os.open(disk.mountpoint / name, os.O_RDWR) for name in ("a", "b"))
    disk.command(errors_in="/b", sync_errors=1)
    os.fsync(a)
    assert failure_of(lambda: os.fsync(b)) == errno.EIO
    disk.command(unreadable=[["/a", 2 * 4096 + 7]])
    os.close(a)
    (disk.mountpoint / "a").rename(disk.mountpoint / "moved")
    moved = os.open(disk.mountpoint / "moved", os.O_RDONLY)
    assert failure_of(lambda: os.pread(moved, 10, 2 * 4096)) == errno.EIO
    assert os.pread(moved, 10, 4096) == os.pread(b, 10, 2 * 4096) == b"x" * 10
    disk.heal()
    assert os.pread(moved, 10, 2 * 4096) == b"x" * 10


def test_a_harness_that_is_killed_leaves_no_mount(tmp_path: Path) -> None:
    if why_not():
        pytest.skip(why_not())
    mountpoint = tmp_path / "mnt"
    script = (
        "import sys, time; from pathlib import Path; from chaos.lossyfs.disk import LossyDisk;"
        "here = Path(sys.argv[1]);"
        "LossyDisk('d', here / 'store', here / 'mnt', here / 'log', 1).mount();"
        "print('mounted', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE
    ) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == b"mounted\n"
        assert is_mounted(mountpoint)
        harness.send_signal(signal.SIGKILL)
        harness.wait()
    wait_until_sync(lambda: not is_mounted(mountpoint), 30.0, "the mount is gone")


def test_without_fuse_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    why_not.cache_clear()
    try:
        monkeypatch.setitem(sys.modules, "mfusepy", None)
        assert why_not().startswith("mfusepy cannot be loaded (Debian: apt-get install fuse3)")
    finally:
        why_not.cache_clear()


def test_a_device_without_the_right_to_mount_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho fuse: mount failed: Operation not permitted\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("chaos.lossyfs.disk.sys.executable", str(program))
    assert _try_one() == (
        "a FUSE file system cannot be mounted here: fuse: mount failed: Operation not permitted"
    )
