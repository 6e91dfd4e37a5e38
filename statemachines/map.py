"""A sorted map of keys to JSON values, with versions: configuration and other small metadata.

Versions are of the whole map and never used twice, not even after a key was deleted and put again.
That makes ``compare_and_set`` safe against the change that goes there and back unseen (the ABA
problem), and lets a reader ask cheaply whether anything changed at all.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from typing import Any, Final

import attrs

from consensus import Refused, command, query
from statemachines.checks import check_integer, check_text, check_value
from statemachines.rows import RowsMachine

KEYS_MAX: Final = 100_000
"""Keys in one map."""

KEY_BYTES_MAX: Final = 1024
"""Longest key, in bytes of UTF-8."""

VALUE_BYTES_MAX: Final = 64 * 1024
"""Largest value, in bytes of JSON."""

TOTAL_BYTES_MAX: Final = 128 * 1024 * 1024
"""All keys and values together, in bytes: the state is in memory."""

PAGE_MAX: Final = 1_000
"""Most items in one answer; ask for the next page with ``after``."""


@attrs.frozen(slots=True)
class Item:
    """A value as JSON text, and the map's version when it was put."""

    text: str
    version: int


def _size(key: str, item: Item) -> int:
    return len(key.encode()) + len(item.text)


class Map(RowsMachine):
    """A sorted map with compare-and-set.

    ::

        async with Node(Map(), engine) as node:
            config = Handle(node, Map)
            await config.put(key="db/host", value="10.0.0.1")
            found = await config.get(key="db/host")
            await config.compare_and_set(key="db/host", version=found["version"], value="10.0.0.2")
            await config.items(prefix="db/")

    Guarantees: linearizable; ``compare_and_set`` succeeds only if nobody changed the key since the
    version that the caller saw. Keys are listed in order of their code points.
    """

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._keys: list[str] = []
        self._version = 0
        self._size = 0

    @command
    def put(self, key: str, value: Any) -> dict[str, Any]:
        """Set ``key`` to ``value``; returns the new ``version``.

        Refused when a bound of the map would be exceeded.
        """
        self._put(key, value)
        return {"version": self._version}

    @command
    def compare_and_set(self, key: str, version: int, value: Any) -> dict[str, Any]:
        """Set ``key`` only if its version still is ``version``; 0 means: only if there is no key.

        Returns:
            ``succeeded``, and the key's ``version`` now (0 if there is no such key).
        """
        check_text("key", key, KEY_BYTES_MAX)
        check_integer("version", version, 0, 2**63)
        present = self._version_of(key)
        if present != version:
            return {"succeeded": False, "version": present}
        self._put(key, value)
        return {"succeeded": True, "version": self._version}

    @command
    def delete(self, key: str, version: int | None = None) -> dict[str, Any]:
        """Remove ``key``; with ``version``, only if the key still has that version.

        Returns:
            ``deleted``, and the map's ``version`` now.
        """
        check_text("key", key, KEY_BYTES_MAX)
        if version is not None:
            check_integer("version", version, 1, 2**63)
        item = self._items.get(key)
        deleted = item is not None and version in (None, item.version)
        if item is not None and deleted:
            del self._items[key]
            del self._keys[bisect_left(self._keys, key)]
            self._size -= _size(key, item)
            self._version += 1
        return {"deleted": deleted, "version": self._version}

    @query
    def get(self, key: str) -> dict[str, Any] | None:
        """Return ``key``, ``value`` and ``version``, or None if there is no such key."""
        check_text("key", key, KEY_BYTES_MAX)
        return self._row(key) if key in self._items else None

    @query
    def items(self, prefix: str = "", after: str = "", limit: int = PAGE_MAX) -> dict[str, Any]:
        """Return, in order, the items whose keys begin with ``prefix``.

        Args:
            prefix: what keys begin with; empty for all.
            after: begin behind this key: the last key of the page before.
            limit: most items to return, at most ``PAGE_MAX``.

        Returns:
            ``items``; ``more``, whether further items follow; and the map's ``version``.
        """
        for what, text in (("prefix", prefix), ("after", after)):
            if text != "":
                check_text(what, text, KEY_BYTES_MAX)
        check_integer("limit", limit, 1, PAGE_MAX)
        start = bisect_left(self._keys, prefix)
        if after:
            start = max(start, bisect_right(self._keys, after))
        page = self._keys[start : start + limit + 1]
        found = [key for key in page if key.startswith(prefix)]
        return {
            "items": [self._row(key) for key in found[:limit]],
            "more": len(found) > limit,
            "version": self._version,
        }

    @query
    def size(self) -> dict[str, int]:
        """Return the number of ``keys``, the ``bytes`` they take, and the map's ``version``."""
        return {"keys": len(self._items), "bytes": self._size, "version": self._version}

    def dump_rows(self) -> list[Any]:
        """The version, then each key with its item, in order."""
        return [self._version, *[(key, self._items[key]) for key in self._keys]]

    def load_rows(self, rows: list[Any]) -> None:
        """Take the rows."""
        self._version = rows[0]
        self._items = {key: Item(*fields) for key, fields in rows[1:]}
        self._keys = list(self._items)
        self._size = sum(_size(key, item) for key, item in self._items.items())

    def _version_of(self, key: str) -> int:
        item = self._items.get(key)
        return item.version if item else 0

    def _row(self, key: str) -> dict[str, Any]:
        item = self._items[key]
        return {"key": key, "value": json.loads(item.text), "version": item.version}

    def _put(self, key: str, value: Any) -> None:
        check_text("key", key, KEY_BYTES_MAX)
        item = Item(check_value("value", value, VALUE_BYTES_MAX), self._version + 1)
        before = self._items.get(key)
        if before is None and len(self._items) >= KEYS_MAX:
            raise Refused(f"the map is full: it holds {KEYS_MAX} keys; delete some first")
        total = self._size + _size(key, item) - (_size(key, before) if before else 0)
        if total > TOTAL_BYTES_MAX:
            raise Refused(f"the map is full: at most {TOTAL_BYTES_MAX} bytes; delete some first")
        if before is None:
            self._keys.insert(bisect_left(self._keys, key), key)
        self._size = total
        self._version = item.version
        self._items[key] = item
