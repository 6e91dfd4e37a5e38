"""A first-in, first-out queue whose items survive the workers that take them.

``pop`` removes an item and hands it over: if the worker dies, the item is lost (at most once).
``claim`` only hides it for a while: the worker acknowledges with ``ack`` when the work is done, and
an item that nobody acknowledged in time comes back to its old place (at least once). Each claim has
its own receipt, so a worker that was too slow cannot acknowledge what another now works on.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from typing import Any, Final

import attrs

from consensus import Refused, command, query
from statemachines.checks import check_integer, check_text, check_ttl_ms, check_value
from statemachines.timed import Key, TimedMachine

ITEMS_MAX: Final = 100_000
"""Items in one queue, claimed ones included."""

ITEM_BYTES_MAX: Final = 64 * 1024
"""Largest item, in bytes of JSON."""

TOTAL_BYTES_MAX: Final = 128 * 1024 * 1024
"""All items together, in bytes of JSON."""

NUMBER_MAX: Final = 2**63


@attrs.frozen(slots=True)
class Item:
    """An item as JSON text, and the claim on it: receipt 0 and no worker while it is free."""

    text: str
    deliveries: int = 0
    receipt: int = 0
    worker: str = ""
    visible_ms: int = 0


class Queue(TimedMachine):
    """A queue of JSON values with claims that time out.

    ::

        async with Node(Queue(), engine) as node:
            queue = Handle(node, Queue)
            await queue.push(item={"resize": "cat.png"})
            claim = await queue.claim(worker="w1", visibility_ms=30_000)
            ...  # do the work, then:
            await queue.ack(id=claim["id"], receipt=claim["receipt"])

    Guarantees: items are handed out in the order of their pushes; one that comes back goes to its
    old place. At one time at most one worker has a valid receipt for an item. ``deliveries`` says
    how often it was handed out, so that a worker can set aside an item that keeps failing.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Become as new."""
        super().reset()
        self._items: dict[int, Item] = {}
        self._free: list[int] = []  # ids in order
        self._last_id = 0
        self._last_receipt = 0
        self._size = 0

    @command
    def push(self, item: Any) -> dict[str, int]:
        """Add ``item`` at the end; returns its ``id`` (1, 2, 3, ...). Refused when full."""
        text = check_value("item", item, ITEM_BYTES_MAX)
        if len(self._items) >= ITEMS_MAX:
            raise Refused(f"the queue is full: it holds {ITEMS_MAX} items")
        if self._size + len(text) > TOTAL_BYTES_MAX:
            raise Refused(f"the queue is full: at most {TOTAL_BYTES_MAX} bytes")
        self._last_id += 1
        self._items[self._last_id] = Item(text)
        self._free.append(self._last_id)
        self._size += len(text)
        return {"id": self._last_id}

    @command
    def pop(self) -> dict[str, Any] | None:
        """Remove the first free item and return its ``id`` and ``item``; None if there is none."""
        if not self._free:
            return None
        identity = self._free[0]
        answer = {"id": identity, "item": json.loads(self._items[identity].text)}
        self._remove(identity)
        return answer

    @command
    def claim(self, worker: str, visibility_ms: int) -> dict[str, Any] | None:
        """Hide the first free item from others for ``visibility_ms`` milliseconds.

        Returns:
            ``id``, ``item``, ``receipt``, ``deliveries`` and ``visible_ms`` (when the claim ends);
            None if there is no free item.
        """
        check_text("worker", worker)
        check_ttl_ms("visibility_ms", visibility_ms)
        if not self._free:
            return None
        identity = self._free.pop(0)
        self._last_receipt += 1
        before = self._items[identity]
        item = Item(
            before.text,
            before.deliveries + 1,
            self._last_receipt,
            worker,
            self.entry.clock_ms + visibility_ms,
        )
        self._claim(identity, item)
        return {
            "id": identity,
            "item": json.loads(item.text),
            "receipt": item.receipt,
            "deliveries": item.deliveries,
            "visible_ms": item.visible_ms,
        }

    @command
    def ack(self, id: int, receipt: int) -> dict[str, int]:
        """Remove a claimed item for good: its work is done. Refused when the claim has ended."""
        self._claimed(id, receipt)
        self._remove(id)
        return {"id": id}

    @command
    def release(self, id: int, receipt: int) -> dict[str, int]:
        """Give a claimed item back to its place at once. Refused when the claim has ended."""
        self._claimed(id, receipt)
        self.deadlines.cancel(_key(id))
        self._give_back(id)
        return {"id": id}

    @command
    def extend(self, id: int, receipt: int, visibility_ms: int) -> dict[str, int]:
        """Let a claim end ``visibility_ms`` from now; refused when it has ended already."""
        check_ttl_ms("visibility_ms", visibility_ms)
        item = self._claimed(id, receipt)
        until_ms = self.entry.clock_ms + visibility_ms
        self._claim(id, attrs.evolve(item, visible_ms=until_ms))
        return {"id": id, "visible_ms": until_ms}

    @query
    def size(self) -> dict[str, int]:
        """Return how many items are ``free`` and ``claimed``, and the ``bytes`` they take."""
        free = len(self._free)
        return {"free": free, "claimed": len(self._items) - free, "bytes": self._size}

    @query
    def peek(self) -> dict[str, Any] | None:
        """Return the first free item's ``id`` and ``item`` without taking it, or None."""
        if not self._free:
            return None
        return {"id": self._free[0], "item": json.loads(self._items[self._free[0]].text)}

    def lapse(self, key: Key, now_ms: int) -> None:
        """A claim was not acknowledged in time: the item goes back."""
        self._give_back(int(key[0]))

    def dump_rows(self) -> list[Any]:
        """The counters, then each item by id."""
        return [[self._last_id, self._last_receipt], *sorted(self._items.items())]

    def load_rows(self, rows: list[Any]) -> None:
        """Take the rows."""
        self.reset()
        self._last_id, self._last_receipt = rows[0]
        for identity, fields in rows[1:]:
            item = Item(*fields)
            self._size += len(item.text)
            if item.receipt:
                self._claim(identity, item)
            else:
                self._items[identity] = item
                self._free.append(identity)

    def _claimed(self, identity: Any, receipt: Any) -> Item:
        check_integer("id", identity, 1, NUMBER_MAX)
        check_integer("receipt", receipt, 1, NUMBER_MAX)
        item = self._items.get(identity)
        if item is None or item.receipt != receipt:
            raise Refused(
                f"receipt {receipt} is not good for item {identity}: "
                "the claim has ended, or the item is gone"
            )
        return item

    def _claim(self, identity: int, item: Item) -> None:
        self._items[identity] = item
        self.deadlines.set(_key(identity), item.visible_ms)

    def _give_back(self, identity: int) -> None:
        before = self._items[identity]
        self._items[identity] = Item(before.text, before.deliveries)
        insort(self._free, identity)

    def _remove(self, identity: int) -> None:
        item = self._items.pop(identity)
        self._size -= len(item.text)
        self.deadlines.cancel(_key(identity))
        if not item.receipt:
            del self._free[bisect_left(self._free, identity)]


def _key(identity: int) -> Key:
    return (f"{identity:020d}",)  # so that ties go by number, not by text
