"""One process of a run: output in a file, ended by its pid, every wait bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from chaos import guardian

STOP_TIMEOUT_S: Final = 5.0
LOG_TAIL_BYTES: Final = 2000


class ProcessFailed(Exception):
    """A process did not start, or ended when it should not have; the text ends with its log."""


class ManagedProcess:
    """A child process that this run started (it touches no other). It ends with this process, too.

    Args:
        name: for messages.
        command: program and arguments.
        log_path: standard output and error are appended here.
        environment: added to this process's own environment.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log_path = log_path
        self.starts = 0
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def pid(self) -> int:
        """The pid of the current or last process; 0 before the first start."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """True while the process exists, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code (negative: the signal that ended it), None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def paused(self) -> bool:
        """True between ``pause`` and ``resume``."""
        return self._paused

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the process, in its own session so that a Ctrl-C here does not reach it.

        Args:
            environment: added for this one start.

        Raises:
            ProcessFailed: it runs already, or the program cannot be executed.
        """
        if self.running:
            raise ProcessFailed(f"{self.name} is already running (pid {self.pid})")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            log.write(f"--- start {self.starts + 1}: {' '.join(self.command)}\n".encode())
            log.flush()
            try:
                guardian.engage()
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self._environment, **(environment or {})},
                    start_new_session=True,
                )
            except OSError as error:
                raise ProcessFailed(f"cannot start {self.name}: {error}") from error
        self.starts += 1
        self._paused = False

    def kill(self) -> None:
        """End it with SIGKILL and wait until it is gone."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(timeout=STOP_TIMEOUT_S)
            self._paused = False

    def pause(self) -> None:
        """Stop it with SIGSTOP and wait until the kernel says that it is stopped."""
        self._signal(signal.SIGSTOP)
        self._paused = True
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.state() != "T":
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name} (pid {self.pid}) did not stop on SIGSTOP")
            time.sleep(0.001)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)
        self._paused = False

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL after ``STOP_TIMEOUT_S`` seconds."""
        if self._process is None or not self.running:
            return
        if self._paused:
            self.resume()
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def state(self) -> str:
        """The kernel's one-letter state (R, S, T, Z ...), "" once it is gone."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return ""
        return text.rpartition(")")[2].split()[0]

    def log_tail(self) -> str:
        """The end of its log, for messages."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)
