"""Which watchers does a key concern?

Theory of operation. Most watchers name one key: a dictionary finds those in constant time. The rest
name a range [key, range_end): distinct ranges are the nodes of a treap ordered by (begin, end), and
each node knows the greatest end below it, so that one search visits only subtrees that can hold a
match (the augmented tree of Cormen et al., "Introduction to Algorithms", section 14.3). Watchers
of one and the same range share a node. Looking up a key costs O(log ranges + matches).

Range ends follow etcd: ``b""`` names the single key, ``b"\\0"`` everything from the key on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Generic, TypeVar

W = TypeVar("W")

FROM_KEY = b"\0"
"""The range end that means "every key from the first on"."""


def range_is_empty(key: bytes, range_end: bytes) -> bool:
    """Return whether no key can lie in [key, range_end) (etcd refuses to watch such a range)."""
    return range_end not in (b"", FROM_KEY) and key >= range_end


class _Node(Generic[W]):
    """One distinct range. ``end`` and ``max_end`` are None where they are beyond every key."""

    __slots__ = ("begin", "end", "left", "max_end", "priority", "right", "watchers")

    def __init__(self, begin: bytes, end: bytes | None, priority: float) -> None:
        self.begin = begin
        self.end = end
        self.max_end = end
        self.priority = priority
        self.left: _Node[W] | None = None
        self.right: _Node[W] | None = None
        self.watchers: dict[W, None] = {}

    def refresh(self) -> None:
        """Recompute ``max_end`` from this node and its children."""
        greatest = self.end
        for child in (self.left, self.right):
            if child is None or greatest is None:
                continue
            if child.max_end is None or child.max_end > greatest:
                greatest = child.max_end
        self.max_end = greatest


def _before(begin: bytes, end: bytes | None, node: _Node[W]) -> bool:
    """Order of ranges: by begin, then by end, no end being the greatest."""
    if begin != node.begin:
        return begin < node.begin
    return end is not None and (node.end is None or end < node.end)


def _merge(left: _Node[W] | None, right: _Node[W] | None) -> _Node[W] | None:
    """Join two treaps, every range of ``left`` being before every range of ``right``."""
    if left is None:
        return right
    if right is None:
        return left
    if left.priority < right.priority:
        left.right = _merge(left.right, right)
        left.refresh()
        return left
    right.left = _merge(left, right.left)
    right.refresh()
    return right


def _split(
    node: _Node[W] | None, begin: bytes, end: bytes | None
) -> tuple[_Node[W] | None, _Node[W] | None]:
    """Cut a treap in ranges that are not after [begin, end), and the rest."""
    if node is None:
        return None, None
    if _before(begin, end, node):
        left, rest = _split(node.left, begin, end)
        node.left = rest
        node.refresh()
        return left, node
    rest, right = _split(node.right, begin, end)
    node.right = rest
    node.refresh()
    return node, right


class WatchIndex(Generic[W]):
    """The set of synced watchers, searchable by key. Watchers are hashed by identity or value."""

    def __init__(self) -> None:
        self._exact: dict[bytes, dict[W, None]] = {}
        self._ranges: dict[tuple[bytes, bytes], _Node[W]] = {}
        self._root: _Node[W] | None = None
        self._size = 0
        # Any fixed seed does: priorities only balance the tree, and runs stay repeatable.
        self._random = random.Random(1)

    def __len__(self) -> int:
        """Return the number of watchers."""
        return self._size

    def __iter__(self) -> Iterator[W]:
        """Iterate over all watchers, each once."""
        for group in self._exact.values():
            yield from group
        for node in self._ranges.values():
            yield from node.watchers

    def add(self, watcher: W, key: bytes, range_end: bytes) -> None:
        """Add a watcher of ``key`` or of [key, range_end). It must not be in the index."""
        self._size += 1
        if range_end == b"":
            self._exact.setdefault(key, {})[watcher] = None
            return
        node = self._ranges.get((key, range_end))
        if node is None:
            end = None if range_end == FROM_KEY else range_end
            node = _Node(key, end, self._random.random())
            self._ranges[key, range_end] = node
            left, right = _split(self._root, key, end)
            self._root = _merge(_merge(left, node), right)
        node.watchers[watcher] = None

    def remove(self, watcher: W, key: bytes, range_end: bytes) -> None:
        """Remove a watcher that was added with the same key and range end.

        Raises:
            KeyError: it is not in the index.
        """
        if range_end == b"":
            group = self._exact[key]
            del group[watcher]
            if not group:
                del self._exact[key]
        else:
            node = self._ranges[key, range_end]
            del node.watchers[watcher]
            if not node.watchers:
                del self._ranges[key, range_end]
                self._root = self._without(self._root, node)
        self._size -= 1

    def match(self, key: bytes) -> list[W]:
        """Return the watchers that ``key`` concerns."""
        group = self._exact.get(key)
        found = list(group) if group else []
        node = self._root
        if node is None:
            return found
        # Each node that is looked at, but for the root, has an end above the key below it.
        later: list[_Node[W]] = []
        while True:
            if node.begin <= key:
                if node.end is None or node.end > key:
                    found.extend(node.watchers)
                right = node.right
                if right is not None and (right.max_end is None or right.max_end > key):
                    later.append(right)
            left = node.left
            if left is not None and (left.max_end is None or left.max_end > key):
                node = left
            elif later:
                node = later.pop()
            else:
                return found

    def _without(self, root: _Node[W] | None, gone: _Node[W]) -> _Node[W] | None:
        """Return the treap ``root`` without the node ``gone``, which is in it."""
        if root is gone or root is None:
            return _merge(gone.left, gone.right)
        if _before(gone.begin, gone.end, root):
            root.left = self._without(root.left, gone)
        else:
            root.right = self._without(root.right, gone)
        root.refresh()
        return root
