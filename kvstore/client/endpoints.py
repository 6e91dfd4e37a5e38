"""Endpoints and how to reach them: addresses, TLS, and one gRPC channel for each.

``Dialer`` answers one question: is there an open connection to this endpoint *now*? Only when
there is not can a write be given to another endpoint, because then it was certainly not sent.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path
from typing import Final

import attrs
import grpc

from kvstore.client.rpcs import HEALTH
from kvstore.client.unverified import shown_certificate

DEFAULT_ENDPOINT: Final = "127.0.0.1:2379"
PROBE_TIMEOUT_S: Final = 0.5
ATTEMPTS: Final = 4
"""An endpoint that takes a connection and is silent is given up after this part of the dial
timeout, so that the others have their turn."""
KEEPALIVE_TIME_S: Final = 10.0
"""An idle connection is checked this often; etcd refuses clients that ping more than every 5 s."""
KEEPALIVE_TIMEOUT_S: Final = 6.0


class Unreachable(Exception):
    """No connection to an endpoint could be opened; the text is the reason."""


@attrs.frozen(slots=True)
class Tls:
    """How to talk TLS. All fields are paths of PEM files, but for ``server_name``.

    Args:
        ca_file: certificates to trust; None trusts those of the system.
        cert_file, key_file: the client's own certificate and key, given together.
        server_name: the name that the server's certificate must carry, if not the endpoint's host.
        ca_pem: certificates to trust, as PEM bytes, instead of ``ca_file``.
        skip_verify: take any certificate that the server shows, whoever it is; for tests.

    Raises ``ValueError`` if only one of certificate and key is given.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    ca_pem: bytes | None = None
    skip_verify: bool = False

    def __attrs_post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("a client certificate needs its key: give both cert_file and key_file")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises ``OSError`` naming the file that cannot be read."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca_pem or _read(self.ca_file),
            private_key=_read(self.key_file),
            certificate_chain=_read(self.cert_file),
        )


