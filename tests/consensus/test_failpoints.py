"""Failpoints: what arms them, when they strike, what they do; and that every point is visited."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consensus import failpoints
from consensus.errors import ConfigError, StorageError
from consensus.raft.messages import EntryKind, LogEntry
from consensus.storage.files import RealFileSystem
from consensus.storage.wal import WriteAheadLog

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_nothing_happens_at_a_point_that_is_not_armed() -> None:
    failpoints.arm("wal.before_sync=error")
    failpoints.hit("wal.after_sync")


def test_an_error_strikes_once_at_its_visit() -> None:
    failpoints.arm("wal.before_sync=error@2")
    failpoints.hit("wal.before_sync")
    with pytest.raises(OSError, match=r"failpoint wal\.before_sync"):
        failpoints.hit("wal.before_sync")
    failpoints.hit("wal.before_sync")


def test_and_later_ones_with_a_plus() -> None:
    failpoints.arm(" wal.before_sync=error@2+ , send.before=delay:1")
    failpoints.hit("wal.before_sync")
    for _ in range(3):
        with pytest.raises(OSError, match="failpoint"):
            failpoints.hit("wal.before_sync")


def test_a_delay_holds_the_process() -> None:
    failpoints.arm("apply.before=delay:50")
    began = time.monotonic()
    failpoints.hit("apply.before")
    assert time.monotonic() - began >= 0.05


def test_a_crash_ends_the_process_without_a_word(tmp_path: Path) -> None:
    code = (
        "from consensus import failpoints; failpoints.arm_from_environment(); import atexit;"
        "atexit.register(print, 'unwound'); failpoints.hit('apply.after');"
        "print('alive', flush=True); failpoints.hit('apply.after'); print('still')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"RAFTYARD_FAILPOINTS": "apply.after=crash@2", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == failpoints.EXIT_CODE
    assert done.stdout == "alive\n"
    assert done.stderr == "failpoint apply.after: crash\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wal.before_sync", "is not POINT=ACTION"),
        ("wal.before_sync=explode", "is not POINT=ACTION"),
        ("wal.before_synk=crash", "there are wal.before_write"),
        ("send.before=error", "only points of wal and snapshot can fail"),
        ("send.before=delay", "delay, and only it, has milliseconds"),
        ("send.before=crash:5", "delay, and only it, has milliseconds"),
        ("send.before=delay:60001", "at most 60000"),
        ("send.before=crash@0", "counted from 1"),
    ],
)
def test_nonsense_is_refused_and_disarms_nothing(text: str, says: str) -> None:
    failpoints.arm("wal.before_sync=error")
    with pytest.raises(ConfigError) as refused:
        failpoints.arm(text)
    assert says in str(refused.value)
    with pytest.raises(OSError, match="failpoint"):
        failpoints.hit("wal.before_sync")


def test_a_disk_error_stops_the_log_for_good(tmp_path: Path) -> None:
    log = WriteAheadLog(RealFileSystem(tmp_path), segment_bytes=64 * 1024)
    log.open()
    entry = LogEntry(1, 1, EntryKind.COMMAND, b"x")
    failpoints.arm("wal.before_sync=error")
    for _ in range(2):
        with pytest.raises(StorageError, match="the node must stop"):
            log.append([entry])
    log.close()


def test_every_point_is_somewhere_in_the_product() -> None:
    sources = [
        path.read_text()
        for package in ("consensus", "kvstore")
        for path in (REPOSITORY / package).rglob("*.py")
    ]
    for point in failpoints.POINTS:
        assert any(f'failpoints.hit("{point}")' in source for source in sources), point
