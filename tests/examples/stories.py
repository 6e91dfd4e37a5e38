"""Running an example as a user does, and reading what it printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0


def run_example(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m examples.<module>`` in the project's directory."""
    return subprocess.run(
        [sys.executable, "-m", f"examples.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def tell(module: str, *arguments: str) -> str:
    """Run an example that must succeed without a word of complaint; return what it printed."""
    done = run_example(module, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout
