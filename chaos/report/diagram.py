"""The picture of a violation: its few operations as bars, drawn without a script.

Operations that lie far apart in time would be hairlines on a true scale, so the picture keeps the
order of all beginnings and ends and not their distances; the real times stand beside the bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from chaos.history.format import Operation
from chaos.report.wording import answered, asked, shorten

WIDTH: Final = 980
ROW_HEIGHT: Final = 44
LABEL_WIDTH: Final = 190
TEXT_CHARACTERS: Final = 78


@attrs.frozen(slots=True)
class Bar:
    """One operation: places in pixels, and what to write beside it."""

    id: int
    x: int
    y: int
    width: int
    is_open: bool
    is_accused: bool
    outcome: str
    process: str
    times: str
    asked: str
    answered: str
    text_x: int
    anchor: str


@attrs.frozen(slots=True)
class Diagram:
    """Bars, and the size of the picture."""

    width: int
    height: int
    label_width: int
    bars: tuple[Bar, ...]


def draw(operations: Sequence[Operation], accused: frozenset[int], zero: int) -> Diagram:
    """Place the operations.

    Args:
        operations: few, by start.
        accused: ids of those that the finding names.
        zero: the time (ns) that is written as 0.
    """
    moments = {operation.start for operation in operations}
    moments |= {operation.end for operation in operations if operation.end is not None}
    order = {moment: number for number, moment in enumerate(sorted(moments))}
    step = (WIDTH - LABEL_WIDTH - 30) / max(1, len(order))
    bars = []
    for row, operation in enumerate(operations):
        x = round(LABEL_WIDTH + order[operation.start] * step)
        if operation.end is None:
            right = WIDTH - 6
        else:
            right = round(LABEL_WIDTH + order[operation.end] * step)
        on_the_right = x > LABEL_WIDTH + (WIDTH - LABEL_WIDTH) // 2
        bars.append(
            Bar(
                id=operation.id,
                x=x,
                y=row * ROW_HEIGHT + 6,
                width=max(8, right - x),
                is_open=operation.end is None,
                is_accused=operation.id in accused,
                outcome=operation.outcome.value,
                process=f"client {operation.process}"
                + (f" at {operation.node}" if operation.node else ""),
                times=_times(operation, zero),
                asked=shorten(asked(operation), TEXT_CHARACTERS),
                answered=shorten(answered(operation), TEXT_CHARACTERS),
                text_x=max(8, right - x) + x if on_the_right else x,
                anchor="end" if on_the_right else "start",
            )
        )
    return Diagram(WIDTH, len(operations) * ROW_HEIGHT + 8, LABEL_WIDTH, tuple(bars))


def _times(operation: Operation, zero: int) -> str:
    begin = f"{(operation.start - zero) / 1e9:.6f}"
    return f"{begin} – " + (
        "open" if operation.end is None else f"{(operation.end - zero) / 1e9:.6f} s"
    )
