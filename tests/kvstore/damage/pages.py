"""Where things are in an LMDB file: a reader of its own, so that damage can be aimed.

Written from the layout that LMDB's documentation and files show: two meta pages, trees of branch
and leaf pages, runs of overflow pages. Pages that no tree reaches are free, and not listed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

PAGE: Final = 4096
_HEADER: Final = struct.Struct("<QHHHH")
_NODE: Final = struct.Struct("<HHHH")
_TREE: Final = struct.Struct("<IHHQQQQQ")
_BRANCH, _LEAF = 1, 2
_BIG, _SUBTREE = 1, 2
_NO_PAGE: Final = 2**64 - 1
_META_TREES: Final = 16 + 24
_META_TAIL: Final = _META_TREES + 2 * _TREE.size
_META_END: Final = _META_TAIL + 16

KINDS: Final = ("meta", "page header", "places", "branch", "name", "value", "large value")


@attrs.frozen(slots=True)
class Place:
    """Some bytes of the file that mean something: what they are, and in which table."""

    kind: str
    table: str
    offset: int
    length: int


def places_in(path: Path) -> list[Place]:
    """Return everything that the newest state of a database consists of.

    Raises:
        ValueError, struct.error: the file changed while it was read, or is damaged.
    """
    data = path.read_bytes()
    _, newest = max(
        (struct.unpack_from("<Q", data, page * PAGE + _META_TAIL + 8)[0], page) for page in (0, 1)
    )
    found = [Place("meta", "", newest * PAGE + 16, _META_END - 16)]
    roots = [("", _root(data, newest * PAGE + _META_TREES + _TREE.size))]
    while roots:
        table, root = roots.pop()
        if root != _NO_PAGE:
            found.extend(_walk(data, table, root, roots))
    return found


def _root(data: bytes, offset: int) -> int:
    return int(_TREE.unpack_from(data, offset)[-1])


def _walk(data: bytes, table: str, root: int, roots: list[tuple[str, int]]) -> Iterator[Place]:
    pages = [root]
    met = 0
    while pages:
        start = pages.pop() * PAGE
        met += PAGE
        if met > len(data):
            raise ValueError("the pages of a tree lead in a circle")
        number, _, flags, lower, _ = _HEADER.unpack_from(data, start)
        if number != start // PAGE or not flags & (_BRANCH | _LEAF):
            raise ValueError(f"page {start // PAGE} is none of a tree")
        yield Place("page header", table, start, _HEADER.size)
        yield Place("places", table, start + _HEADER.size, lower - _HEADER.size)
        for at in range(_HEADER.size, lower, 2):
            node = start + struct.unpack_from("<H", data, start + at)[0]
            low, high, node_flags, name_bytes = _NODE.unpack_from(data, node)
            value = node + _NODE.size + name_bytes
            if flags & _BRANCH:
                pages.append(low | high << 16 | node_flags << 32)
                yield Place("branch", table, node, _NODE.size + name_bytes)
                continue
            yield Place("name", table, node, _NODE.size + name_bytes)
            if node_flags & _SUBTREE:
                roots.append((data[value - name_bytes : value].decode(), _root(data, value)))
            if node_flags & _BIG:
                first = struct.unpack_from("<Q", data, value)[0]
                yield Place("large value", table, first * PAGE + _HEADER.size, low | high << 16)
            else:
                yield Place("value", table, value, low | high << 16)
