"""A sample of damage to one member of a running cluster; ``damage_rounds`` does every cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.lossyfs.disk import why_not
from tests.kvstore.damage.cells import CELLS, Cell
from tests.kvstore.damage.world import SNAPSHOT_COUNT, problem_in
from tests.kvstore.damage_rounds import markdown_of, rounds_of_damage, table_of

pytestmark = pytest.mark.xdist_group("durability")

SAMPLE = (Cell("log", "bit flip", "while down"),)


async def test_a_sample_of_damage_under_load(tmp_path: Path) -> None:
    if why_not():
        pytest.skip(why_not())
    assert set(SAMPLE) <= set(CELLS)
    outcomes = await rounds_of_damage(tmp_path, 1, seed=7, cells=SAMPLE, still_puts=SNAPSHOT_COUNT)
    assert [each.problems for each in outcomes] == [[]], outcomes
    assert [each.cell for each in outcomes] == [str(cell) for cell in SAMPLE]
    assert all(each.word and each.answers for each in outcomes), outcomes
    assert len(table_of(outcomes).rows) == len(SAMPLE)
    assert "| log | bit flip | while down | 1 times |" in markdown_of(outcomes)
    assert "Traceback" not in (tmp_path / "round1" / "kvstore0.log").read_text()


@pytest.mark.parametrize(
    ("line", "tells"),
    [
        ('{"level": "error", "msg": "halted", "reason": "log segment 1 is damaged"}', True),
        ("kvstore: opening the log failed: [Errno 5] Input/output error", True),
        ('{"level": "info", "msg": "nothing is damaged"}', False),
        ('{"level": "warning", "msg": "lost the leader", "term": 3}', False),
    ],
)
def test_which_words_count(line: str, tells: bool) -> None:
    assert bool(problem_in(line)) == tells
