"""The interval index against a list that is searched from end to end."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvstore.watch.index import WatchIndex, range_is_empty
from tests.kvstore.watch.fakes import in_range

KEYS = st.binary(max_size=3).map(lambda raw: bytes(byte % 4 for byte in raw))
WATCHES = st.tuples(KEYS, KEYS).filter(lambda w: not range_is_empty(*w))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    watches=st.lists(WATCHES, max_size=30),
    removed=st.sets(st.integers(0, 29)),
    keys=st.lists(KEYS, min_size=1, max_size=10),
)
def test_match_finds_what_a_full_search_finds(
    watches: list[tuple[bytes, bytes]], removed: set[int], keys: list[bytes]
) -> None:
    index: WatchIndex[int] = WatchIndex()
    for number, (key, end) in enumerate(watches):
        index.add(number, key, end)
    for number in removed & set(range(len(watches))):
        index.remove(number, *watches[number])
    left = {n: w for n, w in enumerate(watches) if n not in removed}
    assert len(index) == len(left)
    assert sorted(index) == sorted(left)
    for key in keys:
        expected = sorted(n for n, (first, end) in left.items() if in_range(key, first, end))
        assert sorted(index.match(key)) == expected


def test_removing_an_unknown_watcher_is_an_error() -> None:
    index: WatchIndex[int] = WatchIndex()
    index.add(1, b"a", b"b")
    for key, end in ((b"a", b"b"), (b"a", b"c"), (b"a", b"")):
        with pytest.raises(KeyError):
            index.remove(2, key, end)
    assert index.match(b"a") == [1]


@pytest.mark.parametrize("nested", [False, True])
def test_search_does_not_visit_ranges_that_cannot_match(nested: bool) -> None:
    index: WatchIndex[int] = WatchIndex()
    for number in range(10_000):
        first = b"k/%05d/" % number
        index.add(number, first, b"k/99999" if nested and number % 100 == 0 else first[:-1] + b"0")
    rounds = 2_000
    started = time.perf_counter()
    for _ in range(rounds):
        assert index.match(b"other") == []
        assert index.match(b"a") == []
    per_match_us = (time.perf_counter() - started) / rounds / 2 * 1e6
    assert per_match_us < 50, f"{per_match_us:.1f} us for a key that concerns nobody"
