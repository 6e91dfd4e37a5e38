"""One proxy: a listening socket, the connections through it, and the toxics in them.

Opening and closing are split so that a set of proxies can change in one instant: ``bind`` and
``cut`` do not wait for anything; ``serve`` starts to accept what already queues on the bound
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final

import attrs
import structlog

from chaos.toxid.link import Link, Sink
from chaos.toxid.toxics import Toxic

CONNECTIONS_MAX: Final = 4096
"""Connections through one proxy; more are refused."""

DIAL_TIMEOUT_S: Final = 10.0
WRITE_BUFFER_BYTES_MAX: Final = 64 * 1024
STREAMS: Final = ("upstream", "downstream")
CUT: Final = "cut"
"""The name under which a proxy counts the connections and chunks that cuts and stalls took."""

_log = structlog.get_logger()


@attrs.define(slots=True)
class Traffic:
    """Bytes that one direction of one proxy has read and written since the server started."""

    received_bytes: int = 0
    sent_bytes: int = 0

    def received(self, count: int) -> None:
        """Count bytes read."""
        self.received_bytes += count

    def sent(self, count: int) -> None:
        """Count bytes written."""
        self.sent_bytes += count


class Connection:
    """A client socket, a server socket, and a link each way."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        gates: dict[str, asyncio.Event],
        traffic: dict[str, Traffic],
        effects: Counter[str],
        rng_for: Callable[[str], Random],
    ) -> None:
        self._writers = (client[1], server[1])
        self._traffic = traffic
        self._rng_for = rng_for
        self._effects = effects
        for writer in self._writers:
            writer.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        ends = {"upstream": (client[0], server[1]), "downstream": (server[0], client[1])}
        self.links = {
            stream: Link(
                reader,
                Sink(
                    writer,
                    gates[stream],
                    traffic[stream].sent,
                    lambda: self._touched(CUT),
                    lambda writer=writer: self._ended(writer),  # type: ignore[misc]
                ),
            )
            for stream, (reader, writer) in ends.items()
        }
        self._resetters: list[Callable[[], bool]] = []

    def add(self, toxic: Toxic, *, fresh: bool) -> None:
        """Put a toxic into its direction's link; ``fresh``: nothing has passed it yet."""
        rng = self._rng_for(toxic.name)
        stage = self.links[toxic.stream].add(
            toxic.name, toxic.choose, rng, lambda: self._touched(toxic.name), fresh
        )
        self._resetters.append(lambda: stage.reset_on_close)

    async def run(self) -> None:
        """Carry bytes both ways until both directions have ended."""
        clock = asyncio.get_running_loop().time
        try:
            await asyncio.gather(
                *(
                    link.pump(self._traffic[stream].received, clock)
                    for stream, link in self.links.items()
                )
            )
            await asyncio.gather(*(link.settled() for link in self.links.values()))
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop both sockets and everything held, now."""
        for link in self.links.values():
            link.cancel()
        for writer in self._writers:
            writer.transport.abort()

    def _touched(self, name: str) -> None:
        self._effects[name] += 1

    def _ended(self, writer: asyncio.StreamWriter) -> None:
        if any(resets() for resets in self._resetters):
            for end in self._writers:
                _reset(end)
        else:
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with TCP RST instead of FIN: linger on, for zero seconds."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxy:
    """A named proxy (see the module's text).

    Args:
        name: unique in its server.
        listen: "host:port" to listen on; port 0 lets the system choose once.
        upstream: "host:port" to dial for each connection.
        seed: every random choice in this proxy follows from it, the toxic's name and the number of
            the connection.
    """

    def __init__(self, name: str, listen: str, upstream: str, seed: int) -> None:
        self.name = name
        self.listen = listen
        self.upstream = upstream
        self.enabled = False
        self.toxics: dict[str, Toxic] = {}
        self.traffic = {stream: Traffic() for stream in STREAMS}
        self.effects: Counter[str] = Counter()
        self._seed = seed
        self._gates = {stream: asyncio.Event() for stream in STREAMS}
        for gate in self._gates.values():
            gate.set()
        self._numbers = itertools.count(1)
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def stalled(self) -> bool:
        """True while a silent cut holds bytes back in either direction."""
        return not all(gate.is_set() for gate in self._gates.values())

    # Opening and closing.

    def bind(self) -> None:
        """Listen. Connections queue until ``serve``.

        Raises:
            OSError: the address is in use or is not one of this machine's.
            ValueError: the address is not "host:port".
        """
        host, port = split_address(self.listen)
        self._socket = socket.create_server((host, port), backlog=1024)
        bound = self._socket.getsockname()
        self.listen = f"{bound[0]}:{bound[1]}"
        self.enabled = True

    async def serve(self) -> None:
        """Accept what queues on the bound socket, from now on."""
        if self._socket is not None and self._server is None:
            self._server = await asyncio.start_server(self._accepted, sock=self._socket)

    def cut(self) -> None:
        """Stop listening and drop every connection, now."""
        self.enabled = False
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            self._socket.close()
        self._server = self._socket = None
        self.effects[CUT] += len(self._connections)
        for task in self._tasks:
            task.cancel()
        for connection in self._connections:
            connection.abort()

    def stall(self, streams: tuple[str, ...]) -> None:
        """Hold all bytes of exactly these directions back, without closing anything."""
        for stream, gate in self._gates.items():
            if stream in streams:
                gate.clear()
            else:
                gate.set()

    # Toxics.

    def add_toxic(self, toxic: Toxic) -> None:
        """Put a toxic into every connection, present and to come."""
        self.toxics[toxic.name] = toxic
        for connection in self._connections:
            connection.add(toxic, fresh=False)

    def toxic_changed(self, toxic: Toxic) -> None:
        """Let live connections see a toxic's new attributes."""
        for connection in self._connections:
            connection.links[toxic.stream].update(toxic.name)

    def remove_toxic(self, name: str) -> None:
        """Take a toxic out of every connection."""
        toxic = self.toxics.pop(name)
        del self.effects[name]
        for connection in self._connections:
            connection.links[toxic.stream].remove(name)

    def as_json(self) -> dict[str, Any]:
        """The proxy in the API's form, toxics of the upstream direction first."""
        ordered = sorted(self.toxics.values(), key=lambda toxic: STREAMS.index(toxic.stream))
        return {
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self.enabled,
            "toxics": [toxic.as_json() for toxic in ordered],
        }

    # Connections.

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= CONNECTIONS_MAX:
            _log.warning("toxid: too many connections", proxy=self.name, max=CONNECTIONS_MAX)
            writer.transport.abort()
            return
        number = next(self._numbers)
        task = asyncio.get_running_loop().create_task(self._handle(number, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            if self.stalled:
                self.effects[CUT] += 1
            for gate in self._gates.values():
                await gate.wait()
            await self._carry(number, reader, writer)
        finally:
            writer.transport.abort()

    async def _carry(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, port = split_address(self.upstream)
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                upstream = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            _log.debug(
                "toxid: cannot dial", proxy=self.name, upstream=self.upstream, why=str(error)
            )
            return
        connection = Connection(
            (reader, writer),
            upstream,
            self._gates,
            self.traffic,
            self.effects,
            lambda toxic: Random(f"{self._seed}/{self.name}/{number}/{toxic}"),
        )
        for toxic in self.toxics.values():
            connection.add(toxic, fresh=True)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


def split_address(address: str) -> tuple[str, int]:
    """Split "host:port"; an empty host is loopback.

    Raises:
        ValueError: it is not of that form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not an address: it should be host:port")
    return host.strip("[]") or "127.0.0.1", int(port)
