"""Operations in one line for a person, the same everywhere in a report."""

from __future__ import annotations

import json
from typing import Final

from chaos.history.format import Operation, Outcome

TEXT_CHARACTERS_MAX: Final = 240
VALUE_CHARACTERS_MAX: Final = 60
OUTCOME_WORDS: Final = {Outcome.OK: "ok", Outcome.FAIL: "failed", Outcome.UNKNOWN: "unknown"}


def shorten(text: str, characters: int) -> str:
    """Cut a text to so many characters, and show that it was cut."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _value(value: object) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shorten(text, VALUE_CHARACTERS_MAX)


def asked(operation: Operation) -> str:
    """What was asked: ``put a=3-7``."""
    words = f"{operation.f} {operation.key}".strip()
    if operation.input is not None:
        words += f" {_value(operation.input)}"
    if operation.value is not None:
        words += f"={_value(operation.value)}"
    if operation.expected is not None:
        words += f" if modified at {operation.expected}"
    if operation.expected_value is not None:
        words += f" if it is {_value(operation.expected_value)}"
    return words


def answered(operation: Operation) -> str:
    """What came back: ``saw 3-6 (modified at 8), store at revision 9``."""
    if operation.outcome is Outcome.FAIL:
        return f"not applied: {operation.error or 'refused'}"
    if operation.outcome is Outcome.UNKNOWN:
        return f"no certain answer{': ' + operation.error if operation.error else ''}"
    parts = []
    if operation.f == "cas":
        parts.append("applied" if operation.applied else "refused")
    if operation.output is not None:
        parts.append(f"got {_value(operation.output)}")
    elif operation.f == "get" or (operation.f == "cas" and not operation.applied):
        seen = f"saw {_value(operation.seen)}"
        if operation.seen_revision:
            seen += f" (modified at {operation.seen_revision})"
        parts.append(seen)
    if operation.revision:
        parts.append(f"revision {operation.revision}")
    return ", ".join(parts) or "done"


def describe(operation: Operation) -> str:
    """Who asked what where, and what came back."""
    where = f" at {operation.node}" if operation.node else ""
    text = f"client {operation.process}: {asked(operation)}{where} → {answered(operation)}"
    return shorten(text, TEXT_CHARACTERS_MAX)
