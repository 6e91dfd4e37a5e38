"""One's own machine, model and workload: the example in docs/CHAOS.md, right and with its bugs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.api import (
    CellOptions,
    History,
    Kind,
    MachineTarget,
    Operation,
    Outcome,
    Verdict,
    check_against,
    run_cell,
)
from chaos.checkers.pipeline import check_history
from chaos.cli import main
from chaos.workloads.base import WorkloadFailed
from chaos.workloads.registry import find_workload
from examples.faults.inventory import InventoryModel
from tests.chaos.records import op

EXAMPLE = "examples.faults.inventory"


def call(
    number: int, at: tuple[int, int | None], method: str, count: int, answer: object
) -> Operation:
    arguments = {"item": "anvil", "count": count} if count else {"item": "anvil"}
    f = method if count else "read"
    asked = {"method": method, "args": arguments}
    return op(number, f, at, asked, answer, key="anvil")


GOOD = {
    "one after the other": [
        call(0, (1, 2), "deliver", 3, 3),
        call(1, (3, 4), "sell", 1, 2),
        call(2, (5, 6), "stock", 0, 2),
    ],
    "refused": [call(0, (1, 2), "sell", 1, {"refused": "sold out"})],
    "unknown, and seen": [call(0, (1, None), "deliver", 3, None), call(1, (3, 4), "stock", 0, 3)],
}
BAD = {
    "delivery lost": [call(0, (1, 2), "deliver", 3, 3), call(1, (3, 4), "stock", 0, 0)],
    "sold what was not there": [call(0, (1, 2), "sell", 1, 0)],
    "delivered twice": [call(0, (1, 2), "deliver", 3, 3), call(1, (3, 4), "stock", 0, 6)],
}


@pytest.mark.parametrize("operations", GOOD.values(), ids=GOOD.keys())
def test_good(operations: list[Operation]) -> None:
    result = check_against(History(operations=operations), InventoryModel())
    assert result.verdict is Verdict.OK, result.findings


@pytest.mark.parametrize("operations", BAD.values(), ids=BAD.keys())
def test_bad(operations: list[Operation]) -> None:
    result = check_against(History(operations=operations), InventoryModel())
    assert result.counts == {Kind.NOT_LINEARIZABLE: 1}
    assert "anvil" in result.findings[0].text
    assert "was answered" in result.findings[0].text


def test_a_search_without_end_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.checkers.modelled.STEPS_MAX", 100)
    operations = [call(n, (0, 100), "deliver", n + 1, n + 1) for n in range(12)]
    result = check_against(History(operations=operations), InventoryModel())
    assert result.verdict is Verdict.UNKNOWN
    assert result.findings[0].kind is Kind.UNDECIDED


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--workload", "nonsense"], "'nonsense' is not a workload; there are register, cas"),
        (["--workload", "nowhere:Nothing"], "cannot load 'nowhere:Nothing': ModuleNotFoundError"),
        (["--workload", f"{EXAMPLE}:Inventory"], "is no Workload class"),
        (["--machine", f"{EXAMPLE}:Inventory"], "works on etcd's API, not on a machine"),
        (
            ["--workload", f"{EXAMPLE}:Customers", "--machine", f"{EXAMPLE}:Customers"],
            "--machine: examples.faults.inventory:Customers",
        ),
    ],
)
def test_wrong_names_are_told(tmp_path: Path, words: list[str], text: str) -> None:
    result = CliRunner().invoke(main, ["run", *words, "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("model", "text"),
    [("nowhere:Model", "cannot load"), (f"{EXAMPLE}:Inventory", "is no model: it lacks per_key")],
)
def test_a_wrong_model_is_told(model: str, text: str) -> None:
    header = {"workload": f"{EXAMPLE}:Customers", "model": model}
    with pytest.raises(WorkloadFailed, match=text):
        check_history(History(header))


def test_a_workload_of_ones_own_is_found() -> None:
    assert find_workload(f"{EXAMPLE}:Customers").name == "customers"


@pytest.mark.xdist_group("chaos-clusters")
@pytest.mark.timeout(240)
async def test_the_right_machine_survives_its_leader(tmp_path: Path) -> None:
    options = CellOptions(
        target=MachineTarget(f"{EXAMPLE}:Inventory", "native"),
        faults=("kill",),
        seconds=3.0,
        seed=3,
        workload=f"{EXAMPLE}:Customers",
    )
    result = await run_cell(options, tmp_path, lambda said: None)
    assert result.verdict is Verdict.OK, result.report.findings
    checks = {each.checker for each in result.report.results}
    assert checks == {"assumptions", "recovery", "model", "convergence"}
    assert result.operations[Outcome.OK.value] > 10


@pytest.mark.xdist_group("chaos-clusters")
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("machine", "kind"),
    [
        ("DriftingInventory", Kind.MEMBERS_DISAGREE),
        ("LossyInventory", Kind.NOT_LINEARIZABLE),
    ],
)
def test_a_machine_with_a_bug_is_found(tmp_path: Path, machine: str, kind: Kind) -> None:
    """Already without faults: the control cell fails, and the others are left out."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "chaos.cli", "run", "--engine", "native"),
            *("--machine", f"{EXAMPLE}:{machine}", "--workload", f"{EXAMPLE}:Customers"),
            *("--model", f"{EXAMPLE}:InventoryModel", "--faults", "kill"),
            *("--seconds", "4", "--seed", "3", "--out", str(tmp_path), "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=220,
    )
    document = json.loads(done.stdout)
    assert done.returncode == 1, document
    assert [cell["cell"] for cell in document["cells"]] == ["control"]
    assert kind.value in document["cells"][0]["counts"]
