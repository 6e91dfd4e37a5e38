"""Calibration: a known defect of a real system is found, and one that is not there is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import chaos.calibrate.cli
from chaos.calibrate.cli import SCENARIOS
from chaos.calibrate.scene import Calibration, Control, Scenario
from chaos.cli import main
from chaos.cluster.targets.etcd import EtcdTarget, namespace_command
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.history.reader import read_history
from chaos.verdict import Verdict
from tests.interop import require_program, unavailable

pytestmark = pytest.mark.xdist_group("chaos-clusters")

ALL = [scenario for each in SCENARIOS.values() for scenario in each]


def test_every_scenario_says_which_defect_it_looks_for() -> None:
    assert len({scenario.name for scenario in ALL}) == len(ALL)
    for scenario in ALL:
        assert scenario.finds
        assert scenario.defect.startswith(("etcd #", "PySyncObj "))
    listed = CliRunner().invoke(main, ["calibrate", "--list"])
    assert listed.exit_code == 0
    assert all(scenario.name in listed.output for scenario in ALL)


def test_a_scenario_that_is_not_known_is_refused() -> None:
    result = CliRunner().invoke(main, ["calibrate", "etcd", "--only", "heisenbug"])
    assert result.exit_code == 2
    assert "'heisenbug' is no scenario; there are progress-ahead" in result.output


def test_every_scenario_of_etcd_has_a_control() -> None:
    assert all(isinstance(one.control(), KvstoreTarget) for one in SCENARIOS["etcd"] if one.control)
    assert all(one.control is not None for one in SCENARIOS["etcd"])


@pytest.mark.parametrize(
    ("found", "control", "code", "word"),
    [
        (True, None, 0, "found"),
        (True, Verdict.OK, 0, "found"),
        (False, Verdict.OK, 1, "missed"),
        (True, Verdict.VIOLATED, 1, "false-alarm"),
        (True, Verdict.UNKNOWN, 2, "invalid"),
    ],
)
def test_a_control_on_which_something_is_found_is_no_calibration(
    found: bool,
    control: Verdict | None,
    code: int,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def calibrate(scenario: Scenario, path: Path, *_: object) -> Calibration:
        return Calibration(scenario, found, 1.0, 1, "a gap", path)

    async def play_control(_: Scenario, path: Path, *__: object) -> Control:
        assert control is not None
        return Control("kvstore on native", control, 2.0, "seen there", path)

    monkeypatch.setattr(chaos.calibrate.cli, "calibrate", calibrate)
    monkeypatch.setattr(chaos.calibrate.cli, "play_control", play_control)
    monkeypatch.setattr(EtcdTarget, "check", lambda _: None)
    words = ["calibrate", "--only", "future-watch", "--out", str(tmp_path)]
    words += [] if control is None else ["--control"]
    result = CliRunner().invoke(main, [*words, "--json"])
    document = json.loads(result.output)
    assert (result.exit_code, document["verdict"]) == (code, word)
    told = document["calibrations"][0]["control"]
    assert told == control or told["verdict"] == control.value
    result = CliRunner().invoke(main, words)
    assert result.exit_code == code
    assert ("control: kvstore on native" in result.output) == (control is not None)


@pytest.mark.interop
def test_a_known_defect_of_etcd_is_found(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    require_program("etcd")
    if namespace_command() is None:
        unavailable("unshare --mount is refused here; run as root, or allow user namespaces")
    if EtcdTarget().version() != "3.4.23":
        unavailable(f"etcd {EtcdTarget().version()} is not the release with the known defects")
    words = ["calibrate", "etcd", "--control", "--only", "deletion-at-compaction"]
    words += ["--out", str(tmp_path)]
    result = CliRunner().invoke(main, [*words, "--json"])
    document = json.loads(result.output)
    assert document["verdict"] == "found", document
    assert result.exit_code == 0
    (found,) = document["calibrations"]
    assert Path(found["history"]).exists()
    assert Path(found["history"]).with_name("report.html").exists()
    control = found["control"]
    assert control["target"] == "kvstore on native"
    assert control["verdict"] == "ok" and not control["found"], control
    history = read_history(Path(control["history"]))
    assert any(one.f == "compact" for one in history.operations), "the same was played there"
    assert any(watcher.notices for watcher in history.watchers.values())
    record_property("counted", f"{found['defect']}: {found['evidence']}")
