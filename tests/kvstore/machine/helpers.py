"""What tests of the machine fill it with, and have it tell."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.types import Entry
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command
from kvstore.pb.mvccpb_pb2 import Event
from tests.kvstore.mvcc.driver import Driver


def fill(driver: Driver, count: int, value: bytes = b"v") -> None:
    """Put so many keys, in one batch."""
    commands = [
        Command(put=pb.PutRequest(key=b"key-%06d" % number, value=value)).SerializeToString()
        for number in range(count)
    ]
    start = driver.index + 1
    driver.machine.apply_batch([Entry(1, start + n, 0, c) for n, c in enumerate(commands)])
    driver.index += count


class Listener:
    """Writes down what it is told of leases."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, int]] = []

    def granted(self, id: int, ttl_s: int) -> None:
        self.heard.append(("granted", id, ttl_s))

    def revoked(self, id: int) -> None:
        self.heard.append(("revoked", id, 0))

    def reset(self) -> None:
        self.heard.append(("reset", 0, 0))


class Sink:
    """Writes down what it is told of revisions."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []
        self.events: list[Event] = []

    def notify(self, revision: int, events: Sequence[Event]) -> None:
        self.heard.append(("notify", revision))
        self.events += events

    def restored(self) -> None:
        self.heard.append(("restored", 0))

    def compacted(self, revision: int) -> None:
        self.heard.append(("compacted", revision))
