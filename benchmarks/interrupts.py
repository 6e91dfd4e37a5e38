"""Ctrl-C and SIGTERM end a benchmark, and every process that it started.

Both raise ``KeyboardInterrupt``, and ``finally`` does the rest; only inside the start of a process
that would be too early, as its id would be lost. A guardian ends what SIGKILL leaves behind.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from chaos import guardian

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_on_signals() -> None:
    """Let SIGTERM do what Ctrl-C does, and SIGKILL leave no process. Main thread only."""
    guardian.engage()
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Keep both signals until the block is over, so that no process is started and forgotten.

    Raises:
        KeyboardInterrupt: after the block, if one came.
    """
    came = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = [signal.signal(number, note) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
