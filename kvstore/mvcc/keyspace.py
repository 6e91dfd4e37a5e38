"""The key index: an ordered map of keys of any length, on tables whose keys end at 511 bytes.

A key of at most ``SEGMENT_BYTES`` is stored as itself in the root table. A longer key is cut into
segments. All keys that share their first segments live in one *node* of the ``long`` table, under a
16-byte name (a hash of the shared prefix), each by its last segment. Where keys go on below a
segment, their node's parent holds one entry more: that segment with a byte behind it, the only
entries one byte longer than a segment. Such an entry sorts after the key that ends exactly there
and before every key with a greater segment; so walking the tables, and stepping down at each such
entry, meets all keys in byte order. An entry of this kind exists exactly while its node has
entries.

A short key costs one LMDB operation. A long key costs one to read, and to write one for each of
its segments that no other key shares.

A damaged page, of which LMDB keeps no checksum, can make a key seem absent that is there.
What is not found is believed only after a look around (``kvstore.mvcc.absence``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from typing import Final

import lmdb

from kvstore.mvcc.absence import OUT_OF_ORDER, prove_absent, prove_beginning
from kvstore.mvcc.records import Damaged, seal, unseal

SEGMENT_BYTES: Final = 480
"""Longest piece of a key in one LMDB key: with node name and mark it stays under 511 bytes."""

NODE_BYTES: Final = 16
_MARK: Final = b"\1"

Table = lmdb._Database


class Keyspace:
    """Ordered map from keys to values. The caller hands in the transaction on every call.

    Args:
        root: table of short keys and of the first segments of long ones.
        long: table of nodes below them.
        segment: bytes in one segment; small values are for tests.
    """

    def __init__(self, root: Table, long: Table, segment: int = SEGMENT_BYTES) -> None:
        self._root = root
        self._long = long
        self._segment = segment

    def get(self, txn: lmdb.Transaction[bytes], key: bytes) -> bytes | None:
        """Return the value of ``key``, or None.

        Raises:
            Damaged: nobody can tell whether it is there.
        """
        if len(key) <= self._segment:
            value = txn.get(key, db=self._root)
            if value is None:
                prove_absent(txn, self._root, "index", key)
            return value
        cut = (len(key) - 1) // self._segment * self._segment
        prefix = key[:cut]
        node = blake2b(prefix, digest_size=NODE_BYTES).digest()
        value = txn.get(node + key[cut:], db=self._long)
        if value is None:
            prove_absent(
                txn, self._long, "index", node + key[cut:], partial(self._sealed_with, node, prefix)
            )
        return value

    def _sealed_with(self, node: bytes, prefix: bytes, name: bytes) -> bytes | None:
        """A long key's value is sealed with the whole key, which is known within a known node."""
        if len(name) > NODE_BYTES + self._segment:
            return name
        return prefix + name[NODE_BYTES:] if name.startswith(node) else None

    def put(self, txn: lmdb.Transaction[bytes], key: bytes, value: bytes) -> None:
        """Set the value of ``key``."""
        if len(key) <= self._segment:
            txn.put(key, value, db=self._root)
            return
        names = self._path(key)
        txn.put(names[-1], value, db=self._long)
        for level in range(len(names) - 2, -1, -1):
            name = names[level] + _MARK
            table = self._long if level else self._root
            if not txn.put(name, seal(name, b""), overwrite=False, db=table):
                return

    def delete(self, txn: lmdb.Transaction[bytes], key: bytes) -> bool:
        """Remove ``key``; return whether it was there."""
        if len(key) <= self._segment:
            return txn.delete(key, db=self._root)
        names = self._path(key)
        if not txn.delete(names[-1], db=self._long):
            return False
        with txn.cursor(db=self._long) as cursor:
            for level in range(len(names) - 1, 0, -1):
                node = names[level][:NODE_BYTES]
                if cursor.set_range(node) and cursor.key()[:NODE_BYTES] == node:
                    break
                txn.delete(names[level - 1] + _MARK, db=self._long if level > 1 else self._root)
        return True

    def scan(
        self, txn: lmdb.Transaction[bytes], start: bytes, end: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in byte order from ``start`` to before ``end`` (None: to the last).

        Nothing may be written through ``txn`` until the walk is over or given up.
        """
        segment = self._segment
        first = start[:segment] or b"\0"
        prove_beginning(txn, self._root, "index", first)
        last = b""
        with txn.cursor(db=self._root) as cursor:
            if not cursor.set_range(first):
                return
            for name, value in cursor.iternext():
                if name <= last:
                    raise Damaged("index", name, OUT_OF_ORDER)
                last = name
                if len(name) > segment:
                    prefix = name[:segment]
                    if end is not None and prefix >= end:
                        return
                    unseal("index", name, value)
                    yield from self._scan_node(txn, prefix, start, end)
                    continue
                if end is not None and name >= end:
                    return
                if name >= start:
                    yield name, value

    def check_path(self, txn: lmdb.Transaction[bytes], key: bytes) -> None:
        """Make sure that a walk would come by ``key``, which is there.

        Raises:
            Damaged: an entry on the way to a long key is missing.
        """
        names = self._path(key) if len(key) > self._segment else []
        for level, name in enumerate(names[:-1]):
            sealed = txn.get(name + _MARK, db=self._long if level else self._root)
            if sealed is None:
                raise Damaged("index", name + _MARK, "missing")
            unseal("index", name + _MARK, sealed)

    def _scan_node(
        self, txn: lmdb.Transaction[bytes], prefix: bytes, start: bytes, end: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The same for one node and all below it, without recursion: keys may have 3000 levels.

        The prefix grows by a segment with each level; it is joined, and compared with ``end``, only
        where a key ends. ``follows``: whether it is the beginning of ``start`` so far.
        """
        segment = self._segment
        hasher = blake2b(prefix, digest_size=NODE_BYTES)
        follows = start[:segment] == prefix
        parts = [prefix]
        stack = [(hasher, follows, self._walk_node(txn, hasher, start, segment, follows))]
        while stack:
            hasher, follows, walk = stack[-1]
            for tail, value in walk:
                if len(tail) > segment:
                    unseal("index", hasher.digest() + tail, value)
                    depth = segment * len(parts)
                    follows = follows and start[depth : depth + segment] == tail[:segment]
                    hasher = hasher.copy()
                    hasher.update(tail[:segment])
                    parts.append(tail[:segment])
                    below = self._walk_node(txn, hasher, start, depth + segment, follows)
                    stack.append((hasher, follows, below))
                    break
                key = b"".join(parts) + tail
                if end is not None and key >= end:
                    return
                if key >= start:
                    yield key, value
            else:
                stack.pop()
                parts.pop()

    def _walk_node(
        self,
        txn: lmdb.Transaction[bytes],
        hasher: blake2b,
        start: bytes,
        depth: int,
        follows: bool,
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (last segment, value) of a node's entries that may lead to keys from ``start``."""
        node = hasher.digest()
        first = node + start[depth : depth + self._segment] if follows else node
        with txn.cursor(db=self._long) as cursor:
            if not cursor.set_range(first):
                return
            for name, value in cursor.iternext():
                if name[:NODE_BYTES] != node:
                    return
                yield name[NODE_BYTES:], value

    def _path(self, key: bytes) -> list[bytes]:
        """Return the LMDB key of each of a long key's segments, from the root down."""
        segment = self._segment
        names = [key[:segment]]
        hasher = blake2b(digest_size=NODE_BYTES)
        for cut in range(segment, len(key), segment):
            hasher.update(key[cut - segment : cut])
            names.append(hasher.copy().digest() + key[cut : cut + segment])
        return names
