"""The matrix: which cells it has, how they are run in time, what the pages say."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.expectations import expected_reason
from chaos.matrix import runner
from chaos.matrix.cells import (
    CONTROL,
    SMOKE,
    SMOKE_ROTATING,
    MatrixCell,
    NoSuchCell,
    choose,
    controls_first,
    full,
    smoke,
)
from chaos.matrix.page import html, markdown, write_pages
from chaos.matrix.results import CellStanding, MatrixResult, Standing
from chaos.matrix.runner import MatrixOptions, run_matrix
from chaos.nemesis.packages import PACKAGES
from chaos.verdict import Verdict
from chaos.workloads.base import Workload
from chaos.workloads.registry import WORKLOADS

CELL = MatrixCell("native", "register", "kill")


def test_the_full_matrix_has_every_package_and_a_control_for_each_workload() -> None:
    cells = full(("native",))
    assert len(cells) == len(set(cells)) == len(WORKLOADS) * (1 + len(PACKAGES))
    for workload in WORKLOADS:
        assert MatrixCell("native", workload, CONTROL) in cells
    ordered = list(controls_first(cells))
    assert all(cell.package == CONTROL for cell in ordered[: len(WORKLOADS)])
    assert sorted(ordered) == sorted(cells)


def test_etcd_serves_no_machines() -> None:
    assert {MatrixCell(*names).engine for names in SMOKE} == {"native", "pysyncobj"}
    for cell in full(("etcd",)):
        assert cell.target().engine == "etcd"


def test_the_smoke_matrix_is_fixed_cells_and_others_that_rotate_with_the_commit() -> None:
    known = set(full())
    fixed = [MatrixCell(*names) for names in SMOKE]
    assert len(fixed) == len(set(fixed)) == 17
    assert set(fixed) <= known
    one, other = smoke("aaaa"), smoke("bbbb")
    assert one == smoke("aaaa")
    assert one[:17] == other[:17] == fixed
    assert one[17:] != other[17:]
    assert len(set(one)) == 17 + SMOKE_ROTATING
    assert set(one) <= known
    controls = {(cell.engine, cell.workload) for cell in fixed if cell.package == CONTROL}
    assert {engine for engine, _ in controls} == {"native", "pysyncobj"}


def test_names_that_are_not_known_are_refused_with_those_that_are() -> None:
    assert choose("an engine", "all", ["a", "b"]) == ["a", "b"]
    assert choose("an engine", "b, a", ["a", "b"]) == ["b", "a"]
    with pytest.raises(NoSuchCell, match="'c' is not an engine; there are a, b, or all"):
        choose("an engine", "a,c", ["a", "b"])
    result = CliRunner().invoke(main, ["matrix", "--packages", "earthquake"])
    assert result.exit_code == 2
    assert "'earthquake' is not a package of faults" in result.output
    result = CliRunner().invoke(main, ["matrix", "--rotate", "abc"])
    assert result.exit_code == 2
    assert "--rotate goes with --smoke" in result.output


@pytest.mark.parametrize(
    ("standings", "needed", "verdict"),
    [
        (["ok", "ok"], 1, Verdict.OK),
        (["ok", "expected", "absent"], 2, Verdict.OK),
        (["ok", "violated", "invalid"], 1, Verdict.VIOLATED),
        (["ok", "invalid"], 1, Verdict.INVALID),
        (["ok", "unknown"], 1, Verdict.INVALID),
        (["ok", "ok"], 3, Verdict.INVALID),
        (["absent"], 1, Verdict.INVALID),
        ([], 1, Verdict.INVALID),
    ],
)
def test_one_verdict_for_all(standings: list[str], needed: int, verdict: Verdict) -> None:
    cells = [CellStanding(CELL, Standing(standing)) for standing in standings]
    assert MatrixResult(cells, needed=needed).verdict is verdict


def test_only_what_is_declared_is_expected() -> None:
    assert "power loss" in expected_reason("pysyncobj", "", {})
    assert expected_reason("pysyncobj", "", {"stale read": 1}) == ""
    assert expected_reason("native", "it must", {"stale read": 1}) == "it must"


class Script:
    """Cells that end as they are told to, without a cluster."""

    def __init__(self, *standings: str, seconds: float = 0.0) -> None:
        self.standings = list(standings)
        self.seconds = seconds
        self.attempts: list[int] = []

    async def run(
        self, cell: MatrixCell, options: MatrixOptions, watcher: object, attempt: int
    ) -> CellStanding:
        await asyncio.sleep(0)
        self.attempts.append(attempt)
        standing = Standing(self.standings.pop(0))
        return CellStanding(cell, standing, attempts=attempt, seconds=self.seconds)


async def matrix_of(script: Script, options: MatrixOptions, cells: int) -> MatrixResult:
    chosen = [MatrixCell("native", "register", str(number)) for number in range(cells)]
    return await run_matrix(chosen, options, lambda _cell, _text: None, lambda _standing: None)


@pytest.mark.parametrize("first", ["invalid", "unknown"])
async def test_a_cell_that_proved_nothing_is_run_once_more(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(first, "ok", "violated", first, first)
    monkeypatch.setattr(runner, "_run", script.run)
    result = await matrix_of(script, MatrixOptions(tmp_path, 1, 1, jobs=1), 3)
    assert [cell.standing.value for cell in result.cells] == ["ok", "violated", first]
    assert script.attempts == [1, 2, 1, 1, 2], "a violation is never tried again"


async def test_no_cell_is_begun_that_would_end_after_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script("ok", "ok", seconds=1000.0)
    monkeypatch.setattr(runner, "_run", script.run)
    options = MatrixOptions(tmp_path, 1, 1, jobs=1, time_limit_s=500.0, needed=2)
    result = await matrix_of(script, options, 2)
    assert (result.run, len(result.not_begun)) == (1, 1)
    assert result.verdict is Verdict.INVALID, "too few cells prove nothing"


async def test_a_matrix_goes_on_with_what_it_has_not_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Script("ok", "invalid", "invalid")
    monkeypatch.setattr(runner, "_run", first.run)
    before = await matrix_of(first, MatrixOptions(tmp_path, 1, 1, jobs=1), 2)
    read_back = [CellStanding.from_json(cell) for cell in before.as_json()["cells"]]
    assert read_back == before.cells
    second = Script("violated", "ok")
    monkeypatch.setattr(runner, "_run", second.run)
    cells = [MatrixCell("native", "register", str(number)) for number in range(3)]
    result = await run_matrix(
        cells,
        MatrixOptions(tmp_path, 1, 1, jobs=1),
        lambda _cell, _text: None,
        lambda _standing: None,
        MatrixResult(read_back),
    )
    assert [cell.standing.value for cell in result.cells] == ["ok", "violated", "ok"]
    for words in (["--resume"], ["--resume", "--out", str(tmp_path / "nowhere")]):
        refused = CliRunner().invoke(main, ["matrix", *words])
        assert refused.exit_code == 2
        assert "--resume" in refused.output


WORDS = ["matrix", "--workloads", "register", "--jobs", "1"]


def test_a_matrix_that_is_interrupted_is_kept_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three cells are over when Ctrl-C comes; their results are on disk, and stay."""
    first = Script("ok", "ok")

    async def interrupted(*arguments: Any) -> CellStanding:
        if not first.standings:
            raise KeyboardInterrupt
        return await first.run(*arguments)

    monkeypatch.setattr(runner, "_run", interrupted)
    out = tmp_path / "out"
    words = [*WORDS, "--packages", "kill,pause", "--out", str(out)]
    result = CliRunner().invoke(main, [*words, "--seed", "77"])
    assert result.exit_code == 2
    assert f"interrupted; the same command with --resume --out {out} goes on" in result.output
    kept = json.loads((out / "matrix.json").read_text())
    assert [cell["package"] for cell in kept["cells"]] == [CONTROL, "kill"]
    assert (kept["under_way"], kept["verdict"]) == (True, "unknown")
    assert kept["not_begun"] == ["native/register/pause"]
    for page in ("matrix.html", "matrix.md"):
        assert "1 cells are not over" in (out / page).read_text()

    second = Script("ok")
    monkeypatch.setattr(runner, "_run", second.run)
    result = CliRunner().invoke(main, [*words, "--resume"])
    assert result.exit_code == 0, result.output
    whole = json.loads((out / "matrix.json").read_text())
    assert [cell["package"] for cell in whole["cells"]] == [CONTROL, "kill", "pause"]
    assert (whole["under_way"], whole["verdict"], whole["not_begun"]) == (False, "ok", [])
    assert whole["about"]["seed"] == "77", "nobody named another"
    assert sorted(path.name for path in out.iterdir()) == [
        "matrix.html",
        "matrix.json",
        "matrix.md",
    ]


