"""The streams of snapshots between this member and the others: driver and transport, tied together.

A member that is behind the log is sent a snapshot in a task of its own; one that others send goes
into the store as it comes. Neither holds the loop for more than a chunk. What is kept of a stream
that breaks, so that the next one can go on, is told in ``incoming`` and ``outgoing``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

import structlog

from consensus.engines.native.driver import Driver
from consensus.engines.native.incoming import Announcement, Reception
from consensus.engines.native.outgoing import HELD_COMMANDS_MAX
from consensus.errors import ConsensusError, SnapshotRefused, StorageError
from consensus.raft.configuration import Configuration, InvalidConfiguration
from consensus.raft.messages import SnapshotMeta
from consensus.storage.snapshots import StoredMeta
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import BadFrame
from consensus.transport.tcp import TcpTransport
from consensus.types import NodeId

log = structlog.get_logger(__name__)

STREAM_FAILURES: Final = (OSError, BadFrame, asyncio.IncompleteReadError)


class SnapshotStreams:
    """What one running member sends and receives.

    Args:
        driver: the member's driver.
        transport: its connections.
        spawn: runs a task that ends with the engine.
        wake: has the driver pumped soon.
        halt: stops the member, with the reason.
    """

    def __init__(
        self,
        driver: Driver,
        transport: TcpTransport,
        spawn: Callable[[Coroutine[None, None, None]], object],
        wake: Callable[[], None],
        halt: Callable[[str], None],
    ) -> None:
        self._driver = driver
        self._transport = transport
        self._spawn = spawn
        self._wake = wake
        self._halt = halt
        self._sending: set[NodeId] = set()

    def send(self, peer: NodeId) -> None:
        """Begin to send a snapshot, unless one is on its way to this member already."""
        if peer not in self._sending:
            self._sending.add(peer)
            self._spawn(self._send(peer))

    def receive(self, sender: NodeId, term: int, header: wire.Snapshot) -> Sink:
        """A peer begins to send a snapshot.

        Raises:
            ConsensusError: it is not wanted.
        """
        try:
            configuration = Configuration.decode(header.configuration)
        except InvalidConfiguration as error:
            raise SnapshotRefused(str(error)) from error
        meta = StoredMeta(
            SnapshotMeta(header.index, header.term, configuration),
            header.command_index,
            header.clock_ms,
        )
        try:
            reception = self._driver.incoming.begin(Announcement(header.id, sender, term, meta))
        except StorageError as error:
            self._halt(str(error))
            raise
        except SnapshotRefused:
            self._wake()  # the core may have something to say to it
            raise
        if reception.offset:
            log.info("a snapshot goes on", peer=sender, index=header.index, at=reception.offset)
        return Sink(reception, self._wake, self._halt)

    async def _send(self, peer: NodeId) -> None:
        arrived = False
        try:
            arrived = await self._offer(peer)
        finally:
            self._sending.discard(peer)
            self._driver.core.snapshot_reported(peer, arrived=arrived)
            self._wake()

    def _hurries(self) -> bool:
        """Whether the log may soon have to let go of what follows the snapshots on their way."""
        return self._driver.outgoing.held_commands > HELD_COMMANDS_MAX // 2

    async def _offer(self, peer: NodeId) -> bool:
        outgoing = self._driver.outgoing
        try:
            snapshot = outgoing.open(peer)
        except ConsensusError as error:
            log.warning("no snapshot can be sent", peer=peer, reason=str(error))
            return False
        meta = snapshot.meta
        log.info("sending a snapshot", peer=peer, index=meta.raft.index)
        header = wire.Snapshot(
            id=snapshot.id,
            index=meta.raft.index,
            term=meta.raft.term,
            configuration=meta.raft.configuration.encode(),
            clock_ms=meta.clock_ms,
            command_index=meta.command_index,
        )
        settle = outgoing.refused
        try:
            term = self._driver.core.term
            chunks = snapshot.chunks()
            await self._transport.send_snapshot(peer, term, header, chunks, self._hurries)
            settle = outgoing.arrived
        except STREAM_FAILURES as error:
            settle = outgoing.broke
            reason = str(error) or repr(error)
            log.warning("a snapshot broke off", peer=peer, reason=reason)
        except ConsensusError as error:
            log.warning("a snapshot did not arrive", peer=peer, reason=str(error))
        finally:
            settle(peer)
        return settle == outgoing.arrived


class Sink:
    """One stream being received; a disk that fails stops the member.

    Args:
        reception: where it goes.
        wake: has the driver pumped soon.
        halt: stops the member, with the reason.
    """

    def __init__(
        self, reception: Reception, wake: Callable[[], None], halt: Callable[[str], None]
    ) -> None:
        self._reception = reception
        self._wake = wake
        self._halt = halt

    @property
    def offset(self) -> int:
        """Bytes that an earlier stream has brought."""
        return self._reception.offset

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; see ``Reception.write``."""
        try:
            self._reception.write(chunk)
        except StorageError as error:
            self._halt(str(error))
            raise

    def finish(self, size: int, checksum: int) -> None:
        """Everything has come; see ``Reception.finish``."""
        try:
            self._reception.finish(size, checksum)
        except StorageError as error:
            self._halt(str(error))
            raise
        self._wake()

    def close(self) -> None:
        """The stream is over."""
        self._reception.close()
