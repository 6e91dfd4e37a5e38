"""The streams of snapshots of one simulated member: they may break off, and go on later."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from consensus.engines.native.driver import Driver
from consensus.engines.native.incoming import Announcement
from consensus.errors import SnapshotRefused
from consensus.raft.messages import InstallSnapshot
from consensus.storage.records import crc32c
from consensus.types import NodeId

if TYPE_CHECKING:
    from chaos.sim.member import Member

CHUNK_BYTES: Final = 1024
"""Bytes of a snapshot that a receiver writes at once."""
RESTORING_US: Final = 2_000
"""Until a leader whose own machine is being restored says that it has nothing to send."""


class StreamEnd(enum.Enum):
    """What became of a stream, as its sender learns it."""

    ARRIVED = "arrived"
    BROKE = "broke"
    REFUSED = "refused"


class Streams:
    """What one life of a member's process sends and receives.

    Args:
        member: whose it is.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._sending: set[NodeId] = set()

    def send(self, message: InstallSnapshot) -> None:
        """Send a snapshot's data beside its message; it may break off somewhere."""
        member = self._member
        world = member.world
        driver = member.driver
        receiver = message.receiver
        if driver is None or receiver in self._sending:
            return
        world.count("snapshots sent")
        if driver.restoring:
            world.at(world.now + RESTORING_US, self._not_sent, message)
            return
        self._sending.add(receiver)
        snapshot = driver.outgoing.open(receiver)
        announced = Announcement(snapshot.id, member.name, message.term, snapshot.meta)
        data = b"".join(snapshot.chunks())

        def arrive(share: float) -> None:
            target = world.members[receiver]
            ready = max(target.paused_until, target.busy_until)
            if ready > world.now and share:
                world.at(ready, arrive, share)
                return
            self._sent(receiver, target.streams.take(announced, data, share))

        world.network.stream(message, max(world.now, member.busy_until), arrive)

    def _sent(self, receiver: NodeId, end: StreamEnd) -> None:
        """Tell the driver, unless it is of another life."""
        member = self._member
        driver = member.driver
        if driver is None or member.streams is not self:
            return
        self._sending.discard(receiver)
        outgoing = driver.outgoing
        settle = {
            StreamEnd.ARRIVED: outgoing.arrived,
            StreamEnd.BROKE: outgoing.broke,
            StreamEnd.REFUSED: outgoing.refused,
        }
        settle[end](receiver)
        driver.core.snapshot_reported(receiver, arrived=end is StreamEnd.ARRIVED)
        member.pump()

    def _not_sent(self, message: InstallSnapshot) -> None:
        driver = self._member.driver
        if driver is not None:
            driver.core.snapshot_reported(message.receiver, arrived=False)
            self._member.pump()

    def take(self, announced: Announcement, data: bytes, share: float) -> StreamEnd:
        """Take what comes through of a snapshot: ``share`` of what is not here already."""
        member = self._member
        driver = member.driver
        if driver is None or not share:
            return StreamEnd.BROKE
        end = StreamEnd.BROKE

        def receive(driver: Driver) -> None:
            nonlocal end
            try:
                end = self._receive(driver, announced, data, share)
            except SnapshotRefused:
                end = StreamEnd.REFUSED

        member.guarded(receive, driver)
        if member.driver is not driver:
            return StreamEnd.BROKE
        member.pump()
        if member.driver is driver and end is StreamEnd.ARRIVED:
            member.base_index = driver.core.log.snapshot.index
            member.world.count("snapshots installed")
        return end

    def _receive(
        self, driver: Driver, announced: Announcement, data: bytes, share: float
    ) -> StreamEnd:
        world = self._member.world
        reception = driver.incoming.begin(announced)
        start = reception.offset
        stop = start + int((len(data) - start) * share)
        index = announced.meta.raft.index
        name = self._member.name
        world.trace.note(world.now, "snapshot", announced.sender, name, index, start, stop)
        if start:
            world.count("snapshots resumed")
        for offset in range(start, stop, CHUNK_BYTES):
            reception.write(data[offset : min(offset + CHUNK_BYTES, stop)])
        if share < 1.0:
            reception.close()
            return StreamEnd.BROKE
        reception.finish(len(data), crc32c(data))
        return StreamEnd.ARRIVED
