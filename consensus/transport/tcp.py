"""Peer connections over TCP.

Each member dials each other one, and a connection carries messages one way: what A says to B goes
over the connection that A dialled. The first frame is a ``Hello`` with the cluster, the group and
both names; the other side answers ``Welcome`` or refuses by name. A lost connection is dialled
again with growing pauses. What cannot be queued is dropped, which Raft expects of a network.

Streams of asyncio carry greetings and snapshots. What members say to each other all the time takes
a shorter way: frames are cut from each read at once and handed on together, and leave by a write of
their own when ``flush`` is called, before the log is synced (see ``frames``).

A snapshot goes over a connection of its own (see ``streams``), so that it delays no heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Protocol

import attrs
import structlog

from consensus.errors import ConfigError
from consensus.stats import PeerTraffic
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import WIRE_VERSION, BadFrame, pack
from consensus.transport.frames import FrameReader, Outlet
from consensus.transport.streams import (
    SnapshotSink,
    read_envelope,
    receive_snapshot,
    send_snapshot,
)
from consensus.transport.tls import tls_failure
from consensus.types import Member, NodeId

log = structlog.get_logger(__name__)

QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes that wait for one peer. More are dropped: the peer is not keeping up."""

DIAL_TIMEOUT_S: Final = 1.0
TLS_DIAL_TIMEOUT_S: Final = 3.0
"""With TLS both sides have to compute before a connection is open."""
RETRY_MIN_S: Final = 0.02
RETRY_MAX_S: Final = 0.5
HELLO_TIMEOUT_S: Final = 5.0
HELLO_BYTES_MAX: Final = 64 * 1024
"""Of the first frame on a connection: what comes from strangers takes no memory."""


class Receiver(Protocol):
    """What a transport delivers to."""

    def received(self, sender: NodeId, envelope: wire.Envelope) -> None:
        """One message of a peer, in the order that it sent them on one connection."""

    def peer_gone(self, peer: NodeId) -> None:
        """The connection that a peer sent its messages on has ended."""

    def snapshot_incoming(self, sender: NodeId, term: int, header: wire.Snapshot) -> SnapshotSink:
        """A peer begins to stream a snapshot: say where to, or raise ConsensusError to refuse."""


class Neighbours(Protocol):
    """What a transport asks and tells about those that it meets."""

    @property
    def members(self) -> Sequence[Member]:
        """Who is in the group, for one that is to join it."""

    def was_removed(self, sender: NodeId) -> bool:
        """Whether a committed change has removed this member: it is refused by name."""

    def met(self, sender: NodeId, address: str, feature_level: int) -> None:
        """A peer has introduced itself: where it is reached, and what its program knows."""

    def connected(self, peer: NodeId) -> None:
        """This peer can be sent to; what was in flight before may be lost."""

    def refused_as_removed(self, peer: NodeId, reason: str) -> None:
        """A peer says that this member was removed from the group."""


@attrs.frozen(slots=True, kw_only=True)
class TransportConfig:
    """Who this member is and where it listens.

    Args:
        node_id: this member.
        cluster: the cluster's name; members of another one are refused.
        listen: "host:port" to listen on.
        address: where others reach this member.
        feature_level: what this member's program knows (see ``Hello``).
        tls_server: TLS for what others dial; None for plain TCP.
        tls_client: TLS for what this member dials.
    """

    node_id: NodeId
    cluster: str
    listen: str
    address: str = ""
    feature_level: int = 0
    group_id: int = 0
    tls_server: ssl.SSLContext | None = None
    tls_client: ssl.SSLContext | None = None


