"""The queue against a list."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

import statemachines.queue
from statemachines import Queue
from tests.statemachines.driver import STATEFUL, Driver, MachineRules, refused


@attrs.define
class Model:
    """An item of the model; ``until_ms`` is None while it is free."""

    id: int
    item: Any
    deliveries: int = 0
    receipt: int = 0
    until_ms: int | None = None


class QueueRules(MachineRules):
    machine = Queue

    def __init__(self) -> None:
        super().__init__()
        self.model: list[Model] = []
        self.last_id = 0
        self.receipts: list[tuple[int, int]] = [(1, 1)]

    def expire(self) -> None:
        """What every command does first."""
        for item in self.model:
            if item.until_ms is not None and item.until_ms <= self.now_ms:
                item.until_ms = None

    def first(self) -> Model | None:
        return next((item for item in self.model if item.until_ms is None), None)

    def held(self, place: int) -> tuple[int, int, Model | None]:
        identity, receipt = self.receipts[place % len(self.receipts)]
        for item in self.model:
            if (item.id, item.receipt) == (identity, receipt) and item.until_ms is not None:
                return identity, receipt, item
        return identity, receipt, None

    @rule(item=st.integers())
    def push(self, item: int) -> None:
        self.expire()
        self.last_id += 1
        self.model.append(Model(self.last_id, item))
        assert self.do("push", item=item) == {"id": self.last_id}

    @rule()
    def pop(self) -> None:
        self.expire()
        first = self.first()
        if first is not None:
            self.model.remove(first)
        assert self.do("pop") == (first and {"id": first.id, "item": first.item})

    @rule(visibility_ms=st.integers(1, 20))
    def claim(self, visibility_ms: int) -> None:
        self.expire()
        first = self.first()
        claim = self.do("claim", worker="w", visibility_ms=visibility_ms)
        if first is None:
            assert claim is None
            return
        first.deliveries += 1
        first.until_ms = self.now_ms + visibility_ms
        assert claim["receipt"] > max(receipt for _, receipt in self.receipts) or not first.receipt
        first.receipt = claim["receipt"]
        self.receipts.append((first.id, first.receipt))
        assert (claim["id"], claim["item"]) == (first.id, first.item)
        assert (claim["deliveries"], claim["visible_ms"]) == (first.deliveries, first.until_ms)

    @rule(place=st.integers(0, 9))
    def ack(self, place: int) -> None:
        self.expire()
        identity, receipt, item = self.held(place)
        answer = self.do("ack", id=identity, receipt=receipt)
        assert refused(answer) == (item is None)
        if item is not None:
            self.model.remove(item)

    @rule(place=st.integers(0, 9))
    def release(self, place: int) -> None:
        self.expire()
        identity, receipt, item = self.held(place)
        assert refused(self.do("release", id=identity, receipt=receipt)) == (item is None)
        if item is not None:
            item.until_ms = None

    @rule(place=st.integers(0, 9), visibility_ms=st.integers(1, 20))
    def extend(self, place: int, visibility_ms: int) -> None:
        self.expire()
        identity, receipt, item = self.held(place)
        answer = self.do("extend", id=identity, receipt=receipt, visibility_ms=visibility_ms)
        assert refused(answer) == (item is None)
        if item is not None:
            item.until_ms = self.now_ms + visibility_ms

    @rule()
    def look(self) -> None:
        self.do("tick")
        self.expire()
        first = self.first()
        assert self.ask("peek") == (first and {"id": first.id, "item": first.item})
        claimed = sum(item.until_ms is not None for item in self.model)
        size = self.ask("size")
        assert (size["free"], size["claimed"]) == (len(self.model) - claimed, claimed)


TestQueue = QueueRules.TestCase
TestQueue.settings = STATEFUL


def test_a_slow_worker_cannot_acknowledge_what_another_works_on() -> None:
    driver = Driver(Queue)
    driver.do("push", item="work")
    slow = driver.do("claim", worker="slow", visibility_ms=10)
    driver.clock_ms += 10
    quick = driver.do("claim", worker="quick", visibility_ms=10)
    assert quick["id"] == slow["id"]
    assert "has ended" in driver.do("ack", id=slow["id"], receipt=slow["receipt"])["refused"]
    assert driver.do("ack", id=quick["id"], receipt=quick["receipt"]) == {"id": quick["id"]}
    assert driver.ask("size") == {"free": 0, "claimed": 0, "bytes": 0}


def test_a_full_queue_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statemachines.queue, "ITEMS_MAX", 2)
    monkeypatch.setattr(statemachines.queue, "TOTAL_BYTES_MAX", 10)
    driver = Driver(Queue)
    assert "bytes" in driver.do("push", item="x" * 20)["refused"]
    driver.do("push", item=1)
    driver.do("push", item=2)
    assert "2 items" in driver.do("push", item=3)["refused"]
    driver.do("pop")
    assert driver.do("push", item=3) == {"id": 3}
