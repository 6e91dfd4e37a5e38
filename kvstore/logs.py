"""Logs: one line an event, as JSON with the field names of etcd's own, or for a person to read."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any, Final, TextIO

import structlog

from consensus.errors import ConfigError

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "dpanic": logging.CRITICAL,
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}


class Outputs:
    """Writes each line to every output, at once: a log line must not be lost in a crash."""

    def __init__(self, streams: Sequence[TextIO]) -> None:
        self._streams = tuple(streams)

    def write(self, text: str) -> int:
        """Write ``text`` everywhere."""
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush everywhere."""
        for stream in self._streams:
            stream.flush()


def open_outputs(names: Sequence[str]) -> Outputs:
    """Return the outputs of ``--log-outputs``.

    Raises:
        ConfigError: a file cannot be written.
    """
    streams: list[TextIO] = []
    for name in names or ("default",):
        if name in ("default", "stderr"):
            streams.append(sys.stderr)
        elif name == "stdout":
            streams.append(sys.stdout)
        else:
            try:
                streams.append(open(name, "a", buffering=1))  # noqa: SIM115 - for all of its life
            except OSError as error:
                raise ConfigError(f"--log-outputs: cannot write {name}: {error.strerror}") from None
    return Outputs(streams)


def configure_logs(level: str, form: str, outputs: Sequence[str]) -> None:
    """Set logging up for the process.

    Args:
        level: a key of ``LEVELS``.
        form: "json" or "console".
        outputs: see ``open_outputs``.
    """
    sink = open_outputs(outputs)
    renderer: Any
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
        processors: list[Any] = [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("msg"),
            _order,
        ]
    else:
        color = len(outputs) <= 1 and sys.stderr.isatty()
        renderer = structlog.dev.ConsoleRenderer(
            colors=color,
            pad_event_to=36,
            exception_formatter=structlog.dev.plain_traceback,
            timestamp_key="ts",
        )
        processors = []
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            *processors,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sink),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    # Libraries that use the standard library's logging: only what is worth a person's time.
    logging.basicConfig(level=logging.WARNING, stream=sink, force=True, format="%(message)s")


def _order(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put level, time and text first."""
    head = {key: event.pop(key) for key in ("level", "ts", "msg") if key in event}
    return {**head, **event}
