"""The map against a dictionary."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

import statemachines.map
from statemachines import Map
from tests.statemachines.driver import STATEFUL, Driver, MachineRules, refused

KEYS = st.sampled_from(["a", "a/", "a/b", "a/c", "ab", "b", "\U0001f600", "\uffff", "é"])


class MapRules(MachineRules):
    machine = Map

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, tuple[Any, int]] = {}
        self.version = 0

    def version_of(self, key: str) -> int:
        return self.model[key][1] if key in self.model else 0

    @rule(key=KEYS, value=st.integers())
    def put(self, key: str, value: int) -> None:
        self.version += 1
        self.model[key] = (value, self.version)
        assert self.do("put", key=key, value=value) == {"version": self.version}

    @rule(key=KEYS, value=st.integers(), stale=st.sampled_from([0, 0, 1, -1]))
    def compare_and_set(self, key: str, value: int, stale: int) -> None:
        expected = max(0, self.version_of(key) + stale)
        succeeded = expected == self.version_of(key)
        if succeeded:
            self.version += 1
            self.model[key] = (value, self.version)
        answer = self.do("compare_and_set", key=key, version=expected, value=value)
        assert answer == {"succeeded": succeeded, "version": self.version_of(key)}

    @rule(key=KEYS, conditional=st.booleans(), stale=st.integers(0, 1))
    def delete(self, key: str, conditional: bool, stale: int) -> None:
        version = max(1, self.version_of(key) + stale) if conditional else None
        deleted = key in self.model and version in (None, self.version_of(key))
        if deleted:
            del self.model[key]
            self.version += 1
        answer = self.do("delete", key=key, version=version)
        assert answer == {"deleted": deleted, "version": self.version}

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        found = self.model.get(key)
        row = {"key": key, "value": found[0], "version": found[1]} if found else None
        assert self.ask("get", key=key) == row

    @rule(prefix=st.one_of(st.just(""), KEYS), limit=st.integers(1, 4))
    def items_page_by_page(self, prefix: str, limit: int) -> None:
        found: list[tuple[str, Any, int]] = []
        after = ""
        while True:
            page = self.ask("items", prefix=prefix, after=after, limit=limit)
            assert page["version"] == self.version
            found += [(row["key"], row["value"], row["version"]) for row in page["items"]]
            if not page["more"]:
                break
            assert len(page["items"]) == limit
            after = found[-1][0]
        expected = [(key, *row) for key, row in sorted(self.model.items())]
        assert found == [row for row in expected if row[0].startswith(prefix)]

    @rule()
    def size(self) -> None:
        size = self.ask("size")
        assert size["keys"] == len(self.model)
        texts = [key.encode() + str(row[0]).encode() for key, row in self.model.items()]
        assert size["bytes"] == sum(map(len, texts))


TestMap = MapRules.TestCase
TestMap.settings = STATEFUL


def test_bounds_of_keys_and_bytes_refuse_new_keys_and_let_old_ones_shrink(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statemachines.map, "KEYS_MAX", 2)
    monkeypatch.setattr(statemachines.map, "TOTAL_BYTES_MAX", 19)
    driver = Driver(Map)
    assert driver.do("put", key="a", value=12345678) == {"version": 1}
    assert driver.do("put", key="b", value=1) == {"version": 2}
    assert "keys" in driver.do("put", key="c", value=1)["refused"]
    assert "bytes" in driver.do("put", key="b", value=1234567890)["refused"]
    assert driver.do("put", key="a", value=1) == {"version": 3}
    assert driver.do("put", key="b", value=123456789) == {"version": 4}


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("put", {"key": "", "value": 1}),
        ("put", {"key": 7, "value": 1}),
        ("put", {"key": "k" * 1025, "value": 1}),
        ("put", {"key": "\ud800", "value": 1}),
        ("put", {"key": "k", "value": "x" * 65_536}),
        ("put", {"key": "k", "value": float("nan")}),
        ("put", {"key": "k"}),
        ("compare_and_set", {"key": "k", "version": -1, "value": 1}),
        ("delete", {"key": "k", "version": "new"}),
        ("nothing", {}),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(method: str, arguments: dict[str, Any]) -> None:
    driver = Driver(Map)
    assert refused(driver.do(method, **arguments))
    assert driver.ask("size") == {"keys": 0, "bytes": 0, "version": 0}


def test_a_value_that_nests_too_deep_is_refused() -> None:
    value: Any = 1
    for _ in range(33):
        value = [value]
    answer = Driver(Map).do("put", key="k", value=value)
    assert "nests deeper" in answer["refused"]
