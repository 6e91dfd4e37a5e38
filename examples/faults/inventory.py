"""A shop's inventory under faults: the machine, what it should do, and what its clients do.

    chaos run --faults kill,partition \\
        --machine examples.faults.inventory:Inventory \\
        --model examples.faults.inventory:InventoryModel \\
        --workload examples.faults.inventory:Customers

Two machines with a bug each show what is found: put ``LossyInventory``, which keeps only a part of
a delivery, or ``DriftingInventory``, whose members do not all do the same, in place of the right
one. Both pass a unit test that looks only at the answers of one call on one copy.
"""

from __future__ import annotations

import os
from typing import Any

from chaos.api import Call, MachineProcess, ModelWorkload, WorkloadOptions
from consensus import MethodMachine, Refused, command, query

ITEMS = ("anvil", "balloon", "compass")


class Inventory(MethodMachine):
    """How many there are of each item."""

    def __init__(self) -> None:
        self.stock_of: dict[str, int] = {}

    @command
    def deliver(self, item: str, count: int) -> int:
        """Add to the stock; returns what there is now."""
        self.stock_of[item] = self.stock_of.get(item, 0) + count
        return self.stock_of[item]

    @command
    def sell(self, item: str, count: int) -> int:
        """Take from the stock; returns what is left. Refused if there is not enough."""
        left = self.stock_of.get(item, 0) - count
        if left < 0:
            raise Refused("sold out")
        self.stock_of[item] = left
        return left

    @query
    def stock(self, item: str) -> int:
        """How many there are."""
        return self.stock_of.get(item, 0)


class LossyInventory(Inventory):
    """Bug: of a delivery of several, only one is kept."""

    @command
    def deliver(self, item: str, count: int) -> int:
        """Answer as if all had come."""
        before = self.stock_of.get(item, 0)
        super().deliver(item, 1)
        return before + count


class DriftingInventory(Inventory):
    """Bug: what it keeps depends on the process that it runs in."""

    @command
    def deliver(self, item: str, count: int) -> int:
        """Add to the stock, and note something that differs from member to member."""
        self.stock_of["clerk"] = os.getpid()
        return super().deliver(item, count)


class InventoryModel:
    """What an inventory should do: the state is the stock of one item, since items are apart."""

    per_key = True

    def initial(self) -> int:
        """Nothing is there at first."""
        return 0

    def step(self, state: int, method: str, arguments: dict[str, Any]) -> tuple[int, Any]:
        """Return the stock after a call, and the call's answer."""
        if method == "deliver":
            state += arguments["count"]
        elif method == "sell":
            if arguments["count"] > state:
                return state, {"refused": "sold out"}
            state -= arguments["count"]
        return state, state


class Customers(ModelWorkload):
    """Deliveries, sales and looks at the shelf."""

    name = "customers"
    machine = "examples.faults.inventory:Inventory"
    model = "examples.faults.inventory:InventoryModel"
    defaults = WorkloadOptions(clients=4, rate=60.0)

    def draw(self, process: MachineProcess) -> Call:
        """What a client does next."""
        item = process.rng.choice(ITEMS)
        method = process.rng.choice(("deliver", "sell", "sell", "stock"))
        if method == "stock":
            return Call(method, {"item": item}, key=item, reads=True)
        return Call(method, {"item": item, "count": process.rng.randint(1, 3)}, key=item)

    def last_calls(self) -> list[Call]:
        """Look at every shelf."""
        return [Call("stock", {"item": item}, key=item, reads=True) for item in ITEMS]
