"""PySyncObj as it is, in the simulator: harmless without faults, and its known losses are found."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.sim.invariants import Violation
from chaos.sim.runner import PYSYNCOBJ, digests_elsewhere, run_seed
from chaos.sim.stock.library import Settings
from chaos.sim.stock.world import StockOptions, StockWorld

pytestmark = pytest.mark.timeout(600)
SECONDS = 12.0
SEEDS_MAX = 6


def violation_of(seed: int, options: StockOptions) -> str:
    """Return what a run breaks, empty for nothing."""
    try:
        StockWorld(seed, options).run(SECONDS)
    except Violation as violation:
        return str(violation)
    return ""


def test_without_faults_it_keeps_its_promises() -> None:
    world = StockWorld(1, StockOptions())
    world.run(SECONDS)
    assert world.acknowledgements > 100
    assert world.counts["elections won"] >= 1 and world.counts["kills"] == 0


def test_a_restart_after_compaction_loses_everything_where_there_is_no_dump_file() -> None:
    options = StockOptions(
        settings=Settings(dump=False, compaction_entries=30), kill_every_s=0.7, kill_all=1.0
    )
    found = [violation_of(seed, options) for seed in range(SEEDS_MAX)]
    assert any("acknowledged commands are on no member any more" in each for each in found), found


def test_one_command_that_cannot_be_applied_stops_the_cluster_for_ever() -> None:
    found = [violation_of(seed, StockOptions(poison=True)) for seed in range(SEEDS_MAX)]
    assert any(
        "liveness: nothing was acknowledged after everything was healed" in each
        and "ValueError" in each
        for each in found
    ), found


def test_a_seed_replays_in_another_process() -> None:
    here = {seed: run_seed(seed, 10, engine=PYSYNCOBJ).digest for seed in (7, 9)}
    assert here == digests_elsewhere((7, 9), 10, PYSYNCOBJ)


def test_the_command_names_what_was_broken() -> None:
    arguments = ("--engine", "pysyncobj", "--start", "9", "--seeds", "2", "--jobs", "1")
    result = CliRunner().invoke(main, ["sim", *arguments, "--seconds", "20"])
    assert result.exit_code == 1, result.output
    assert "violated: durability: " in result.output
    assert "--engine pysyncobj --trace" in result.output
