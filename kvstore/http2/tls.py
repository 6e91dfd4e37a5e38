"""TLS below the client port's protocols: handshakes, then the transport that protocols write to.

What a turn of the loop brings is decrypted in that turn, and what a protocol writes is in the
socket's buffer at once, so that flow control is that of the transport below. asyncio's own layer
ends a refused handshake without telling the client why, and has no bound on how many are under way.

A handshake costs about a millisecond of CPU. Each step of one has a turn of the loop to itself:
many clients that come at once, as when a leader changes, do not hold up those who are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import structlog

from consensus.transport.tls import ENDED, tls_failure
from kvstore.http2.acceptor import HANDSHAKE_RECORD
from kvstore.http2.refusals import Refusals, bad_request

log = structlog.get_logger(__name__)

HANDSHAKES_MAX: Final = 1024
"""Handshakes that may be under way on the sockets of one ``Handshakes``; more are cut off."""
HANDSHAKE_TIMEOUT_S: Final = 10.0
"""How long a handshake may take, and a refused client may stay to read why."""
READ_BYTES: Final = 64 * 1024

USE_HTTPS: Final = "this port speaks TLS: use https://"


class Handshakes:
    """The handshakes that are under way, one step of one at a time.

    Args:
        context: the server's certificate, and whom it trusts.
        protocol: makes the protocol of a connection that has shaken hands.
        refusals: tells of clients that are refused.
        handshakes_max: how many may be under way.
        timeout_s: how long each may take.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        refusals: Refusals,
        handshakes_max: int = HANDSHAKES_MAX,
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        self.context = context
        self.protocol = protocol
        self.refusals = refusals
        self.timeout_s = timeout_s
        self._handshakes_max = handshakes_max
        self._under_way: set[TlsConnection] = set()
        self._ready: deque[TlsConnection] = deque()
        self._closed = False

    def accept(self) -> asyncio.Protocol:
        """Return the protocol for a new connection (``loop.create_server`` calls this)."""
        return TlsConnection(self)

    def close(self) -> None:
        """Cut off handshakes; there will be no more."""
        self._closed = True
        for connection in tuple(self._under_way):
            connection.abort()

    def begin(self, connection: TlsConnection) -> bool:
        """Return whether there is room for the handshake of a new connection."""
        if self._closed:
            return False
        if len(self._under_way) >= self._handshakes_max:
            reason = f"{self._handshakes_max} handshakes are under way already"
            self.refusals.tell(connection.peer, reason)
            return False
        self._under_way.add(connection)
        return True

    def end(self, connection: TlsConnection) -> None:
        """A handshake is over."""
        self._under_way.discard(connection)

    def queue(self, connection: TlsConnection) -> None:
        """Take a connection's next step when those before it have had theirs."""
        if not self._ready:
            asyncio.get_running_loop().call_soon(self._step)
        self._ready.append(connection)

    def _step(self) -> None:
        connection = self._ready.popleft()
        if self._ready:
            asyncio.get_running_loop().call_soon(self._step)
        connection.step()


