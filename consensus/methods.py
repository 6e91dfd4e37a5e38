"""The short way to write a state machine: plain methods, marked as commands or queries.

::

    class Counter(MethodMachine):
        def __init__(self) -> None:
            self.value = 0

        @command
        def add(self, amount: int) -> int:
            self.value += amount
            return self.value

        @query
        def read(self) -> int:
            return self.value

A call travels as JSON: ``{"method": "add", "args": {"amount": 5}}``, so arguments and results are
what JSON can say. A call comes from outside, and one that made a command raise would halt every
member, for good: so what does not fit the method's signature, its plain annotations (``int``,
``str``, ``list[...]``, ``int | None``) included, is refused before the method sees it.

The state is the instance's ``__dict__`` unless ``dump_state`` and ``load_state`` say otherwise; its
keys are text, as JSON has it. A command that must know the time or its place in the log reads
``self.entry``.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar

import attrs

from consensus.statemachine import BytesSnapshot, StateMachine, StateSnapshot
from consensus.types import Entry

Function = TypeVar("Function", bound=Callable[..., Any])

CALL_DEPTH_MAX: Final = 100
"""How deep lists and objects in a call may nest. Python's own limit depends on how deep the caller
is in its stack, which differs between members; so this one is much lower."""

_KIND: Final = "_raftyard_kind"
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET: Final = re.compile(r"[\[\]{}]")
_ANYTHING: Final = (object,)


class Refused(Exception):
    """Raised inside a command to refuse it: the caller gets it as a result, the node goes on.

    Raise it before changing any state. Every member refuses alike, since every member has the same
    state. Any other exception is a bug in the machine and halts the node.
    """


def command(function: Function) -> Function:
    """Mark a method as a command: it may change the state and is replicated."""
    setattr(function, _KIND, "command")
    return function


def query(function: Function) -> Function:
    """Mark a method as a query: it only reads and is answered by one member."""
    setattr(function, _KIND, "query")
    return function


def encode_call(method: str, arguments: Mapping[str, Any]) -> bytes:
    """Return the bytes of one call, the same on every machine and in every process.

    Raises:
        TypeError: an argument is not something that JSON can say.
    """
    call = {"method": method, "args": dict(arguments)}
    return json.dumps(call, sort_keys=True, separators=(",", ":")).encode()


def refusal(reason: str) -> dict[str, str]:
    """Return the result value that stands for a refused command."""
    return {"refused": reason}


@attrs.frozen(slots=True)
class _Method:
    """What is known about one command or query: its kind, its signature, its arguments' types."""

    kind: str
    signature: inspect.Signature
    types: Mapping[str, tuple[type, ...]]

    @classmethod
    def of(cls, function: Callable[..., Any], kind: str) -> _Method:
        """Read a marked method. Annotations that cannot be resolved are not checked."""
        try:
            hints = typing.get_type_hints(function)
        except (NameError, TypeError):
            hints = {}
        signature = inspect.signature(function)
        plain = {name: _plain_types(hints.get(name)) for name in signature.parameters}
        return cls(kind, signature, {n: kinds for n, kinds in plain.items() if kinds != _ANYTHING})

    def misfit(self, arguments: Mapping[str, Any]) -> str:
        """Return in words why these are not arguments of this method, or nothing."""
        try:
            self.signature.bind(None, **arguments)
        except TypeError as error:
            return str(error)
        for name, value in arguments.items():
            wanted = self.types.get(name, _ANYTHING)
            if type(value) not in wanted and wanted != _ANYTHING:
                names = " or ".join(
                    "null" if kind is type(None) else kind.__name__ for kind in wanted
                )
                return f"{name!r} must be {names}, not {type(value).__name__}"
        return ""


def _plain_types(annotation: Any) -> tuple[type, ...]:
    """Return the types of JSON values that an annotation admits; ``_ANYTHING`` if not plain."""
    if annotation is float:
        return (float, int)
    if annotation in (bool, int, str, list, dict, type(None)):
        return (annotation,)
    origin = typing.get_origin(annotation)
    if origin in (list, dict):
        return (origin,)
    if origin in (typing.Union, types.UnionType):
        parts = [_plain_types(part) for part in typing.get_args(annotation)]
        return _ANYTHING if _ANYTHING in parts else tuple(kind for part in parts for kind in part)
    return _ANYTHING


