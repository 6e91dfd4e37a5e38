"""What watchers of other keys cost a put: measured in turns, so that both meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from operator import truediv
from pathlib import Path

import pytest

from consensus.types import Entry
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command
from kvstore.watch import WatchHub, WatchStream
from kvstore.watch.watcher import Watcher
from tests.kvstore.watch.fakes import header
from tests.kvstore.watch.real_store import RealStore

WATCHERS = 10_000
ROUNDS = 300
PUTS_PER_ROUND = 15
SLOWER_MAX = 1.20


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealStore]:
    store = RealStore(tmp_path / "store")
    yield store
    store.close()


def ranges(kind: str) -> Iterator[tuple[bytes, bytes]]:
    for number in range(WATCHERS):
        key = b"other/%05d" % number
        yield {
            "keys": (key, b""),
            "disjoint ranges": (key, key + b"\xff"),
            "nested ranges": (key, b"other0"),
            "from a key on": (key, b"\0"),
        }[kind]


@pytest.mark.parametrize("kind", ["keys", "disjoint ranges", "nested ranges", "from a key on"])
async def test_ten_thousand_watchers_of_other_keys_slow_a_put_little(
    real: RealStore, kind: str
) -> None:
    nobody, many = WatchHub(real, header), WatchHub(real, header)
    stream = WatchStream(many)
    for number, (key, range_end) in enumerate(ranges(kind)):
        request = pb.WatchCreateRequest(key=key, range_end=range_end)
        many.sync(Watcher.of(stream, number, request, real.current_revision))
    index = 0

    def put_us() -> float:
        nonlocal index
        entries = []
        for number in range(PUTS_PER_ROUND):
            index += 1
            put = pb.PutRequest(key=b"bench/%d" % number, value=b"x" * 100)
            entries.append(Entry(1, index, 0, Command(put=put).SerializeToString()))
        started = time.process_time()
        for entry in entries:
            real.machine.apply_batch((entry,))
        return (time.process_time() - started) / PUTS_PER_ROUND * 1e6

    alone_us, watched_us = [], []
    for _ in range(ROUNDS):
        for hub, measured in ((nobody, alone_us), (many, watched_us)):
            real.sink = hub
            measured.append(put_us())
    # Pairs, because the machine itself may be half as fast a moment later.
    slower = statistics.median(map(truediv, watched_us, alone_us))
    assert slower < SLOWER_MAX
    stream.close()
