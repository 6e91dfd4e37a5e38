"""Delta debugging (Zeller and Hildebrandt, 2002): drop what is not needed, in big pieces first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def drop_needless(
    items: Sequence[T], do_without: Callable[[Sequence[T]], bool], parts_max: int | None = None
) -> list[T]:
    """Drop all, then halves of what is left, and single items at last; return what stays.

    Args:
        items: what may go.
        do_without: tries to drop some more; says whether they could go, and remembers that they
            did.
        parts_max: stop before there would be more pieces than this to try.
    """
    left = list(items)
    size = len(left)
    while size and (parts_max is None or len(left) <= size * parts_max):
        place = 0
        while place < len(left):
            if do_without(left[place : place + size]):
                del left[place : place + size]
            else:
                place += size
        size = min(size // 2, len(left))
    return left