def _too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= CALL_DEPTH_MAX:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > CALL_DEPTH_MAX:
            return True
    return False


class MethodMachine(StateMachine):
    """A state machine whose commands and queries are its own methods."""

    _methods: ClassVar[dict[str, _Method]] = {}

    #: The entry being applied. Set only while a command runs.
    entry: Entry

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._methods = {}
        for name, function in inspect.getmembers(cls, inspect.isfunction):
            kind = getattr(function, _KIND, None)
            if kind is not None:
                cls._methods[name] = _Method.of(function, kind)

    @classmethod
    def encode(cls, method: str, /, **arguments: Any) -> bytes:
        """Return the bytes to propose (or to query) for a call, after checking that it fits.

        Raises:
            TypeError: there is no such method, or the arguments do not fit it.
        """
        problem = cls._misfit(method, arguments)
        if problem:
            raise TypeError(problem)
        return encode_call(method, arguments)

    @classmethod
    def kind(cls, method: str) -> str | None:
        """Return "command" or "query", or None where the machine has no such method."""
        known = cls._methods.get(method)
        return known.kind if known else None

    def apply(self, entry: Entry) -> Any:
        """Run the command in ``entry``; a call that fits no command is refused, not raised."""
        parsed = self._parse(entry.command, "command")
        if isinstance(parsed, str):
            return refusal(parsed)
        method, arguments = parsed
        self.entry = entry
        try:
            return getattr(self, method)(**arguments)
        except Refused as error:
            return refusal(str(error))
        finally:
            del self.entry

    def query(self, request: bytes) -> Any:
        """Run the query in ``request``; what fits no query is refused."""
        parsed = self._parse(request, "query")
        if isinstance(parsed, str):
            return refusal(parsed)
        method, arguments = parsed
        try:
            return getattr(self, method)(**arguments)
        except Refused as error:
            return refusal(str(error))

    def dump_state(self) -> Any:
        """Return the state as JSON can say it. Override where attributes are not plain."""
        return vars(self)

    def load_state(self, state: Any) -> None:
        """Replace the state with what ``dump_state`` once returned."""
        vars(self).clear()
        vars(self).update(state)

    def snapshot(self) -> StateSnapshot:
        """Freeze the state as JSON.

        Keys stay in their order, which is the same on every member, because a restored member must
        iterate over its dictionaries as the others do.
        """
        state = json.dumps(self.dump_state(), separators=(",", ":"))
        return BytesSnapshot(state.encode())

    def restore(self, data: bytes) -> None:
        """Load what ``snapshot`` wrote."""
        self.load_state(json.loads(data))

    @classmethod
    def _misfit(cls, method: str, arguments: Mapping[str, Any]) -> str:
        known = cls._methods.get(method)
        if known is None:
            names = ", ".join(sorted(cls._methods))
            return f"{cls.__name__} has no method {method!r}; it has: {names}"
        problem = known.misfit(arguments)
        return f"{cls.__name__}.{method}: {problem}" if problem else ""

    def _parse(self, data: bytes, kind: str) -> tuple[str, dict[str, Any]] | str:
        """Return the method and its arguments, or in words why this is not such a call."""
        try:
            text = data.decode()
            if _too_deep(text):
                return f"not a call: it nests deeper than {CALL_DEPTH_MAX} levels"
            call = json.loads(text)
            method, arguments = call["method"], call["args"]
        except (ValueError, KeyError, TypeError):
            return "not a call: expected JSON with 'method' and 'args'"
        if not isinstance(method, str) or not isinstance(arguments, dict):
            return "not a call: 'method' must be text and 'args' an object"
        problem = self._misfit(method, arguments)
        if problem:
            return problem
        if self.kind(method) != kind:
            return f"{method!r} is a {self.kind(method)}, not a {kind}"
        return method, arguments
