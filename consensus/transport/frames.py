"""The short way of messages between members: whole reads in, one write out.

``FrameReader`` is the protocol of a connection on which a peer speaks: it cuts every frame that a
read brought and hands them on, one after the other, without a task of its own.

``Outlet`` is the other end. A transport of uvloop keeps what is written until the end of the loop's
turn. But a leader's entries must be on their way before the leader begins to sync its own copy
(thesis, section 10.2.1), and the sync holds the loop. So the bytes go to the socket at once, and
only what the socket does not take now, or what TLS has to encrypt, is left to the transport.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import structlog

from consensus.stats import PeerTraffic
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import PREFIX_BYTES, BadFrame, unpack, unpack_prefix
from consensus.types import NodeId

log = structlog.get_logger(__name__)


class FrameReader(asyncio.Protocol):
    """Cuts frames from what a peer sends.

    Args:
        sender: the peer.
        received: called with each message, in order.
        traffic: what to begin to count in.

    Attributes:
        ended: done when the connection is.
        traffic: counts the bytes.
    """

    def __init__(
        self,
        sender: NodeId,
        received: Callable[[NodeId, wire.Envelope], None],
        traffic: PeerTraffic,
    ) -> None:
        self.traffic = traffic
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sender = sender
        self._received = received
        self._pieces: list[bytes] = []
        self._size = 0
        self._needed = PREFIX_BYTES

    def data_received(self, data: bytes) -> None:
        """Hand on every frame that is whole; end the connection at one that cannot be."""
        if self.ended.done():
            return
        self.traffic.received_bytes += len(data)
        if self._pieces or len(data) < self._needed:
            self._pieces.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return  # a long frame is put together once, not at each of its pieces
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
        try:
            self._cut(data)
        except BadFrame as error:
            self.ended.set_exception(error)

    def connection_lost(self, _: Exception | None) -> None:
        """The peer is gone: it dials again."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _cut(self, data: bytes) -> None:
        start, size = 0, len(data)
        needed = PREFIX_BYTES
        while size - start >= needed:
            length, checksum = unpack_prefix(data[start : start + PREFIX_BYTES])
            needed = PREFIX_BYTES + length
            if size - start < needed:
                break
            stop = start + needed
            self._received(self._sender, unpack(data[start + PREFIX_BYTES : stop], checksum))
            start = stop
            needed = PREFIX_BYTES
        self._needed = needed
        if start < size:
            self._pieces.append(data[start:])
            self._size = size - start


class Outlet:
    """Writes to one connection at once, as far as it takes bytes at once.

    Args:
        transport: the connection; nobody else writes to it from now on.
    """

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._descriptor = -1
        if transport.get_extra_info("ssl_object") is None:
            self._descriptor = transport.get_extra_info("socket").fileno()

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the socket did not take yet."""
        return self._transport.get_write_buffer_size()

    @property
    def closing(self) -> bool:
        """Whether the connection is lost or given up."""
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Write, or queue what cannot be written now. A lost connection takes nothing."""
        transport = self._transport
        if transport.is_closing():
            return
        if self._descriptor >= 0 and not transport.get_write_buffer_size():
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:
                written = 0
            except OSError:
                transport.close()  # whoever waits on this connection dials again
                return
            if written == len(data):
                return
            data = data[written:]
        transport.write(data)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()