def _read(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


@attrs.frozen(slots=True)
class Endpoint:
    """One address of the cluster, as the user wrote it and as gRPC dials it."""

    text: str
    target: str
    secure: bool

    @classmethod
    def parse(cls, text: str, tls: bool = False) -> Endpoint:
        """Read ``host:port``, ``http://host:port``, ``https://host:port`` or ``unix://path``.

        Without a scheme the connection is secure if ``tls`` is true. Raises ``ValueError`` that
        says what is wrong and what would be right.
        """
        scheme, separator, rest = text.strip().partition("://")
        if not separator:
            scheme, rest = ("https" if tls else "http"), text.strip()
        rest = rest.rstrip("/") if scheme in ("http", "https") else rest
        if scheme in ("unix", "unixs") and rest:
            return cls(text.strip(), f"unix:{rest}", scheme == "unixs")
        if scheme not in ("http", "https"):
            raise ValueError(
                f"endpoint {text!r}: write it as http://host:port or https://host:port"
            )
        host, colon, port = rest.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
            raise ValueError(
                f"endpoint {text!r}: write it as host:port, for example {rest_or(rest)}"
            )
        return cls(text.strip(), rest, scheme == "https")


def rest_or(rest: str) -> str:
    """Return an example of a right endpoint, made from what the user wrote where that helps."""
    host = rest.split("/")[0].split(":")[0]
    return f"{host}:2379" if host else DEFAULT_ENDPOINT


async def _trusting(endpoint: Endpoint, tls: Tls) -> Tls:
    """Return options that trust whatever certificate the endpoint shows now."""
    host, _, port = endpoint.target.rpartition(":")
    try:
        pem, name = await shown_certificate(
            host.strip("[]"), int(port), tls.cert_file, tls.key_file
        )
    except ssl.SSLCertVerificationError as error:
        reason = f"its certificate is of no use even unverified: {error.verify_message}"
        raise Unreachable(reason) from None
    except OSError as error:
        raise Unreachable(f"it shows no certificate: {error}") from None
    return attrs.evolve(tls, ca_file=None, ca_pem=pem, server_name=tls.server_name or name)


class Dialer:
    """Opens and keeps one channel for each endpoint. Bound to the running event loop."""

    def __init__(self, tls: Tls | None, dial_timeout_s: float) -> None:
        self._tls = tls
        self._dial_timeout_s = dial_timeout_s
        self._channels: dict[Endpoint, grpc.aio.Channel] = {}
        self._dials: dict[Endpoint, asyncio.Task[grpc.aio.Channel]] = {}

    async def connect(self, endpoint: Endpoint, timeout_s: float) -> grpc.aio.Channel:
        """Return a channel to ``endpoint`` that is connected now.

        Callers that want the same endpoint at the same time share one attempt. Raises
        ``Unreachable`` with the reason when there is no connection within the dial timeout, or
        within ``timeout_s`` if that is shorter.
        """
        channel = self._channels.get(endpoint)
        if channel is not None and channel.get_state() is grpc.ChannelConnectivity.READY:
            return channel
        dial = self._dials.get(endpoint)
        if dial is None:
            dial = asyncio.create_task(self._dial(endpoint))
            self._dials[endpoint] = dial
            dial.add_done_callback(lambda done: self._dialed(endpoint, done))
        try:
            # Not asyncio.wait_for: on Python 3.11 it swallows a cancellation that comes at the very
            # moment at which the dial is done.
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(dial)
        except TimeoutError:
            raise Unreachable(f"no connection within {timeout_s:.3g} s") from None

    def _dialed(self, endpoint: Endpoint, dial: asyncio.Task[grpc.aio.Channel]) -> None:
        self._dials.pop(endpoint, None)
        if not dial.cancelled():
            dial.exception()  # seen here, so that an attempt nobody waits for any more stays quiet

    async def _dial(self, endpoint: Endpoint) -> grpc.aio.Channel:
        channel = self._channels.get(endpoint)
        if channel is not None and channel.get_state() in (
            grpc.ChannelConnectivity.TRANSIENT_FAILURE,
            grpc.ChannelConnectivity.SHUTDOWN,
        ):
            # A new channel tries at once; the old one would first sit out its back-off.
            del self._channels[endpoint]
            await channel.close()
            channel = None
        try:
            async with asyncio.timeout(self._dial_timeout_s):
                if channel is None:
                    channel = self._channels[endpoint] = await self._open(endpoint)
                return await self._until_ready(channel)
        except TimeoutError:
            raise Unreachable(f"no connection within {self._dial_timeout_s:.3g} s") from None

    async def _until_ready(self, channel: grpc.aio.Channel) -> grpc.aio.Channel:
        while (state := channel.get_state(try_to_connect=True)) is not (
            grpc.ChannelConnectivity.READY
        ):
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                reason = await _why_not(channel)
                if reason is not None:
                    raise Unreachable(reason)
            else:
                await channel.wait_for_state_change(state)
        return channel

    async def _open(self, endpoint: Endpoint) -> grpc.aio.Channel:
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            # Despite its name it is how long one attempt may take, its handshakes included.
            ("grpc.min_reconnect_backoff_ms", int(self._dial_timeout_s * 1000 / ATTEMPTS)),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.keepalive_time_ms", int(KEEPALIVE_TIME_S * 1000)),
            ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
        ]
        if not endpoint.secure:
            return grpc.aio.insecure_channel(endpoint.target, options=options)
        tls = self._tls or Tls()
        if tls.skip_verify:
            tls = await _trusting(endpoint, tls)
        if tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        return grpc.aio.secure_channel(endpoint.target, tls.credentials(), options=options)

    async def close(self) -> None:
        """Close every channel; calls in flight end as cancelled."""
        for dial in list(self._dials.values()):
            dial.cancel()
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()


async def _why_not(channel: grpc.aio.Channel) -> str | None:
    """Return why a channel that failed to connect did so; None if it is connected after all.

    Only a failed call carries the reason, so a harmless one is made.
    """
    probe = channel.unary_unary(
        HEALTH.path,
        request_serializer=HEALTH.request.SerializeToString,
        response_deserializer=HEALTH.response.FromString,
    )
    try:
        await probe(HEALTH.request(), timeout=PROBE_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if channel.get_state() is grpc.ChannelConnectivity.READY:
            return None
        return plain_reason(error.details() or error.code().name)
    return None


def plain_reason(details: str) -> str:
    """Return the part of gRPC's account of a failed connection that helps a person."""
    known = re.search(
        r"Connection refused|Connection reset by peer|Connection timed out|No route to host"
        r"|Network is unreachable|CERTIFICATE_VERIFY_FAILED[^\"]*|WRONG_VERSION_NUMBER"
        r"|No such file or directory",
        details,
    )
    if "DNS resolution failed" in details or "Domain name not found" in details:
        return "no such host"
    if "before receiving SETTINGS" in details or "Handshake read failed" in details:
        return "it takes connections, but does not answer"
    if "http1.x server" in details:
        return "it does not take HTTP/2 without TLS (use https://)"
    if "TSI_DATA_CORRUPTED" in details:
        return "it wants a certificate of its clients, or does not accept this one's"
    if known is None:
        return details.rpartition("last error: ")[2]
    if known[0] == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS (use http://)"
    return known[0][0].lower() + known[0][1:] if known[0][1].islower() else known[0]
