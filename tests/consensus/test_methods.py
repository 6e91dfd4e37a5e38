"""MethodMachine: no call from outside can raise, and a restored member is like the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consensus import BytesSnapshot, Entry, Handle, MethodMachine, Node, Refused, command, query
from consensus.engines.local import LocalEngine
from consensus.methods import CALL_DEPTH_MAX, encode_call


class Roll(MethodMachine):
    """Names in the order in which they came, with what is said of them."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    @command
    def add(self, name: str, said: Any = None, weight: int | None = None) -> int:
        if name in self.names:
            raise Refused(f"{name!r} is there already")
        self.names[name] = [said, weight]
        return len(self.names)

    @command
    def take_first(self) -> str | None:
        first = next(iter(self.names), None)
        if first is not None:
            del self.names[first]
        return first

    @command
    def scale(self, factor: float, only: list[str] | None = None, quick: bool = False) -> float:
        return factor * 2

    @query
    def count(self) -> int:
        return len(self.names)


def apply(machine: Roll, data: bytes) -> Any:
    return machine.apply(Entry(1, 1, 1, data))


def call(machine: Roll, method: str, **arguments: Any) -> Any:
    return apply(machine, encode_call(method, arguments))


@pytest.mark.parametrize(
    ("method", "arguments", "reason"),
    [
        ("add", {"name": 7}, "Roll.add: 'name' must be str, not int"),
        ("add", {"name": "a", "weight": True}, "Roll.add: 'weight' must be int or null, not bool"),
        ("add", {"name": "a", "weight": 1.5}, "Roll.add: 'weight' must be int or null, not float"),
        ("add", {}, "Roll.add: missing a required argument: 'name'"),
        ("add", {"name": "a", "b": 1}, "Roll.add: got an unexpected keyword argument 'b'"),
        ("scale", {"factor": "2"}, "Roll.scale: 'factor' must be float or int, not str"),
        ("scale", {"factor": 1, "only": {}}, "Roll.scale: 'only' must be list or null, not dict"),
        ("scale", {"factor": 1, "quick": 1}, "Roll.scale: 'quick' must be bool, not int"),
        ("count", {}, "'count' is a query, not a command"),
        ("drop", {}, "Roll has no method 'drop'; it has: add, count, scale, take_first"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_before_the_method_sees_it(
    method: str, arguments: dict[str, Any], reason: str
) -> None:
    assert call(Roll(), method, **arguments) == {"refused": reason}


def test_what_fits_is_let_through() -> None:
    machine = Roll()
    assert call(machine, "add", name="a", said={"any": [1, None]}, weight=3) == 1
    assert call(machine, "scale", factor=1, only=["a"], quick=True) == 2
    assert call(machine, "scale", factor=1.5) == 3.0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        b'{"method":"add"}',
        b'{"method":["add"],"args":{}}',
        b'{"method":"add","args":[]}',
        b"[" * 100_000,
        b'{"method":"add","args":{"name":"a","said":' + b"[" * 5000 + b"]" * 5000 + b"}}",
        '{"method":"count","args":{}}'.encode("utf-16"),
    ],
)
def test_bytes_that_are_no_call_are_refused(data: bytes) -> None:
    assert "refused" in apply(Roll(), data)
    assert "refused" in Roll().query(data)


def test_brackets_inside_text_do_not_count_as_nesting() -> None:
    text = '[{\\"' * 2 * CALL_DEPTH_MAX
    assert call(Roll(), "add", name="a", said=text) == 1
    wide = [[number] for number in range(3 * CALL_DEPTH_MAX)]
    assert call(Roll(), "add", name="a", said=wide) == 1
    deep: Any = 1
    for _ in range(CALL_DEPTH_MAX):
        deep = [deep]
    assert "nests deeper" in call(Roll(), "add", name="a", said=deep)["refused"]


def test_a_restored_member_iterates_in_the_same_order() -> None:
    machine = Roll()
    for name in ("zoe", "ann", "bob"):
        call(machine, "add", name=name)
    restored = Roll()
    frozen = machine.snapshot()
    assert isinstance(frozen, BytesSnapshot)
    restored.restore(frozen.data)
    assert restored.state_hash() == machine.state_hash()
    assert call(restored, "take_first") == call(machine, "take_first") == "zoe"
    assert restored.state_hash() == machine.state_hash()


def test_a_subclass_has_its_bases_methods_and_its_own() -> None:
    class Longer(Roll):
        @query
        def names_in_order(self) -> list[str]:
            return sorted(self.names)

    assert Longer.kind("add") == "command"
    assert Longer.kind("names_in_order") == "query"
    assert Roll.kind("names_in_order") is None


async def test_a_handle_checks_calls_before_they_are_sent() -> None:
    async with Node(Roll(), LocalEngine()) as node:
        roll = Handle(node, Roll)
        with pytest.raises(TypeError, match="'name' must be str, not int"):
            await roll.add(name=7)
        with pytest.raises(TypeError, match="not JSON serializable"):
            await roll.add(name="a", said={1, 2})
        assert node.status().applied_index == 0
        assert await roll.add(name="a") == 1
        with pytest.raises(Refused, match="there already"):
            await roll.add(name="a")
        assert await roll.count() == 1


def test_a_call_has_the_same_bytes_whatever_the_order_of_its_arguments() -> None:
    assert Roll.encode("add", name="a", weight=1) == Roll.encode("add", weight=1, name="a")
    assert json.loads(Roll.encode("count")) == {"method": "count", "args": {}}
