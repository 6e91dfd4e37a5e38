"""Processes of a run: started, paused, ended by pid, and a clear word when they cannot start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.cluster.process import ManagedProcess, ProcessFailed
from chaos.cluster.proxyserver import ProxyServer
from tests.waiting import wait_until_sync

SLEEPER = "import time; print('awake', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ManagedProcess]:
    process = ManagedProcess("sleeper", [sys.executable, "-c", SLEEPER], tmp_path / "log")
    process.start()
    wait_until_sync(lambda: "\nawake" in process.log_tail())
    yield process
    process.kill()


def test_kill_ends_it_and_start_begins_again(sleeper: ManagedProcess) -> None:
    first = sleeper.pid
    sleeper.kill()
    assert (sleeper.running, sleeper.exit_code) == (False, -9)
    sleeper.start()
    assert sleeper.running
    assert sleeper.pid != first
    assert sleeper.starts == 2
    assert "start 2" in sleeper.log_tail()


def test_pause_stops_it_until_resume(sleeper: ManagedProcess) -> None:
    sleeper.pause()
    assert (sleeper.state(), sleeper.paused, sleeper.running) == ("T", True, True)
    sleeper.resume()
    wait_until_sync(lambda: sleeper.state() in "SR")
    assert not sleeper.paused


def test_a_paused_process_can_be_stopped(sleeper: ManagedProcess) -> None:
    sleeper.pause()
    sleeper.stop()
    assert sleeper.exit_code == -15


def test_stop_kills_what_ignores_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.cluster.process.STOP_TIMEOUT_S", 0.3)
    process = ManagedProcess("stubborn", [sys.executable, "-c", STUBBORN], tmp_path / "log")
    process.start()
    wait_until_sync(lambda: "\nawake" in process.log_tail())
    process.stop()
    assert process.exit_code == -9


def test_two_starts_are_refused(sleeper: ManagedProcess) -> None:
    with pytest.raises(ProcessFailed, match="already running"):
        sleeper.start()


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match=r"cannot start ghost: .*No such file"):
        ManagedProcess("ghost", ["/nonexistent/program"], tmp_path / "log").start()


def test_a_proxy_server_that_ends_says_why(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho the disk is on fire\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(ProcessFailed, match=r"(?s)did not start.*the disk is on fire"):
        ProxyServer(tmp_path / "log", program=str(program)).start()