class TcpTransport:
    """One member's connections.

    Args:
        config: who and where.
        receiver: gets what peers send.
    """

    def __init__(self, config: TransportConfig, receiver: Receiver) -> None:
        self._config = config
        self._receiver = receiver
        self._neighbours: Neighbours
        self._peers: dict[NodeId, _Peer] = {}
        self._server: asyncio.Server | None = None
        self._incoming: set[asyncio.Task[None]] = set()
        self._attended: dict[asyncio.Task[None], NodeId] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.traffic: dict[NodeId, PeerTraffic] = {}
        """What went to and came from each peer that is known now."""

    async def start(self, neighbours: Neighbours) -> None:
        """Listen, and let those who dial meet ``neighbours``.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        self._neighbours = neighbours
        host, port = split_address(self._config.listen)
        try:
            self._server = await asyncio.start_server(
                self._accepted,
                host,
                port,
                ssl=self._config.tls_server,
                ssl_handshake_timeout=HELLO_TIMEOUT_S if self._config.tls_server else None,
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen for peers on {self._config.listen}: {_reason(error)}; "
                "is another member running with this address?"
            ) from error

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for peer in self._peers.values():
            peer.stop()
        tasks = [*self._incoming, *self._ending, *(peer.task for peer in self._peers.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._peers.clear()

    def add_peer(self, peer: NodeId, address: str) -> None:
        """Begin to dial a member, or dial it elsewhere from now on."""
        if peer == self._config.node_id:
            return
        known = self._peers.get(peer)
        if known is not None:
            known.address = address
            return
        traffic = self.traffic.setdefault(peer, PeerTraffic())
        self._peers[peer] = _Peer(self._config, peer, address, self._neighbours, traffic)

    def remove_peer(self, peer: NodeId) -> None:
        """Stop dialling a member, and end the connections that it has dialled."""
        known = self._peers.pop(peer, None)
        self.traffic.pop(peer, None)
        if known is not None:
            known.stop()
            self._ending.add(known.task)
            known.task.add_done_callback(self._ending.discard)
        for task, sender in self._attended.items():
            if sender == peer:
                task.cancel()

    def send(self, peer: NodeId, envelope: wire.Envelope) -> None:
        """Queue a message until ``flush``; dropped where the peer is unknown, away, or behind."""
        known = self._peers.get(peer)
        if known is not None:
            known.send(envelope)

    def flush(self) -> None:
        """Hand everything that is queued to the operating system, or to TLS, now."""
        for peer in self._peers.values():
            if peer.queue:
                peer.flush()

    def knows(self, peer: NodeId) -> bool:
        """Whether this member is dialled."""
        return peer in self._peers

    def connected(self, peer: NodeId) -> bool:
        """Whether messages to this peer have a connection now."""
        known = self._peers.get(peer)
        return known is not None and known.outlet is not None

    async def send_snapshot(
        self,
        peer: NodeId,
        term: int,
        header: wire.Snapshot,
        chunks: Iterator[bytes],
        hurries: Callable[[], bool],
    ) -> None:
        """Stream a snapshot, or what the peer lacks of it, on a connection of its own.

        Args:
            chunks, hurries: see ``streams.send_snapshot``.

        Raises:
            SnapshotRefused: the peer does not want it.
            OSError, BadFrame, asyncio.IncompleteReadError: it did not arrive.
        """
        known = self._peers.get(peer)
        if known is None:
            raise OSError(f"{peer} is not a peer")
        reader, writer = await known.dial(wire.Hello.SNAPSHOT)
        try:
            await send_snapshot(reader, writer, term, header, chunks, hurries)
        finally:
            writer.close()

    # -- inside -------------------------------------------------------------------------------

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._attend(reader, writer))
        self._incoming.add(task)
        task.add_done_callback(self._incoming.discard)
        task.add_done_callback(lambda _: writer.close())  # also where it never began to run

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the peer dials again
        except BadFrame as error:
            log.warning("a peer connection was ended", reason=str(error))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            envelope = await read_envelope(reader, HELLO_BYTES_MAX)
        hello = envelope.hello
        refusal = self._refusal(envelope)
        removed = not refusal and self._neighbours.was_removed(hello.sender)
        if removed:
            refusal = f"{hello.sender} was removed from the group"
        messages: FrameReader | None = None
        if not refusal and hello.purpose == wire.Hello.MESSAGES:
            # A peer says nothing more until it is welcomed: from here all bytes are this reader's.
            messages = FrameReader(hello.sender, self._receiver.received, PeerTraffic())
            writer.transport.set_protocol(messages)
        welcome = wire.Welcome(refusal=refusal, removed=removed)
        describes = hello.purpose == wire.Hello.DESCRIBE
        if describes and not refusal:
            welcome.members.extend(map(_described, self._neighbours.members))
        writer.write(pack(wire.Envelope(welcome=welcome)))
        if messages is not None:
            await self._attend_messages(hello, messages)
            self._receiver.peer_gone(hello.sender)
            return
        await writer.drain()
        if refusal:
            log.warning("a peer was refused", peer=hello.sender, reason=refusal)
            return
        if describes:
            return
        begin = partial(self._receiver.snapshot_incoming, hello.sender)
        await receive_snapshot(reader, writer, begin)

    async def _attend_messages(self, hello: wire.Hello, messages: FrameReader) -> None:
        task = asyncio.current_task()
        assert task is not None, "connections are attended in tasks"
        self._attended[task] = hello.sender
        try:
            self._neighbours.met(hello.sender, hello.address, hello.feature_level)
            messages.traffic = self.traffic.get(hello.sender, messages.traffic)
            await messages.ended
        finally:
            del self._attended[task]

    def _refusal(self, envelope: wire.Envelope) -> str:
        hello = envelope.hello
        own = self._config
        if envelope.WhichOneof("body") != "hello":
            return "the connection did not begin with a hello"
        if hello.version != WIRE_VERSION:
            return f"wire version {hello.version}; this member speaks version {WIRE_VERSION}"
        if hello.cluster != own.cluster:
            sender = hello.sender or "it"
            return f"{sender} is of cluster {hello.cluster}; this is cluster {own.cluster}"
        if hello.group != own.group_id:
            return f"group {hello.group}; this member is of group {own.group_id}"
        if hello.receiver != own.node_id and hello.purpose != wire.Hello.DESCRIBE:
            return f"{hello.receiver} was meant; this is {own.node_id}"
        return ""


async def ask_members(
    address: str, cluster: str, timeout_s: float, tls: ssl.SSLContext | None = None
) -> tuple[Member, ...]:
    """Ask the member at an address who is in its group, as far as it knows now.

    For one that is to join: it knows where members are, but no ids, not even its own.

    Raises:
        OSError: nobody answers there in time, it is no member, of another cluster, or does not
            shake hands (the text says why).
        ConfigError: ``address`` is not "host:port".
    """
    host, port = split_address(address)
    hello = wire.Hello(version=WIRE_VERSION, cluster=cluster, purpose=wire.Hello.DESCRIBE)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(pack(wire.Envelope(hello=hello)))
                welcome = (await read_envelope(reader)).welcome
            finally:
                writer.close()
    except (OSError, BadFrame, asyncio.IncompleteReadError) as error:
        reason = tls_failure(error) if tls is not None else ""
        raise OSError(f"{address} gave no answer: {reason or error}") from None
    if welcome.refusal:
        raise OSError(f"{address} refused: {welcome.refusal}")
    return tuple(
        Member(each.id, each.address, each.learner, each.context) for each in welcome.members
    )


def _described(member: Member) -> wire.DescribedMember:
    return wire.DescribedMember(
        id=member.id, address=member.address, learner=member.learner, context=member.context
    )


class _Peer:
    """The connection to one other member, dialled again whenever it is lost."""

    def __init__(
        self,
        config: TransportConfig,
        peer: NodeId,
        address: str,
        neighbours: Neighbours,
        traffic: PeerTraffic,
    ) -> None:
        self.address = address
        self._traffic = traffic
        self._neighbours = neighbours
        self.outlet: Outlet | None = None
        self.queue: list[bytes] = []
        self._config = config
        self._peer = peer
        self._refused = ""
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"peer {peer}")

    def send(self, envelope: wire.Envelope) -> None:
        """Queue a frame until ``flush``."""
        if self.outlet is not None:
            self.queue.append(pack(envelope))
        else:
            self._traffic.send_failures += 1

    def flush(self) -> None:
        """Write the queued frames, unless the peer is too far behind: then they are dropped."""
        frames, self.queue = self.queue, []
        outlet = self.outlet
        if outlet is not None and outlet.waiting_bytes <= QUEUE_BYTES_MAX:
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            self._traffic.sent_bytes += len(data)
            outlet.write(data)
        else:
            self._traffic.send_failures += len(frames)

    def stop(self) -> None:
        """Give up the connection."""
        self.task.cancel()
        if self.outlet is not None:
            self.outlet.close()
            self.outlet = None

    async def dial(
        self, purpose: wire.Hello.Purpose
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect and be welcomed.

        Raises:
            OSError: nobody answers there, or we were refused (the text says why).
        """
        host, port = split_address(self.address)
        tls = self._config.tls_client
        async with asyncio.timeout(DIAL_TIMEOUT_S if tls is None else TLS_DIAL_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        hello = wire.Hello(
            version=WIRE_VERSION,
            cluster=self._config.cluster,
            group=self._config.group_id,
            sender=self._config.node_id,
            receiver=self._peer,
            purpose=purpose,
            address=self._config.address,
            feature_level=self._config.feature_level,
        )
        try:
            writer.write(pack(wire.Envelope(hello=hello)))
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                answer = await read_envelope(reader)
            if answer.welcome.removed:
                self._neighbours.refused_as_removed(self._peer, answer.welcome.refusal)
            if answer.welcome.refusal:
                raise OSError(f"{self._peer} refused: {answer.welcome.refusal}")
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _run(self) -> None:
        pause = RETRY_MIN_S
        while True:
            try:
                reader, writer = await self.dial(wire.Hello.MESSAGES)
            except (OSError, TimeoutError, BadFrame, asyncio.IncompleteReadError) as error:
                self._say_refused(error)
                await asyncio.sleep(pause * (1 + random.random() / 2))
                pause = min(pause * 2, RETRY_MAX_S)
                continue
            pause = RETRY_MIN_S
            self._refused = ""
            self.outlet = Outlet(writer.transport)
            try:
                self._neighbours.connected(self._peer)
                await reader.read()  # the other side says nothing: this returns when it is gone
            except OSError:
                pass
            finally:
                self.outlet = None
                self.queue.clear()
                with contextlib.suppress(OSError):
                    writer.close()

    def _say_refused(self, error: Exception) -> None:
        """Say once why a peer and this member do not come together; one that is away is no news."""
        if "refused:" in str(error):
            event, reason = "a peer refuses this member", str(error)
        elif self._config.tls_client is not None and tls_failure(error):
            event, reason = "no TLS connection to a peer", tls_failure(error)
        else:
            return
        if reason != self._refused:
            self._refused = reason
            log.warning(event, peer=self._peer, address=self.address, reason=reason)


def _reason(error: OSError) -> str:
    """What the system says; asyncio's own text of a failed bind repeats the address."""
    return os.strerror(error.errno) if error.errno else str(error)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port"; IPv6 hosts stand in brackets.

    Raises:
        ConfigError: it is not of that form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{address!r} is not of the form host:port")
    return host.strip("[]"), int(port)
