"""Calibration: a known defect of a real system is found, and one that is not there is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.calibrate.cli import SCENARIOS
from chaos.cli import main
from chaos.cluster.targets.etcd import EtcdTarget, namespace_command
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


@pytest.mark.interop
def test_a_known_defect_of_etcd_is_found(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    require_program("etcd")
    if namespace_command() is None:
        unavailable("unshare --mount is refused here; run as root, or allow user namespaces")
    if EtcdTarget().version() != "3.4.23":
        unavailable(f"etcd {EtcdTarget().version()} is not the release with the known defects")
    words = ["calibrate", "etcd", "--only", "deletion-at-compaction", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, [*words, "--json"])
    document = json.loads(result.output)
    assert document["verdict"] == "found", document
    assert result.exit_code == 0
    (found,) = document["calibrations"]
    assert Path(found["history"]).exists()
    assert Path(found["history"]).with_name("report.html").exists()
    record_property("counted", f"{found['defect']}: {found['evidence']}")