def test_a_matrix_grows_by_other_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script("ok", "violated", "unknown", "unknown", "ok")
    monkeypatch.setattr(runner, "_run", script.run)
    out = ["--out", str(tmp_path / "out")]
    CliRunner().invoke(main, [*WORDS, "--packages", "kill,storm", *out])
    result = CliRunner().invoke(main, [*WORDS, "--packages", "pause", *out, "--resume", "--json"])
    assert result.exit_code == 1, "what was violated before is not forgotten"
    cells = json.loads(result.stdout)["cells"]
    assert {cell["package"]: cell["standing"] for cell in cells} == {
        CONTROL: "ok",
        "kill": "violated",
        "storm": "unknown",
        "pause": "ok",
    }


def test_nothing_is_proved_while_it_is_under_way() -> None:
    ok = MatrixResult([CellStanding(CELL, Standing.OK)], under_way=True)
    assert ok.verdict is Verdict.UNKNOWN
    bad = MatrixResult([CellStanding(CELL, Standing.VIOLATED)], under_way=True)
    assert bad.verdict is Verdict.VIOLATED


def test_the_pages_say_what_is_not_ok_and_how_to_run_it_again(tmp_path: Path) -> None:
    ok = CellStanding(CELL, Standing.OK, operations={"ok": 1234, "fail": 0, "info": 1})
    bad = CellStanding(
        attrs.evolve(CELL, package="partition"),
        Standing.VIOLATED,
        "<stale> read × 1",
        operations={"ok": 10, "fail": 0, "info": 0},
        report="native/register/partition/report.html",
        replay="chaos matrix --engines native",
    )
    absent = CellStanding(attrs.evolve(CELL, engine="etcd"), Standing.ABSENT, "etcd is not on PATH")
    result = MatrixResult([ok, bad, absent], [CELL], 12.3)
    text = markdown(result)
    assert "| kill | ok 1,234 |" in text
    assert "| partition | **violated** 10 |" in text
    assert "`chaos matrix --engines native`" in text
    assert "1 cells were not begun" in text
    shown = html(result)
    assert 'href="native/register/partition/report.html"' in shown
    assert "&lt;stale&gt; read" in shown
    assert "<stale>" not in shown
    assert write_pages(result, tmp_path).read_text(encoding="utf-8") == shown


