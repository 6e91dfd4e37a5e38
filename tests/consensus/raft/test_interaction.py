"""Golden interaction traces: what the core says and does, to the letter, in told stories."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.consensus.raft import interaction

TRACES = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_trace(path: Path, request: pytest.FixtureRequest) -> None:
    happened = interaction.run(path)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(happened)
    assert happened == path.read_text(), f"{path.name}: if this is right, run with --rewrite"


def test_there_are_traces() -> None:
    assert len(TRACES) >= 8


def test_a_trace_that_says_something_else_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text("add-nodes a,b,c\ncampaign a\n----\nok\n")
    assert interaction.run(path) != path.read_text()
