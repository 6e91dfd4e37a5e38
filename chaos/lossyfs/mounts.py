"""What the kernel says of mounts, and taking one away whose process may be gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

UNMOUNT_TIMEOUT_S: Final = 10.0


def is_mounted(path: Path) -> bool:
    """Whether the kernel lists a mount here; ``os.path.ismount`` cannot tell of a dead one."""
    wanted = str(path.resolve()).replace(" ", "\\040")
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    return any(line.split(" ")[1] == wanted for line in mounts.splitlines())


def unmount_lazily(path: Path) -> None:
    """Take a mount away, used or not, served or not; nothing happens where there is none.

    Raises:
        OSError, subprocess.TimeoutExpired: the command is not there, or hangs.
    """
    if not is_mounted(path):
        return
    lazily = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    subprocess.run(
        [*lazily, str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=UNMOUNT_TIMEOUT_S,
        check=False,
    )
