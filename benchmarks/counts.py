"""Options that are lists of counts, as in ``--callers 1,64,256``."""

from __future__ import annotations

from typing import Final

import click

COUNT_MAX: Final = 10_000


def counts(_: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    """Return "1,64,256" as numbers; a click callback.

    Raises:
        click.BadParameter: an item is no number from 1 to ``COUNT_MAX``.
    """
    items = text.split(",")
    for item in items:
        if not item.strip().isdigit() or not 0 < int(item) <= COUNT_MAX:
            raise click.BadParameter(
                f"{item!r} is not a number from 1 to {COUNT_MAX}; write {option.opts[0]} 1,64,256"
            )
    return tuple(map(int, items))
