"""How h2corn is set up: each of its limits by name, with what etcd does in that place.

h2corn's defaults guard a public web server; an etcd client keeps one connection open for weeks with
thousands of streams, most of them silent. Each default that would cut such a client off is changed
here, and nowhere else. One limit cannot be changed: a connection on which a client cancels some 200
calls within seconds is closed (against "rapid reset" attacks); its client connects again.
"""

from __future__ import annotations

from typing import Final, Literal

import h2corn
import h2corn._lib

LogFormat = Literal["text", "json"]

STREAMS_NO_LIMIT: Final = 2**32 - 1
"""etcd's own default of ``--max-concurrent-streams``."""

GRACE_S: Final = 1.0
"""Time for responses under way to leave at shutdown; the application has ended every call."""

STALL_TIMEOUT_S: Final = 30.0
"""How long a stream may hold bytes that its client has no window for."""

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""Most that an HTTP (not gRPC) request may upload; the gateway itself refuses far earlier."""


def h2corn_config(
    bind: tuple[str, ...],
    max_concurrent_streams: int = STREAMS_NO_LIMIT,
    body_bytes_max: int = BODY_BYTES_MAX,
    stall_timeout_s: float = STALL_TIMEOUT_S,
    log_format: LogFormat = "json",
) -> h2corn.Config:
    """Return h2corn's configuration for an etcd client port.

    Args:
        bind: listeners, as ``host:port``, ``unix:path`` or ``fd://number``.
        max_concurrent_streams: streams that one connection may have open.
        log_format: form of what h2corn itself writes to stderr.
        stall_timeout_s: seconds after which a stream that its client does not read is reset.
        body_bytes_max: greatest HTTP request body in bytes; gRPC has its own limit per message.
    """
    return h2corn.Config(
        bind=bind,
        grpc=True,
        lifespan="off",
        # h2corn: 2. With one, no thread of it wakes another: a request costs a tenth less.
        runtime_threads=1,
        access_log=False,
        log_format=log_format,
        # etcd: math.MaxUint32 (h2corn: 256). A client with many watches opens many streams.
        max_concurrent_streams=max_concurrent_streams,
        max_request_body_size=body_bytes_max,
        # etcd pings an idle connection and never closes it (h2corn: 120 s).
        timeout_keep_alive=0.0,
        # h2corn keeps at most 2 MiB for a connection, whatever stream they are for: a stream that
        # its client does not read, once it has filled them, holds up the others beside it. So it
        # is reset after a while; a watch client resumes from its revision and loses nothing.
        h2_timeout_response_stall=stall_timeout_s,
        # A connection that is slow, or whose client is paused, is not for that cut off (60 s).
        h2_timeout_write=0.0,
        # The application ends its streams itself before it asks h2corn to stop (h2corn: 30 s).
        timeout_graceful_shutdown=GRACE_S,
        # Other members and probes may be slow to speak on a loaded machine (h2corn: 5 s).
        timeout_handshake=30.0,
    )


def silence_banner() -> None:
    """Keep h2corn's start-up banner out of a log that may be JSON; it has no option for that."""
    if hasattr(h2corn._lib, "emit_banner"):
        h2corn._lib.emit_banner = lambda *_: None
