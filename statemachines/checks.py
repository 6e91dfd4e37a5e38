"""Checks of what a caller sent, shared by all machines.

A command comes from outside, so any argument may be anything that JSON can say. What does not fit
is refused in words that say what was wrong and what would be right; if it were let in, a wrong type
would raise later, inside ``apply``, on every member at once.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from consensus.methods import Refused

NAME_BYTES_MAX: Final = 256
"""Longest name of a lock, owner, service, worker and the like, in bytes of UTF-8."""

DEPTH_MAX: Final = 32
"""How deep lists and objects inside a value may nest."""

TTL_MS_MAX: Final = 24 * 3600 * 1000
"""Longest time to live that a command may ask for: a day."""


def check_text(what: str, value: Any, bytes_max: int = NAME_BYTES_MAX) -> str:
    """Return ``value`` if it is text of 1 to ``bytes_max`` bytes.

    Raises:
        Refused: it is not; ``what`` names it in the reason.
    """
    if not isinstance(value, str):
        raise Refused(f"{what} must be text, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Refused(f"{what} must be text that UTF-8 can hold") from None
    if not 1 <= size <= bytes_max:
        raise Refused(f"{what} must have 1 to {bytes_max} bytes, not {size}")
    return value


def check_integer(what: str, value: Any, lowest: int, highest: int) -> int:
    """Return ``value`` if it is a whole number from ``lowest`` to ``highest``.

    Raises:
        Refused: it is not; ``what`` names it in the reason.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"{what} must be a whole number, not {type(value).__name__}")
    if not lowest <= value <= highest:
        raise Refused(f"{what} must be between {lowest} and {highest}, not {value}")
    return value


def check_ttl_ms(what: str, value: Any) -> int:
    """Return ``value`` if it is a time to live in milliseconds, 1 to ``TTL_MS_MAX``.

    Raises:
        Refused: it is not.
    """
    return check_integer(what, value, 1, TTL_MS_MAX)


def check_value(what: str, value: Any, bytes_max: int) -> str:
    """Return ``value`` as canonical JSON text: equal texts, equal values.

    Machines keep values as this text and parse it for each reader, so that nobody in the same
    process can reach into the replicated state through an answer.

    Raises:
        Refused: it takes more than ``bytes_max`` bytes, nests deeper than ``DEPTH_MAX``, or holds a
            number that JSON does not have (NaN, infinity).
    """
    level = [value]
    depth = 0
    while level:  # level by level, so that no nesting can exhaust the interpreter's stack
        if depth > DEPTH_MAX:
            raise Refused(f"{what} nests deeper than {DEPTH_MAX} levels")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise Refused(f"{what} holds {item}, which JSON does not have")
        level = below
        depth += 1
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    if len(text) > bytes_max:
        raise Refused(f"{what} must take at most {bytes_max} bytes as JSON, not {len(text)}")
    return text
