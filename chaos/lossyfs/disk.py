"""One lossy disk, as the harness uses it: mounted, commanded, and always unmounted."""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from chaos import guardian
from chaos.cluster.process import ManagedProcess, ProcessFailed
from chaos.lossyfs.mounts import unmount_lazily
from chaos.lossyfs.volatile import Forget

ATTRIBUTE: Final = "user.lossyfs"
MOUNT_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.02


@functools.cache
def why_not() -> str:
    """Why lossy disks cannot be had here; "" where they can."""
    try:
        importlib.import_module("mfusepy")
    except (ImportError, OSError) as error:
        return f"mfusepy cannot be loaded (Debian: apt-get install fuse3): {error}"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not there or not for this user"
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "fusermount3 is not on PATH (Debian: apt-get install fuse3)"
    return _try_one()


def _try_one() -> str:
    """Mount one for a moment: a container may have the device and not the right."""
    with tempfile.TemporaryDirectory(prefix="chaos-fuse-") as name:
        here = Path(name)
        disk = LossyDisk("on trial", here / "store", here / "mount", here / "log", 0)
        try:
            disk.mount()
        except ProcessFailed as error:
            last = str(error).strip().splitlines()[-1]
            return f"a FUSE file system cannot be mounted here: {last}"
        disk.unmount()
    return ""


class LossyDisk:
    """A lossy file system of a run.

    Args:
        name: for messages.
        store: where its bytes really are.
        mountpoint: made if it is not there.
        log_path: where its process's output goes.
        seed: of what crashes leave.
    """

    def __init__(self, name: str, store: Path, mountpoint: Path, log_path: Path, seed: int) -> None:
        self.mountpoint = mountpoint
        command = [sys.executable, "-m", "chaos.lossyfs", str(store), str(mountpoint)]
        self._process = ManagedProcess(f"disk {name}", [*command, "--seed", str(seed)], log_path)

    def mount(self) -> None:
        """Start the process and wait for the mount.

        Raises:
            ProcessFailed: it did not come in ``MOUNT_TIMEOUT_S`` seconds.
        """
        self.mountpoint.mkdir(parents=True, exist_ok=True)
        guardian.keep_in_mind(self.mountpoint)
        self._process.start()
        deadline = time.monotonic() + MOUNT_TIMEOUT_S
        while not os.path.ismount(self.mountpoint):
            if not self._process.running or time.monotonic() > deadline:
                self.unmount()
                raise ProcessFailed(
                    f"no lossy file system at {self.mountpoint}:\n{self._process.log_tail()}"
                )
            time.sleep(POLL_S)

    def unmount(self) -> None:
        """End the process and the mount, whatever state they are in. Safe to call twice."""
        if self._process.running and os.path.ismount(self.mountpoint):
            self.heal()
        self._process.stop()
        unmount_lazily(self.mountpoint)

    def forget(self, mode: Forget) -> int:
        """Lose what was not synced; whoever used the disk is dead. Return the changes lost."""
        before = self.counts().get("forgotten", 0)
        self.command(forget=mode.value)
        return self.counts().get("forgotten", 0) - before

    def command(self, **settings: Any) -> None:
        """Switch faults: sync_errors, read_errors (counts), full, stalled, sync_delay_ms.

        ``errors_in`` limits the first two to files whose path ("/a/b") contains it; ``unreadable``
        is a list of [path, offset]: what blocks cannot be read any more, whatever the file is
        called later.

        Raises:
            OSError: the file system is not there, or does not know this.
        """
        os.setxattr(self.mountpoint, ATTRIBUTE, json.dumps(settings).encode())

    def heal(self) -> None:
        """Switch every fault off."""
        self.command(sync_errors=0, read_errors=0, errors_in="", unreadable=[])
        self.command(full=False, stalled=False, sync_delay_ms=0)

    def counts(self) -> dict[str, int]:
        """What happened so far, by name; and how many changes are not synced (pending).

        Raises:
            OSError: the file system is not there.
        """
        found: dict[str, int] = json.loads(os.getxattr(self.mountpoint, ATTRIBUTE))
        return found
