"""From ``module:Machine`` on a command line to a machine."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import Any

from consensus.errors import ConfigError
from consensus.statemachine import StateMachine


def load_machine(name: str, directory: Path) -> StateMachine:
    """Return the machine that ``name`` says.

    Args:
        name: "module:Machine"; the current directory is searched too. What it names is called, with
            ``directory`` if it takes an argument of that name.
        directory: where a durable machine may keep its state.

    Raises:
        ConfigError: it cannot be imported, or is no machine. The text says what to check.
    """
    module_name, colon, path = name.partition(":")
    if not colon or not module_name or not path:
        raise ConfigError(f"{name!r} is not module:Machine, as in examples.counter:Counter")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"cannot import {module_name!r}: {error}. Check the spelling, and that it is installed "
            f"or lies below {os.getcwd()}"
        ) from None
    except Exception as error:
        raise ConfigError(
            f"importing {module_name!r} failed: {type(error).__name__}: {error}. "
            f"Run `python -c 'import {module_name}'` to see where"
        ) from None
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{module_name!r} has no {path!r}; {_machines(module_name)}")
        found = getattr(found, part)
    if isinstance(found, StateMachine):
        return found
    if not callable(found):
        raise ConfigError(f"{name} is neither a state machine nor a function that makes one")
    return _make(found, name, directory)


def _make(factory: Any, name: str, directory: Path) -> StateMachine:
    try:
        takes_directory = "directory" in inspect.signature(factory).parameters
        if takes_directory:
            directory.mkdir(parents=True, exist_ok=True)
        machine = factory(directory=directory) if takes_directory else factory()
    except TypeError as error:
        raise ConfigError(
            f"{name} cannot be made: {error}. It is called without arguments, or with `directory`"
        ) from None
    if not isinstance(machine, StateMachine):
        raise ConfigError(f"{name} makes a {type(machine).__name__}, which is no StateMachine")
    return machine


def _machines(module_name: str) -> str:
    known = [
        key
        for key, value in vars(sys.modules[module_name]).items()
        if inspect.isclass(value)
        and issubclass(value, StateMachine)
        and not inspect.isabstract(value)
    ]
    return f"it has the machines {', '.join(known)}" if known else "it has no state machine"
