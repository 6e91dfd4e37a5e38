"""Every replayed bug: its script is green, red with its mutant, and says so in the table."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.sim.replayed import line, row_of
from tests.mutation import Mutant
from tests.replayed import table
from tests.replayed.basics import a_group_works
from tests.replayed.bug import NO_REASON, ReplayedBug, Verdict, issue, judge
from tests.replayed.machines import Stage
from tests.replayed.table import BUGS

DOCUMENT = Path(__file__).parents[2] / "docs" / "REPLAYED_BUGS.md"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_script_is_green_and_red_with_its_mutant(bug: ReplayedBug, tmp_path: Path) -> None:
    verdict = judge(bug, tmp_path)
    assert verdict.problems == []
    assert verdict.mutant != NO_REASON
    assert line(row_of(bug, verdict)) in DOCUMENT.read_text(encoding="utf-8").splitlines(), (
        "make the table again: chaos mutants --replayed --out docs/REPLAYED_BUGS.md"
    )


def test_the_table_has_these_bugs_and_no_others() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    rows = [text for text in lines if text.startswith("| [")]
    assert len(rows) == len(BUGS) >= 25
    assert all(f"`{bug.name}`" in row for bug, row in zip(BUGS, rows, strict=True))
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    mutants = [(bug.mutant.target, bug.mutant.old, bug.mutant.new) for bug in BUGS]
    assert len(set(mutants)) == len(BUGS), "two scripts have one and the same mutant"
    assert f"{len(BUGS)} scripts for {sum(len(bug.sources) for bug in BUGS)} reports" in "".join(
        lines
    )


# -- what judging says of scripts that prove nothing ------------------------------------------

HARMLESS = Mutant(
    "nothing is wrong",
    "consensus.raft.replication:advance_commit",
    "core.commit_index = index",
    "core.commit_index = index + 0",
)
NOTHING_WORKS = attrs.evolve(HARMLESS, new="raise AssertionError('no commits')")


def green(stage: Stage) -> None:
    """Nothing was broken.

    Not even here.
    """


def red(stage: Stage) -> None:
    """All was broken."""
    raise AssertionError("it is broken\nin two lines")


def falls_over(stage: Stage) -> None:
    """The script was broken."""
    raise KeyError("nothing that a script asserts")


@pytest.mark.parametrize(
    ("script", "mutant", "problems"),
    [
        (green, HARMLESS, ["the mutant survives"]),
        (red, HARMLESS, ["red without the mutant: AssertionError: it is broken"]),
        (
            falls_over,
            HARMLESS,
            [
                "red without the mutant: KeyError: 'nothing that a script asserts'",
                "the script falls over: KeyError: 'nothing that a script asserts'",
            ],
        ),
        (
            a_group_works,
            NOTHING_WORKS,
            ["the mutant breaks the basic path too: AssertionError: no commits"],
        ),
    ],
)
def test_what_proves_nothing_is_told(
    script: object, mutant: Mutant, problems: list[str], tmp_path: Path
) -> None:
    bug = ReplayedBug(issue("a/b", 1), "none", mutant, a_group_works, script)  # type: ignore[arg-type]
    assert judge(bug, tmp_path).problems == problems


def test_the_command_makes_the_table(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    arguments = ["mutants", "--replayed", "etcd#15271", "--jobs", "1", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    said = "a_watch_travels_back_after_a_snapshot (etcd#15271): ok, with the mutant: a watch from 2"
    assert said in result.output
    assert "1 scripts for 1 reports: each green on the code as it is" in result.output
    (row,) = [text for text in out.read_text().splitlines() if text.startswith("| [")]
    assert row in DOCUMENT.read_text(encoding="utf-8").splitlines()


def test_the_command_ends_with_1_where_a_mutant_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    survivor = attrs.evolve(BUGS[0], mutant=HARMLESS)
    monkeypatch.setattr(table, "BUGS", (survivor,))
    result = CliRunner().invoke(main, ["mutants", "--replayed", "--jobs", "1"])
    assert result.exit_code == 1
    assert f"{survivor.name} (logcabin#44, PySyncObj#169): the mutant survives" in result.output
    assert f"not as it should be: {survivor.name}" in result.output


def test_the_command_refuses_what_makes_no_sense() -> None:
    result = CliRunner().invoke(main, ["mutants", "--replayed", "etcd#0"])
    assert result.exit_code == 2 and "no replayed bug is called etcd#0" in result.output
    result = CliRunner().invoke(main, ["mutants", "--replayed", "--seeds", "3"])
    assert result.exit_code == 2 and "--seeds does not go with --replayed" in result.output


def test_a_story_is_the_first_paragraph_of_its_script() -> None:
    bug = ReplayedBug(issue("a/b", 1), "none", HARMLESS, a_group_works, green)
    assert bug.story == "Nothing was broken."
    assert Verdict("", "", "seen").problems == []
