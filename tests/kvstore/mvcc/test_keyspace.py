"""The key index against a sorted list: keys of any length, shared prefixes, zero and 0xff bytes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.mvcc.keyspace import SEGMENT_BYTES, Keyspace
from kvstore.mvcc.records import seal

BYTE = st.sampled_from([b"\0", b"\1", b"a", b"\xfe", b"\xff"])
SHORT = st.lists(BYTE, min_size=1, max_size=12).map(b"".join)
ROOTS = [b"p" * length for length in (400, 479, 480, 481, 959, 960, 961, 1441, 2000)]
LONG = st.tuples(st.sampled_from(ROOTS), SHORT | st.just(b"")).map(b"".join)
KEYS = SHORT | LONG | st.tuples(LONG, st.sampled_from([b"\0" * 500, b"\xff" * 700])).map(b"".join)
CHANGES = st.lists(st.tuples(st.booleans(), KEYS), max_size=60)


class Index:
    """A keyspace in a transaction of its own, thrown away at the end."""

    def __init__(self, env: lmdb.Environment, segment: int) -> None:
        self.txn = env.begin(write=True)
        self.root = env.open_db(b"root", txn=self.txn)
        self.long = env.open_db(b"long", txn=self.txn)
        self.keys = Keyspace(self.root, self.long, segment)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lmdb.Environment]:
    path: Path = tmp_path_factory.mktemp("keyspace")
    with lmdb.open(str(path), map_size=2**28, max_dbs=2) as environment:
        yield environment


def check_against_model(
    index: Index, changes: list[tuple[bool, bytes]], bounds: list[bytes]
) -> None:
    model: dict[bytes, bytes] = {}
    for number, (put, key) in enumerate(changes):
        if put:
            model[key] = seal(key, b"%d" % number)
            index.keys.put(index.txn, key, model[key])
        else:
            assert index.keys.delete(index.txn, key) == (model.pop(key, None) is not None)
    for key in {key for _, key in changes}:
        assert index.keys.get(index.txn, key) == model.get(key)
    ordered = sorted(model.items())
    names = [key for key, _ in ordered]
    assert list(index.keys.scan(index.txn, b"\0", None)) == ordered
    for start in bounds:
        for end in (*bounds, None):
            low = bisect_left(names, start)
            high = len(names) if end is None else max(low, bisect_left(names, end))
            assert list(index.keys.scan(index.txn, start, end)) == ordered[low:high]
    for key in names:
        assert index.keys.delete(index.txn, key)
    assert index.txn.stat(index.root)["entries"] == 0, "a mark outlived its keys"
    assert index.txn.stat(index.long)["entries"] == 0


@settings(max_examples=150, deadline=None)
@given(changes=CHANGES, bounds=st.lists(KEYS, max_size=4))
def test_keys_of_real_lengths(
    env: lmdb.Environment, changes: list[tuple[bool, bytes]], bounds: list[bytes]
) -> None:
    index = Index(env, SEGMENT_BYTES)
    try:
        check_against_model(index, changes, bounds + [key for _, key in changes[:4]])
    finally:
        index.txn.abort()


@settings(max_examples=300, deadline=None)
@given(
    segment=st.integers(1, 4),
    changes=st.lists(st.tuples(st.sampled_from([True, True, False]), SHORT), max_size=60),
    bounds=st.lists(SHORT, max_size=4),
)
def test_short_segments_make_deep_trees(
    env: lmdb.Environment, segment: int, changes: list[tuple[bool, bytes]], bounds: list[bytes]
) -> None:
    index = Index(env, segment)
    try:
        check_against_model(index, changes, bounds + [key for _, key in changes[:4]])
    finally:
        index.txn.abort()


def test_the_longest_key_a_request_can_hold(env: lmdb.Environment) -> None:
    index = Index(env, SEGMENT_BYTES)
    try:
        longest = bytes(range(256)) * (3 * 2**19 // 256)
        neighbours = [longest[:-1], longest, longest + b"\0", longest[: 2**20], b"\xff"]
        for key in neighbours:
            index.keys.put(index.txn, key, seal(key, key[-4:]))
        assert [key for key, _ in index.keys.scan(index.txn, b"\0", None)] == sorted(neighbours)
        assert [k for k, _ in index.keys.scan(index.txn, longest, b"\xff")] == [
            longest,
            longest + b"\0",
        ]
        for key in neighbours:
            assert index.keys.delete(index.txn, key)
        assert index.txn.stat(index.long)["entries"] == 0
    finally:
        index.txn.abort()
