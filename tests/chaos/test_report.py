"""The page of a run: what is on it, its bounds, and how it looks to a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from chaos.checkers.pipeline import check_history
from chaos.cli import main
from chaos.history.format import FaultEvent, History, Operation, Outcome, StatusEvent, WatchEvent
from chaos.report import timeline
from chaos.report.explain import first_violation
from chaos.report.page import page
from chaos.report.timeline import assign_lanes, choose_shown, curves, fault_bands, role_spans
from chaos.verdict import Kind
from tests.chaos.browser import Page, chromium
from tests.chaos.test_cli import write_history
from tests.interop import require_program

MS = 1_000_000


def put(number: int, process: int, start: int, end: int | None, revision: int = 0) -> Operation:
    return Operation(
        id=number,
        process=process,
        f="put",
        key="a",
        start=start * MS,
        value=f"v{number}",
        end=None if end is None else end * MS,
        outcome=Outcome.UNKNOWN if end is None else Outcome.OK,
        revision=revision,
    )


def load(number: int) -> History:
    """Five clients, a put each millisecond in turn, and one stale read near the end."""
    history = History(header={"target": "kvstore", "faults": ["kill"], "replay": "chaos run"})
    for i in range(number):
        history.operations.append(put(i, i % 5, 10 + i, 13 + i, revision=2 + i))
    history.watches["n1"] = [WatchEvent(2 + i, "a", f"v{i}") for i in range(number)]
    seen = number // 2
    stale = Operation(
        id=number,
        process=9,
        f="get",
        key="a",
        start=(number + 20) * MS,
        end=(number + 21) * MS,
        outcome=Outcome.OK,
        revision=2 + seen,
        seen=f"v{seen}",
        seen_revision=2 + seen,
    )
    history.operations.append(stale)
    history.statuses = [StatusEvent(0, "n1", "leader", 3), StatusEvent(5 * MS, "n2", "follower", 3)]
    history.faults = [
        FaultEvent(20 * MS, "proc.kill", "start", ("n1",)),
        FaultEvent(900 * MS, "proc.kill", "end", ("n1",)),
    ]
    return history


def data_of(html: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found is not None
    data: dict[str, object] = json.loads(found.group(1))
    return data


def test_the_page_has_verdict_violation_and_command(tmp_path: Path) -> None:
    path = write_history(tmp_path / "run" / "history.jsonl", "0-0")
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert (result.exit_code, result.output.strip()) == (0, str(path.with_name("report.html")))
    html = path.with_name("report.html").read_text(encoding="utf-8")
    assert "<strong>violated</strong> a promise was broken" in html
    assert 'href="#violation"' in html
    assert "First violation: stale read" in html
    assert f"chaos check {path}" in html
    assert not re.search(r'(src|href)="(?!#)', html), "a page needs no other file"
    assert "url(" not in html


def test_report_says_what_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "no history.jsonl in" in result.output
    (tmp_path / "history.jsonl").write_text("nonsense\n")
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert "not a history line" in result.output


def test_what_was_written_cannot_become_markup() -> None:
    history = load(20)
    history.operations[3].value = "</script><img src=x>"
    history.operations[3].error = "<b>"
    html = page(history, check_history(history), "<i>.jsonl")
    assert "<img" not in html
    assert "<i>" not in html
    assert "</script><img src=x>" in str(data_of(html)["operations"])


def test_the_first_violation_is_the_one_completed_first_and_has_its_context() -> None:
    history = load(50)
    late = attrs.evolve(history.operations[-1], id=999, process=11)
    late.start, late.end = late.start + 100 * MS, (late.end or 0) + 100 * MS
    history.operations.append(late)
    found = first_violation(history, check_history(history))
    assert found is not None
    assert found.finding.kind is Kind.STALE_READ
    assert 50 in found.accused
    assert 999 not in found.accused
    assert 25 in {operation.id for operation in found.operations}, "the write that was seen"
    assert [row.revision for row in found.rows] == [25, 26, 27, 28, 29]
    assert found.window is not None
    assert found.window.begin < history.operations[25].start < found.window.end


def test_members_that_disagree_are_set_side_by_side() -> None:
    history = load(20)
    history.operations.pop()
    log = history.watches["n1"]
    history.watches["n2"] = [*log[:10], WatchEvent(12, "a", "other"), *log[11:]]
    found = first_violation(history, check_history(history))
    assert found is not None
    assert [row.differs for row in found.rows] == [False, False, True, False, False]


def test_lanes_are_left_to_the_next_process() -> None:
    operations = [put(1, 0, 0, 5), put(2, 1, 1, 4), put(3, 0, 6, None), put(4, 2, 7, 9)]
    assert assign_lanes(operations) == {0: 0, 1: 1, 2: 0}


def test_operations_beyond_the_bound_are_thinned_and_the_page_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = load(1000)
    monkeypatch.setattr(timeline, "OPERATIONS_SHOWN_MAX", 100)
    focus = timeline.Window(500 * MS, 520 * MS)
    shown = choose_shown(history.operations, focus)
    assert len(shown) <= 100
    inside = [op for op in history.operations if focus.begin <= op.start <= focus.end]
    assert [op for op in shown if focus.begin <= op.start <= focus.end] == inside
    html = page(history, check_history(history), "x")
    assert 'id="bound"' in html
    assert "of 1,001 operations are" in html


def test_curves_count_every_operation() -> None:
    history = load(1000)
    history.operations[5].outcome = Outcome.FAIL
    found = curves(history.operations, timeline.whole(history))
    for outcome, number in enumerate((1000, 1, 0)):
        counted = sum(found["per_second"][outcome]) * found["width"] / 1e6
        assert round(counted) == number
    assert set(found["median"]) <= {3.0, 1.0, None}


def test_faults_that_overlap_have_rows_of_their_own() -> None:
    def event(t: int, kind: str, phase: str) -> FaultEvent:
        return FaultEvent(t * MS, kind, phase, ("n1",), "seen" if phase == "effect" else "")

    faults = [
        *(event(1, "a", "start"), event(2, "b", "start"), event(3, "a", "effect")),
        *(event(4, "a", "end"), event(5, "c", "start"), event(6, "b", "end")),
    ]
    bands = fault_bands(faults, timeline.Window(0, 10 * MS))
    assert [(band["kind"], band["row"], band["start"], band["end"]) for band in bands] == [
        ("a", 0, 1000, 4000),
        ("b", 1, 2000, 6000),
        ("c", 0, 5000, 10000),
    ]
    assert bands[0]["evidence"] == "seen"


def test_roles_last_until_the_next() -> None:
    statuses = [
        StatusEvent(0, "n1", "follower", 1),
        StatusEvent(4 * MS, "n1", "leader", 2),
        StatusEvent(1 * MS, "n2", "silent"),
    ]
    assert role_spans(statuses, timeline.Window(0, 9 * MS)) == [
        {"name": "n1", "spans": [[0, 4000, "follower", 1], [4000, 9000, "leader", 2]]},
        {"name": "n2", "spans": [[1000, 9000, "silent", 0]]},
    ]


def colours_of(browser: Page) -> str:
    found: str = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    return found


@pytest.mark.interop
def test_a_violation_is_one_click_away_in_a_real_browser(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    program = require_program("chromium")
    history = load(50_000)
    path = tmp_path / "report.html"
    path.write_text(page(history, check_history(history), "history.jsonl"), encoding="utf-8")
    with chromium(program, tmp_path) as browser:
        browser.prefer("light")
        browser.open(path)
        assert browser.evaluate("document.body.dataset.focus") is None
        browser.click("#to-violation")
        browser.wait_for("document.body.dataset.focus === 'violation'")
        browser.wait_for(
            "(() => { const box = document.getElementById('violation').getBoundingClientRect();"
            " return box.top >= 0 && box.top < innerHeight / 2; })()"
        )
        assert browser.evaluate("document.querySelectorAll('#violation .accused').length") == 2
        begin, end = (int(browser.evaluate(f"document.body.dataset.{x}")) for x in ("from", "to"))
        assert begin < 50_000_000 < end, "the timeline shows where it happened"
        light = colours_of(browser)
        browser.prefer("dark")
        assert colours_of(browser) != light
        assert browser.problems() == []
        assert browser.requests() == [path.as_uri()]
    record_property("counted", f"a page of 50,000 operations has {path.stat().st_size:,} bytes")
