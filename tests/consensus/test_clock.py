"""The wall clock, and shifting it from outside in one process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from consensus.clock import CLOCK_FILE, CLOCK_FILE_VARIABLE, SystemClock
from consensus.errors import ConfigError

FAR_MS = 3_600_000


def off_by_ms(clock: SystemClock) -> int:
    return clock.now_ms() - time.time_ns() // 1_000_000


def test_without_a_file_it_is_the_machines_clock() -> None:
    assert abs(off_by_ms(SystemClock())) < FAR_MS // 2


def test_a_file_shifts_it_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clock"
    path.write_bytes(CLOCK_FILE.pack(0, 0))
    monkeypatch.setenv(CLOCK_FILE_VARIABLE, str(path))
    clock = SystemClock()
    assert abs(off_by_ms(clock)) < FAR_MS // 2
    for shift_ms in (2 * FAR_MS, -2 * FAR_MS, 0):
        with path.open("r+b") as file:
            file.write(CLOCK_FILE.pack(shift_ms, 0))
        assert abs(off_by_ms(clock) - shift_ms) < FAR_MS // 2
        assert CLOCK_FILE.unpack(path.read_bytes()) == (shift_ms, 1)


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "clock"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(CLOCK_FILE_VARIABLE, str(path))
    with pytest.raises(ConfigError, match=f"{CLOCK_FILE_VARIABLE}: .*clock is not a file of 16"):
        SystemClock()