class Session:
    """One connection's TLS as bytes in and bytes out.

    Args:
        context: the server's.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def feed(self, data: bytes) -> None:
        """Take what the socket brought."""
        self._incoming.write(data)

    def shake_hands(self) -> bool:
        """Go on as far as possible; return whether the handshake is done. Raises ``SSLError``."""
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def decrypt(self) -> tuple[bytes, bool]:
        """Return what can be read by now, and whether it was the last. Raises ``SSLError``."""
        parts = []
        try:
            while part := self.ssl_object.read(READ_BYTES):
                parts.append(part)
        except ssl.SSLWantReadError:
            return b"".join(parts), False
        return b"".join(parts), True

    def encrypt(self, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` among what is to be sent. Raises ``SSLError``."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.ssl_object.write(rest) :]

    def say_goodbye(self) -> None:
        """Put a close-notify among what is to be sent."""
        with contextlib.suppress(ssl.SSLError):  # It would wait for the client's.
            self.ssl_object.unwrap()

    def to_send(self) -> bytes:
        """Return what is to be sent; it is taken as sent."""
        return self._outgoing.read()


class TlsConnection(asyncio.Protocol):
    """What the plain transport of one connection talks to.

    Args:
        handshakes: those of the same sockets.
    """

    def __init__(self, handshakes: Handshakes) -> None:
        self.peer: Any = None
        self._handshakes = handshakes
        self._raw: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._session: Session | None = None  # from the client's first byte to the end
        self._inner: asyncio.Protocol | None = None  # from the handshake's end to the end

    # -- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client to begin, but not for ever."""
        self._raw = transport = cast(asyncio.Transport, transport)
        self.peer = transport.get_extra_info("peername")
        if not self._handshakes.begin(self):
            transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(
            self._handshakes.timeout_s, self._too_slow
        )

    def data_received(self, data: bytes) -> None:
        """Decrypt, or go on with the handshake."""
        if self._refused:
            return
        if self._session is None:
            if data[0] != HANDSHAKE_RECORD:
                self._refuse(bad_request(USE_HTTPS), "it does not speak TLS")
                return
            self._session = Session(self._handshakes.context)
        self._session.feed(data)
        if self._inner is not None:
            self._read(self._session, self._inner)
        else:
            self._raw.pause_reading()
            self._handshakes.queue(self)

    def eof_received(self) -> None:
        """The client sends no more: the transport closes by itself."""
        if self._inner is not None:
            self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the protocol, if there was one already, and let go of what is large."""
        self._handshake_over()
        inner, session = self._inner, self._session
        self._inner = self._session = None
        if inner is not None:
            inner.connection_lost(error)
        elif session is not None and not self._refused:
            self._handshakes.refusals.tell(self.peer, ENDED)

    def pause_writing(self) -> None:
        """Pass it on."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._inner is not None:
            self._inner.resume_writing()

    # -- the handshake ---------------------------------------------------------------------------

    def step(self) -> None:
        """Go on with the handshake as far as the client's bytes allow."""
        session = self._session
        if session is None or self._raw.is_closing():
            return
        try:
            done = session.shake_hands()
        except ssl.SSLError as error:
            # What OpenSSL leaves to be sent is the alert that tells the client.
            self._refuse(session.to_send(), tls_failure(error))
            return
        self._flush(session)
        self._raw.resume_reading()
        if done:
            self._handshake_over()
            self._inner = self._handshakes.protocol()
            self._inner.connection_made(TlsTransport(self, self._raw))
            self._read(session, self._inner)

    def abort(self) -> None:
        """Cut the connection off."""
        self._refused = True
        self._raw.abort()

    def _refuse(self, last_words: bytes, reason: str) -> None:
        """Let the client read why; it goes, or is cut off when the handshake's time is over.

        Closing at once would reset the connection where the client has sent more, and a reset
        takes what was not read yet with it.
        """
        self._refused = True
        self._handshakes.refusals.tell(self.peer, reason)
        self._raw.write(last_words)
        self._raw.write_eof()
        self._raw.resume_reading()

    def _too_slow(self) -> None:
        if not self._refused:
            reason = f"its handshake was not done in {self._handshakes.timeout_s:g} s"
            self._handshakes.refusals.tell(self.peer, reason)
        self.abort()

    def _handshake_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._handshakes.end(self)

    # -- what is encrypted -----------------------------------------------------------------------

    def _read(self, session: Session, inner: asyncio.Protocol) -> None:
        """Give the protocol what can be decrypted by now, in one piece."""
        try:
            data, over = session.decrypt()
        except ssl.SSLError as error:
            self._broken(session, error)
            return
        self._flush(session)
        if data and not self._raw.is_closing():
            inner.data_received(data)
        if over and not self._raw.is_closing():
            self.eof_received()
            self.close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        session = self._session
        if session is None or self._raw.is_closing():
            return
        try:
            session.encrypt(data)
        except ssl.SSLError as error:
            self._broken(session, error)
            return
        self._flush(session)

    def close(self) -> None:
        """Say that this was all, and close; the client's own such word is not waited for."""
        if self._session is not None and not self._raw.is_closing():
            self._session.say_goodbye()
            self._flush(self._session)
            self._raw.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol go on."""
        self._inner = cast(asyncio.Protocol, protocol)

    def ssl_object(self) -> ssl.SSLObject | None:
        """Return what is known of the session; None after the connection's end."""
        return None if self._session is None else self._session.ssl_object

    def _broken(self, session: Session, error: ssl.SSLError) -> None:
        log.debug("a client broke TLS", peer=self.peer, reason=tls_failure(error))
        self._flush(session)
        self._raw.abort()

    def _flush(self, session: Session) -> None:
        if data := session.to_send():
            self._raw.write(data)


class TlsTransport(asyncio.Transport):
    """What a protocol writes to. Buffers and limits are those of the transport below.

    Args:
        connection: encrypts.
        raw: the transport below.
    """

    def __init__(self, connection: TlsConnection, raw: asyncio.Transport) -> None:
        super().__init__()
        self._connection = connection
        self._raw = raw

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of TLS, or of the socket."""
        ssl_object = self._connection.ssl_object()
        if name == "ssl_object":
            return ssl_object or default
        if name == "sslcontext":
            return ssl_object.context if ssl_object is not None else default
        return self._raw.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        self._connection.write(data)

    def close(self) -> None:
        """Close once all is sent that was written."""
        self._connection.close()

    def abort(self) -> None:
        """Close at once."""
        self._raw.abort()

    def is_closing(self) -> bool:
        """Return whether it is closed, or about to be."""
        return self._raw.is_closing()

    def can_write_eof(self) -> bool:
        """TLS has no half-closed connections."""
        return False

    def is_reading(self) -> bool:
        """Return whether more is read."""
        return self._raw.is_reading()

    def pause_reading(self) -> None:
        """Let what comes wait in the socket."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Return how many encrypted bytes wait."""
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and high marks."""
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the protocol is told to pause and to go on."""
        self._raw.set_write_buffer_limits(high, low)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol go on."""
        self._connection.set_protocol(protocol)
