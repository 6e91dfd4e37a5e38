"""What is on disk after a kill, a loss of power, a full disk: always a prefix."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.lossyfs.disk import LossyDisk, why_not
from chaos.lossyfs.volatile import Forget
from kvstore.machine import COMMIT_BYTES, COMMIT_RECORDS, KVStateMachine
from tests.kvstore.mvcc.driver import Driver, keys_of
from tests.waiting import wait_until_sync


def test_a_killed_process_keeps_a_prefix(tmp_path: Path) -> None:
    """SIGKILL while it applies: what is on disk is what the log leads to, up to its position."""
    code = f"""
import sys
from pathlib import Path
from tests.kvstore.mvcc.driver import Driver
driver = Driver(Path({str(tmp_path / "machine")!r}))
for number in range(10**9):
    driver.put(b"k%d" % (number % 50), b"%d" % number)
    if number % 10 == 0:
        driver.machine.tick()
    if number == 5000:
        print("running", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"running\n"
        child.send_signal(signal.SIGKILL)
    machine = KVStateMachine(tmp_path / "machine")
    at = machine.position().index
    assert at > 5000 - 2 * COMMIT_RECORDS
    assert machine.store.current_revision == at + 1
    twin = Driver(tmp_path / "twin")
    for number in range(at):
        twin.put(b"k%d" % (number % 50), b"%d" % number)
    assert machine.state_hash() == twin.machine.state_hash()
    machine.close()
    twin.machine.close()


def test_large_values_are_committed_before_they_are_many(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "machine")
    for number in range(12):
        driver.put(b"k%d" % number, b"x" * (COMMIT_BYTES // 10))
    assert sum(driver.machine.commits.counts) == 1
    assert driver.machine.store.uncommitted == 2
    driver.machine.close()


def test_a_position_stays_whatever_comes_right_after(tmp_path: Path) -> None:
    if why_not():
        pytest.skip(why_not())
    disk = LossyDisk("m", tmp_path / "store", tmp_path / "disk", tmp_path / "log", seed=7)
    code = f"""
from pathlib import Path
from tests.kvstore.mvcc.driver import Driver
driver = Driver(Path({str(tmp_path / "disk" / "machine")!r}))
driver.put(b"a")
print(driver.machine.position().index, flush=True)
input()
"""
    disk.mount()
    try:
        for expected in (1, 2, 3):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
                assert child.stdout is not None
                assert int(child.stdout.readline()) == expected
                child.send_signal(signal.SIGKILL)
            disk.forget(Forget.ALL)
    finally:
        disk.unmount()


@pytest.mark.parametrize("mode", Forget)
def test_a_loss_of_power_keeps_a_prefix_and_every_position(tmp_path: Path, mode: Forget) -> None:
    """The disk forgets what was not synced: a commit may go, what ``position`` said does not."""
    if why_not():
        pytest.skip(why_not())
    disk = LossyDisk("m", tmp_path / "store", tmp_path / "disk", tmp_path / "log", seed=7)
    code = f"""
import sys
from pathlib import Path
from tests.kvstore.mvcc.driver import Driver
driver = Driver(Path({str(tmp_path / "disk" / "machine")!r}))
number = driver.machine.position().index
while True:
    driver.put(b"k%d" % (number % 50), b"%d" % number)
    number += 1
    if number % 7 == 0:
        driver.machine.commit()
    if number % 100 == 0:
        print(driver.machine.position().index, flush=True)
"""
    disk.mount()
    try:
        twin, at, lost = Driver(tmp_path / "twin"), 0, 0
        for _ in range(4):
            with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                said = [int(child.stdout.readline()) for _ in range(3)][-1]
                child.send_signal(signal.SIGKILL)
            lost += disk.forget(mode)
            machine = KVStateMachine(tmp_path / "disk" / "machine")
            begins, at = at, machine.position().index
            assert at >= said
            for number in range(begins, at):
                twin.put(b"k%d" % (number % 50), b"%d" % number)
            assert machine.state_hash() == twin.machine.state_hash()
            machine.close()
        twin.machine.close()
        assert lost > 0
    finally:
        disk.unmount()


def test_what_is_applied_is_seen_at_once_and_durable_after_commit(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "machine")
    driver.put(b"a")
    assert keys_of(driver.range(b"a")) == [b"a"]
    assert not driver.machine.commit_due
    wait_until_sync(lambda: driver.machine.commit_due, 5.0)
    driver.machine.tick()
    assert not driver.machine.store.dirty
    driver.put(b"b")
    driver.machine.store.abort()
    assert keys_of(driver.range(b"\0", b"\0")) == [b"a"]
    driver.machine.close()


def test_a_disk_that_takes_no_more_leaves_a_prefix(tmp_path: Path) -> None:
    """The file may not grow over 2 MiB: the error is plain, and what was committed is there."""
    code = f"""
import resource, signal
from pathlib import Path
from consensus.errors import StorageError
from tests.kvstore.mvcc.driver import Driver
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21))
driver = Driver(Path({str(tmp_path)!r}))
try:
    while True:
        driver.put(b"k%d" % driver.index, b"v" * 1000)
        if driver.index % 100 == 0:
            driver.machine.commit()
except StorageError as error:
    print(error)
at = driver.machine.position().index
driver.index = at
for _ in range(100):
    driver.put(b"k%d" % driver.index, b"v" * 1000)
try:
    driver.machine.commit()
except StorageError:
    print("again")
assert driver.machine.position().index == at
driver.machine.close()
"""
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "cannot be written" in child.stdout
    assert "again" in child.stdout
    driver = Driver(tmp_path)
    assert driver.index > 250
    assert driver.machine.store.current_revision == driver.index + 1
    assert driver.range(b"\0", b"\0", count_only=True).count == driver.index
    driver.machine.close()
