"""From "module:name" on a command line to what it names."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from chaos.workloads.base import WorkloadFailed


def load(name: str) -> Any:
    """Return what "module:name" names; the current directory is searched too.

    Raises:
        WorkloadFailed: it cannot be imported, or has no such name.
    """
    module_name, _, path = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise WorkloadFailed(
            f"cannot load {name!r}: {type(error).__name__}: {error}. It is module:Name, and the "
            f"module must be installed or lie below {os.getcwd()}"
        ) from None
    return found
