"""One value, replicated: the smallest useful machine, and the one that correctness is tested with.

A register with compare-and-set can solve consensus among any number of clients (Herlihy, "Wait-Free
Synchronization"), so everything else here could be built on it. The others exist because they save
their clients the retry loop.
"""

from __future__ import annotations

import json
from typing import Any, Final

from consensus import command, query
from statemachines.checks import check_value
from statemachines.rows import RowsMachine

VALUE_BYTES_MAX: Final = 128 * 1024
"""Largest value, in bytes of JSON."""


class Register(RowsMachine):
    """One JSON value that is read, written, and changed on condition.

    ::

        async with Node(Register(), engine) as node:
            register = Handle(node, Register)
            await register.write(value="blue")
            await register.compare_and_set(expected="blue", value="green")
            await register.read()  # {"value": "green", "version": 2}

    Guarantees: reads and writes are linearizable. ``version`` grows by one with each change, so two
    reads with the same version saw the same write. The register starts as null, version 0.
    """

    def __init__(self) -> None:
        self._value = "null"
        self._version = 0

    @command
    def write(self, value: Any) -> dict[str, Any]:
        """Set the value, whatever it was.

        Returns:
            ``version``: the register's version now.
        """
        self._value = check_value("value", value, VALUE_BYTES_MAX)
        self._version += 1
        return {"version": self._version}

    @command
    def compare_and_set(self, expected: Any, value: Any) -> dict[str, Any]:
        """Set the value only if it equals ``expected`` (as JSON: 1, 1.0 and true all differ).

        Returns:
            ``succeeded``, and ``value`` and ``version`` as they are now.
        """
        old = check_value("expected", expected, VALUE_BYTES_MAX)
        new = check_value("value", value, VALUE_BYTES_MAX)
        succeeded = old == self._value
        if succeeded:
            self._value = new
            self._version += 1
        return {"succeeded": succeeded, **self.read()}

    @query
    def read(self) -> dict[str, Any]:
        """Return ``value`` and ``version``."""
        return {"value": json.loads(self._value), "version": self._version}

    def dump_rows(self) -> list[Any]:
        """One row: the value and its version."""
        return [[self._value, self._version]]

    def load_rows(self, rows: list[Any]) -> None:
        """Take the one row."""
        [[self._value, self._version]] = rows
