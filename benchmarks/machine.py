"""Describes the machine and the programs, so that figures can be read by someone elsewhere."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from consensus import __version__

PACKAGES: Final = ("grpcio", "hpack", "lmdb", "protobuf", "pysyncobj", "uvicorn", "uvloop")
ROOT: Final = Path(__file__).resolve().parent.parent
GO_MODULE: Final = ROOT / "benchmarks" / "go" / "go.mod"
COMMAND_TIMEOUT_S: Final = 10.0


def describe(data: Path) -> dict[str, str]:
    """Return what a reader needs to know about this machine: a name and a text each.

    Args:
        data: a directory on the disk where the servers keep their data.
    """
    return {
        "CPU": f"{os.cpu_count()} cores, {cpu_model()}",
        "memory": memory(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "data on": filesystem(data),
        "Python": python(),
        "raftyard": f"{__version__}, commit {first_line('git', 'describe', '--always', '--dirty')}",
        "packages": ", ".join(f"{name} {package_version(name)}" for name in PACKAGES),
        "etcd": first_line("etcd", "--version").removeprefix("etcd Version: "),
        "Go client": go_client_version(),
        "load average": " ".join(f"{load:.1f}" for load in os.getloadavg()) + " at the start",
    }


def cpu_model() -> str:
    """Return the processor's name."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown model"


def python() -> str:
    """Return the interpreter's version, and whether it calls itself through a shared library.

    Builds of one version differ: see decision 0018.
    """
    shared = "libpython3" in Path("/proc/self/maps").read_text()
    build = "a shared libpython" if shared else "in one piece"
    return f"{platform.python_implementation()} {platform.python_version()}, {build}"


def memory() -> str:
    """Return how much memory there is."""
    found = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return f"{int(found[1]) / 2**20:.1f} GiB" if found else "unknown"


def filesystem(path: Path) -> str:
    """Return the type of the file system that holds ``path``: a sync costs nothing in tmpfs."""
    return first_line("stat", "--file-system", "--format=%T", str(path))


def package_version(name: str) -> str:
    """Return the installed version of a Python package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def go_client_version() -> str:
    """Return the version of etcd's Go client that the load generator is built with."""
    found = re.search(r"etcd/client/v3 v(\S+)", GO_MODULE.read_text())
    return f"clientv3 {found[1]}" if found else "unknown"


def first_line(*command: str) -> str:
    """Return the first line that a program prints; "absent" if it cannot be run."""
    if shutil.which(command[0]) is None:
        return "absent"
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, cwd=ROOT, check=False
    )
    lines = done.stdout.splitlines()
    return lines[0].strip() if lines else "absent"
