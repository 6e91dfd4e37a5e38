"""Copies and canonical forms of a core's state, whatever fields it has.

Both walk plain values. What is frozen is shared by copies; what a core changes is copied. Two
states have the same canonical form exactly if nothing that a core can see tells them apart: sets
and dictionaries are put in order, and an object is its class and its fields.
"""

from __future__ import annotations

import enum
from collections import deque
from functools import cache
from typing import Any, Final

import attrs

_ATOMS: Final = (int, str, bytes, bool, float, type(None), enum.Enum)


@cache
def _frozen(kind: type[Any]) -> bool:
    # attrs makes a class hashable by its fields only where they cannot be set; named tuples are.
    hashable: Any = kind.__hash__
    return issubclass(kind, _ATOMS) or (
        (attrs.has(kind) or hasattr(kind, "_fields")) and hashable is not None
    )


@cache
def _slots(kind: type[Any]) -> tuple[str, ...]:
    if attrs.has(kind):
        return tuple(field.name for field in attrs.fields(kind))
    named: tuple[str, ...] = getattr(kind, "_fields", ())
    return named


def fields_of(value: object) -> dict[str, Any]:
    """Return an object's fields by name."""
    kind: Any = type(value)
    names = _slots(kind)
    return {name: getattr(value, name) for name in names} if names else vars(value)


def clone(value: Any) -> Any:
    """Return a copy that shares only what never changes."""
    kind: Any = type(value)
    if _frozen(kind):
        return value
    if kind is tuple:
        return tuple(map(clone, value))
    if kind is list or kind is set:
        return kind(map(clone, value))
    if kind is deque:
        return deque(map(clone, value), value.maxlen)
    if kind is dict:
        return {key: clone(item) for key, item in value.items()}
    copy = object.__new__(kind)
    for name, item in fields_of(value).items():
        setattr(copy, name, clone(item))
    return copy


def canonical(value: Any) -> Any:
    """Return a value of tuples and atoms, equal for states that are the same."""
    kind = type(value)
    if issubclass(kind, enum.Enum):
        return value.name
    if issubclass(kind, _ATOMS):
        return value
    if kind is tuple or kind is list or kind is deque:
        return tuple(map(canonical, value))
    if kind is dict:
        return tuple(sorted((key, canonical(item)) for key, item in value.items()))
    if kind is set or kind is frozenset:
        return tuple(sorted(map(canonical, value)))
    return (kind.__name__, *map(canonical, fields_of(value).values()))
