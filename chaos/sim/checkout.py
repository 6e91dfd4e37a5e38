"""What is only in a checkout of the project: tests that commands make use of."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import click

MUTANTS_MODULE: Final = "tests.consensus.raft.mutants"
"""The table of known bugs."""


def module_of_tests(name: str) -> ModuleType:
    """Return a module of the tests of the checkout that is the working directory.

    Raises:
        click.UsageError: it is no checkout, or the tests lack something that they need.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise click.UsageError(
            f"the table of mutants cannot be read ({error}); run this in a checkout of the "
            "project, with what its tests need"
        ) from error
