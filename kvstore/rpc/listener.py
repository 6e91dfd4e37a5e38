"""How h2corn is set up: each of its limits by name, with what etcd does in that place.

h2corn's defaults guard a public web server; an etcd client keeps one connection open for weeks with
thousands of streams, most of them silent. Each default that would cut such a client off is changed
here, and nowhere else.
"""

from __future__ import annotations

from typing import Final

import h2corn
import h2corn._lib

STREAMS_NO_LIMIT: Final = 2**32 - 1
"""etcd's own default of ``--max-concurrent-streams``."""

GRACE_S: Final = 1.0
"""Time for responses under way to leave at shutdown; the application has ended every call."""

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""Most that an HTTP (not gRPC) request may upload; the gateway itself refuses far earlier."""


def h2corn_config(
    bind: tuple[str, ...],
    max_concurrent_streams: int = STREAMS_NO_LIMIT,
    body_bytes_max: int = BODY_BYTES_MAX,
) -> h2corn.Config:
    """Return h2corn's configuration for an etcd client port.

    Args:
        bind: listeners, as ``host:port``, ``unix:path`` or ``fd://number``.
        max_concurrent_streams: streams that one connection may have open.
        body_bytes_max: greatest HTTP request body in bytes; gRPC has its own limit per message.
    """
    return h2corn.Config(
        bind=bind,
        grpc=True,
        lifespan="off",
        access_log=False,
        # etcd: math.MaxUint32 (h2corn: 256). A client with many watches opens many streams.
        max_concurrent_streams=max_concurrent_streams,
        max_request_body_size=body_bytes_max,
        # etcd pings an idle connection and never closes it (h2corn: 120 s).
        timeout_keep_alive=0.0,
        # A watch client may stay away from its socket for as long as it likes (h2corn: 60 s).
        # Its stream holds no more than its flow-control window: `send` waits.
        h2_timeout_response_stall=0.0,
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
