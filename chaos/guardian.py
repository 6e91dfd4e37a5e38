"""A process that outlives this one for a moment, and ends what it left behind.

A harness that is killed (SIGKILL, out of memory) can clean up nothing itself. So a guardian is
started before anything else: it holds the reading end of a pipe, and the kernel closes the writing
end when the harness is gone, however it went. Everything that is started later inherits a variable
with a random token that no other run has, through any number of generations, so nothing has to be
registered and nothing can be missed. The guardian then kills whoever has the token until nobody
has, and takes away the mounts that it was told of.

The kernel's own means, PR_SET_PDEATHSIG, is bound to the *thread* that starts a child: here those
are threads of a pool, which end before the harness does.

A guardian does not have the token of the harness around its own (a cell's process in a matrix): so
it survives long enough to take away that cell's mounts.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from chaos.lossyfs.mounts import unmount_lazily

VARIABLE: Final = "RAFTYARD_CHAOS_RUN"
"""Environment variable with the tokens of all harnesses around a process, joined by ":"."""

SCAN_EVERY_S: Final = 0.05
SCANS_EMPTY: Final = 3
"""So many scans in a row must find nobody: one that is just being started shows itself late."""

ENDING_TIMEOUT_S: Final = 10.0
DISMISSED: Final = b"dismissed"

_lock = threading.Lock()
_pipe: int | None = None
_owner = 0


def engage() -> None:
    """From now on, what this process starts ends with it. Any thread may call, any number of times.

    Raises:
        OSError: the guardian cannot be started.
    """
    global _pipe, _owner
    with _lock:
        if _pipe is not None and _owner == os.getpid():
            return
        token = secrets.token_hex(16)
        around = os.environ.get(VARIABLE, "")
        reading, writing = os.pipe()
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "chaos.guardian", token],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).parents[1],
                env=environment,
                start_new_session=True,
            )
        except OSError:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        os.environ[VARIABLE] = f"{around}:{token}" if around else token
        _pipe, _owner = writing, os.getpid()
        atexit.register(_dismiss, process, writing, _owner)


def keep_in_mind(mountpoint: Path) -> None:
    """A mount that is to go away with this process. Call it before mounting.

    Raises:
        OSError: the guardian cannot be started, or is gone.
    """
    engage()
    assert _pipe is not None
    os.write(_pipe, os.fsencode(mountpoint.resolve()) + b"\n")


def _dismiss(process: subprocess.Popen[bytes], pipe: int, owner: int) -> None:
    """At an end in good order nothing is left to clean up: let the guardian go, and wait for it."""
    if os.getpid() != owner:
        return  # a fork of it, which owns nothing
    with contextlib.suppress(OSError):
        os.write(pipe, DISMISSED + b"\n")
    os.close(pipe)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(ENDING_TIMEOUT_S)


def bearers(token: str) -> list[int]:
    """The pids of all running processes that inherited a token."""
    own = os.getpid()
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    return [pid for pid in pids if pid != own and _bears(pid, token)]


def _bears(pid: int, token: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    prefix = f"{VARIABLE}=".encode()
    return any(one.startswith(prefix) and token.encode() in one for one in environment.split(b"\0"))


def _kill(pid: int, token: str) -> None:
    """Kill a process, and certainly none that got its number in the meantime."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if _bears(pid, token):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _end_all(token: str) -> None:
    deadline = time.monotonic() + ENDING_TIMEOUT_S
    empty = 0
    while empty < SCANS_EMPTY and time.monotonic() < deadline:
        pids = bearers(token)
        for pid in pids:
            _kill(pid, token)
        empty = 0 if pids else empty + 1
        time.sleep(SCAN_EVERY_S)


def main() -> None:
    """The guardian: wait for the end of standard input, then clean up."""
    token = sys.argv[1]
    told = sys.stdin.buffer.read().splitlines()
    if DISMISSED in told:
        return
    _end_all(token)
    for line in told:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            unmount_lazily(Path(os.fsdecode(line)))


if __name__ == "__main__":
    main()
