"""A number that many add to at once, without reading it first."""

from __future__ import annotations

from typing import Any, Final

from consensus import Refused, command, query
from statemachines.checks import check_integer
from statemachines.rows import RowsMachine

COUNT_MAX: Final = 2**63 - 1
"""The counter stays between ``-COUNT_MAX`` and ``COUNT_MAX``: what 64 bits hold everywhere."""


class Counter(RowsMachine):
    """A counter; each ``add`` returns a value that no other ``add`` of the same sign returned.

    ::

        async with Node(Counter(), engine) as node:
            counter = Handle(node, Counter)
            ticket = await counter.add(amount=1)
            await counter.read()  # 1

    Guarantees: linearizable; no addition is lost or overwritten. An ``add`` whose outcome is
    unknown may have counted: wrap the counter in ``SessionMachine`` where a retry must not count
    twice.
    """

    def __init__(self) -> None:
        self._count = 0

    @command
    def add(self, amount: int = 1) -> int:
        """Add ``amount`` (negative to subtract) and return the sum.

        Refused when the sum would leave the range of ``COUNT_MAX``.
        """
        check_integer("amount", amount, -COUNT_MAX, COUNT_MAX)
        total = self._count + amount
        if abs(total) > COUNT_MAX:
            raise Refused(f"{self._count} + {amount} leaves the range of ±{COUNT_MAX}")
        self._count = total
        return total

    @query
    def read(self) -> int:
        """Return the count."""
        return self._count

    def dump_rows(self) -> list[Any]:
        """One row: the count."""
        return [self._count]

    def load_rows(self, rows: list[Any]) -> None:
        """Take the one row."""
        [self._count] = rows