def test_unsafe_workloads_say_why() -> None:
    unsafe: list[type[Workload[object]]] = [kind for kind in WORKLOADS.values() if kind.unsafe]
    assert all(len(kind.unsafe.split()) > 3 for kind in unsafe)


@pytest.mark.xdist_group("chaos-clusters")
def test_a_matrix_of_real_cells(tmp_path: Path) -> None:
    words = ["matrix", "--engines", "native", "--workloads", "register", "--controls"]
    words += ["--seconds", "2", "--seed", "3", "--out", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(main, words)
    document = json.loads(result.output)
    assert document["verdict"] == "ok", document
    assert result.exit_code == 0
    (cell,) = document["cells"]
    assert cell["standing"] == "ok"
    assert cell["operations"]["ok"] > 10
    assert (tmp_path / "out" / cell["report"]).exists()
    assert (tmp_path / "out" / "matrix.html").exists()
    assert json.loads((tmp_path / "out" / "matrix.json").read_text())["verdict"] == "ok"


async def test_a_worker_that_dies_is_an_invalid_cell_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "WORKER", ("-c", "raise SystemExit('out of luck')"))
    options = MatrixOptions(tmp_path, 1, 1, jobs=1)
    result = await run_matrix([CELL], options, lambda _cell, _text: None, lambda _standing: None)
    assert result.cells[0].standing is Standing.INVALID
    assert "out of luck" in result.cells[0].reason
    assert result.cells[0].attempts == 2
