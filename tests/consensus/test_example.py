"""The counter example runs as it is shown: three processes, a killed leader, nothing lost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "counter.py"


def test_the_counter_example_runs_by_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    counts = re.findall(r"add\(1\) -> (\d+)   \(index (\d+), term (\d+)\)", done.stdout)
    assert [int(count) for count, _, _ in counts] == list(range(1, 11))
    assert [index for _, index, _ in counts] == [count for count, _, _ in counts]
    assert int(counts[-1][2]) > int(counts[4][2]), "the leader was replaced"
    assert "killing the leader" in done.stdout
    assert done.stdout.endswith("read() -> 10: nothing was lost\n")


def test_the_example_is_short() -> None:
    """The promise is a replicated counter in under 40 lines, processes and all."""
    assert len(EXAMPLE.read_text().splitlines()) < 40
