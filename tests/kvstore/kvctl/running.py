"""Running kvctl and etcdctl on the same input, and making their outputs comparable.

kvctl runs in the test's own process, so that hundreds of calls cost little; a few tests start it as
a process. Servers differ in their IDs, ports and lease IDs: those are replaced by names, in the
order of their appearance, so that equal outputs stay equal and others do not.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from unittest import mock

import attrs

from kvstore.cli.kvctl.app import run
from tests.interop import require_program


@attrs.frozen(slots=True)
class Output:
    """What a command printed, and its exit status."""

    stdout: bytes
    stderr: bytes
    status: int


PATIENCE = {"ETCDCTL_DIAL_TIMEOUT": "15s", "ETCDCTL_COMMAND_TIMEOUT": "15s"}
"""By default a loaded machine has 2 s to accept a connection and 5 s to answer."""


def clean_environment(variables: dict[str, str]) -> dict[str, str]:
    """Return this process's environment with ``variables``, and no others of etcdctl's but time."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("ETCDCTL")}
    return {**kept, **PATIENCE, **variables}


def etcdctl(
    arguments: Sequence[str], variables: dict[str, str], stdin: bytes = b"", timeout_s: float = 20
) -> Output:
    """Run the real etcdctl."""
    done = subprocess.run(
        [require_program("etcdctl"), *arguments],
        env=clean_environment(variables),
        input=stdin,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    return Output(done.stdout, done.stderr, done.returncode)


def kvctl(arguments: Sequence[str], variables: dict[str, str], stdin: bytes = b"") -> Output:
    """Run kvctl in this process."""
    out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    status = -1
    with (
        mock.patch.dict(os.environ, clean_environment(variables), clear=True),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
    ):
        try:
            run(list(arguments))
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        for stream in (out, err):
            stream.flush()
    return Output(out.buffer.getvalue(), err.buffer.getvalue(), status)  # type: ignore[attr-defined]


def start_kvctl(
    arguments: Sequence[str], variables: dict[str, str], stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start kvctl as a process, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "kvstore.cli.kvctl", *arguments],
        env=clean_environment(variables),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def last_error(stderr: bytes) -> bytes:
    """Return the line that says what went wrong, without etcdctl's logs and usage around it."""
    lines = [line for line in stderr.splitlines() if line and not line.startswith(b"{")]
    return lines[-1] if lines else b""


class Names:
    """Replaces what differs between two servers by names."""

    def __init__(self, port: int, ids: Sequence[int]) -> None:
        self._fixed = {str(port): "PORT"}
        for number, identity in enumerate(ids):
            self._fixed[str(identity)] = f"ID{number}"
            self._fixed[f"{identity:x}"] = f"ID{number}"
        self._leases: dict[str, str] = {}

    def learn_lease(self, hexadecimal: str) -> str:
        """Name a lease by the order of its granting; returns its ID."""
        name = f"LEASE{len(self._leases) // 2}"
        self._leases[hexadecimal] = name
        self._leases[str(int(hexadecimal, 16))] = name
        return hexadecimal

    def replace(self, output: bytes) -> bytes:
        """Return ``output`` with names for what differs, and times left out."""
        text = output.decode("utf-8", "surrogateescape")
        for raw, name in {**self._fixed, **self._leases}.items():
            text = re.sub(rf"(?<![0-9a-f]){raw}(?![0-9a-f])", name, text)
        text = re.sub(r"[0-9.]+(ms|µs|s)\b(?=\"|\n|$| \|)", "TIME", text)
        return text.encode("utf-8", "surrogateescape")
