"""Every known bug is found: by the test that is named beside it, and some by the simulator too."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.sim.world import World
from tests.consensus.raft.mutants import HERE, MUTANTS, Mutant, seeds_until_found

SIMULATED = (
    "acknowledges entries before they are synced",
    "a heartbeat commits beyond what is known to match",
    "a repeated forward is appended twice",
    "votes twice in a term",
    "a vote alone is not synced",
    "the log is not synced",
    "the driver says what it must sync first",
    "damage is cut as if it were torn",
)
"""Mutants that the simulator must find as well; by hand it is let loose on all of them."""

SEEDS_MAX = 30
SECONDS = 20.0


def run(mutant: Mutant, test: Callable[..., None], tmp_path: Path) -> None:
    """Run a test with the arguments that the mutant names, and its fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        fixtures = {"tmp_path": tmp_path, "monkeypatch": patch}
        wanted = {
            name: fixtures[name] for name in fixtures if name in inspect.signature(test).parameters
        }
        test(**mutant.args, **wanted)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_test_named_beside_it_finds_it(mutant: Mutant, tmp_path: Path) -> None:
    module, _, name = mutant.killer.partition(":")
    test = getattr(importlib.import_module(f"{HERE}.{module}"), name)
    run(mutant, test, tmp_path / "well")  # it fails because of the bug, and not for another reason
    found = False
    with pytest.MonkeyPatch.context() as patch:
        mutant.apply(patch)
        try:
            run(mutant, test, tmp_path / "ill")
        except (Exception, pytest.fail.Exception):
            found = True
    assert found, f"{mutant.killer} passes although the engine {mutant.name}"


@pytest.mark.parametrize("name", SIMULATED)
def test_the_simulator_finds_it_too(name: str) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    found = seeds_until_found(mutant, SEEDS_MAX, SECONDS)
    assert found is not None, f"not within {SEEDS_MAX} seeds"
    seeds, what = found
    print(f"found after {seeds} seeds: {what}")
    World(seeds - 1).run(SECONDS)  # and there is nothing to be found there without the bug


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30
