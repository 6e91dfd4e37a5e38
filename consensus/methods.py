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
what JSON can say. The state is the instance's ``__dict__`` unless ``dump_state`` and ``load_state``
say otherwise. A command that must know the time or its place in the log reads ``self.entry``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar

from consensus.statemachine import BytesSnapshot, StateMachine, StateSnapshot
from consensus.types import Entry

Function = TypeVar("Function", bound=Callable[..., Any])

_KIND: Final = "_raftyard_kind"


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


class MethodMachine(StateMachine):
    """A state machine whose commands and queries are its own methods."""

    _methods: ClassVar[dict[str, tuple[str, inspect.Signature]]] = {}

    #: The entry being applied. Set only while a command runs.
    entry: Entry

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._methods = {}
        for name, function in inspect.getmembers(cls, inspect.isfunction):
            kind = getattr(function, _KIND, None)
            if kind is not None:
                cls._methods[name] = (kind, inspect.signature(function))

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
        return known[0] if known else None

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
        """Freeze the state as sorted JSON, so that equal states have equal bytes."""
        state = json.dumps(self.dump_state(), sort_keys=True, separators=(",", ":"))
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
        try:
            known[1].bind(None, **arguments)
        except TypeError as error:
            return f"{cls.__name__}.{method}: {error}"
        return ""

    def _parse(self, data: bytes, kind: str) -> tuple[str, dict[str, Any]] | str:
        """Return the method and its arguments, or in words why this is not such a call."""
        try:
            call = json.loads(data)
            method, arguments = call["method"], call["args"]
        except (ValueError, KeyError, TypeError):
            return "not a call: expected JSON with 'method' and 'args'"
        if not isinstance(method, str) or not isinstance(arguments, dict):
            return "not a call: 'method' must be text and 'args' an object"
        problem = self._misfit(method, arguments)
        if problem:
            return problem
        if self._methods[method][0] != kind:
            return f"{method!r} is a {self._methods[method][0]}, not a {kind}"
        return method, arguments
