"""A snapshot's stream between two ends of a socket: only what is missing crosses it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from consensus.errors import SnapshotRefused
from consensus.storage.records import crc32c
from consensus.transport import streams
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import BadFrame, pack
from consensus.transport.streams import read_envelope, receive_snapshot, send_snapshot

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]

HEADER = wire.Snapshot(id=b"a/1/1", index=50, term=2)
CHUNKS = [bytes([number]) * 100 for number in range(10)]
DATA = b"".join(CHUNKS)
REAL_SLEEP = asyncio.sleep


class Kept:
    """A sink that has the beginning of a snapshot."""

    def __init__(self, have: int, refusal: str = "") -> None:
        self.offset = have
        self.refusal = refusal
        self.came: list[bytes] = []
        self.finished: tuple[int, int] | None = None
        self.closed = 0

    def begin(self, term: int, header: wire.Snapshot) -> Kept:
        assert (term, header) == (2, HEADER)
        if self.refusal == "begin":
            raise SnapshotRefused("already at index 60")
        return self

    def write(self, chunk: bytes) -> None:
        if self.refusal == "write":
            raise SnapshotRefused("another stream has taken over")
        self.came.append(chunk)

    def finish(self, size: int, checksum: int) -> None:
        if self.refusal == "finish":
            raise SnapshotRefused("what arrived is not what was sent")
        self.finished = (size, checksum)

    def close(self) -> None:
        self.closed += 1


@asynccontextmanager
async def receiving(sink: Kept) -> AsyncIterator[Pipe]:
    """The sender's end of a connection whose other end receives into ``sink``."""
    attended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await receive_snapshot(reader, writer, sink.begin)
            attended.set_result(None)
        except Exception as error:
            attended.set_exception(error)
        finally:
            writer.close()

    async with await asyncio.start_server(attend, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            await attended


@pytest.mark.parametrize("have", [0, 1, 100, 250, 999, 1000])
async def test_only_what_is_missing_is_sent(have: int) -> None:
    sink = Kept(have)
    async with receiving(sink) as (reader, writer):
        await send_snapshot(reader, writer, 2, HEADER, iter(CHUNKS))
    assert b"".join(sink.came) == DATA[have:]
    assert sink.finished == (len(DATA), crc32c(DATA)), "size and checksum are of all of it"
    assert sink.closed == 1


async def test_a_sender_that_reads_past_what_is_there_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "SKIPPING_SIGN_S", 0.0)
    sink = Kept(900)
    async with receiving(sink) as (reader, writer):
        await send_snapshot(reader, writer, 2, HEADER, iter(CHUNKS))
    assert sink.came == [b""] * 9 + [DATA[900:]]


class Laborious:
    """Chunks that take a while each; how long all of them took."""

    def __init__(self, each_s: float) -> None:
        self.worked_s = 0.0
        self._each_s = each_s

    def chunks(self) -> Iterator[bytes]:
        for chunk in CHUNKS:
            began = time.monotonic()
            while time.monotonic() < began + self._each_s:
                pass
            self.worked_s += time.monotonic() - began
            yield chunk


async def rests_of(work: Laborious, hurries: Callable[[], bool] = lambda: False) -> list[float]:
    """Send what takes work, and return how long the sender slept after each chunk, in seconds."""
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        await REAL_SLEEP(0)

    sink = Kept(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams.asyncio, "sleep", sleep)
        async with receiving(sink) as (reader, writer):
            await send_snapshot(reader, writer, 2, HEADER, work.chunks(), hurries)
    assert b"".join(sink.came) == DATA
    return slept


async def test_a_sender_rests_longer_than_it_works_so_that_messages_go_first() -> None:
    work = Laborious(0.005)
    slept = await rests_of(work)
    assert len(slept) == len(CHUNKS)
    assert sum(slept) >= streams.RESTS_PER_WORK * work.worked_s


async def test_a_chunk_that_takes_long_is_no_reason_to_be_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "REST_MAX_S", 0.001)
    assert set(await rests_of(Laborious(0.005))) == {0.001}


async def test_a_sender_without_time_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(await rests_of(Laborious(0.001), lambda: True))
    monkeypatch.setattr(streams, "RESTS_FOR_S", 0.003)
    slept = await rests_of(Laborious(0.001))
    assert slept[0] > 0
    assert slept[-1] == 0


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [("begin", "already at index 60"), ("finish", "what arrived is not what was sent")],
)
async def test_a_refusal_comes_with_its_reason(refusal: str, reason: str) -> None:
    sink = Kept(0, refusal)
    async with receiving(sink) as (reader, writer):
        with pytest.raises(SnapshotRefused, match=reason):
            await send_snapshot(reader, writer, 2, HEADER, iter(CHUNKS))
    assert sink.finished is None


async def test_a_stream_that_stalls_breaks_and_what_came_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = Kept(0)
    with pytest.raises(OSError, match="it sent nothing for"):
        async with receiving(sink) as (reader, writer):
            writer.write(pack(wire.Envelope(term=2, snapshot=HEADER)))
            assert (await read_envelope(reader)).snapshot_offset == 0
            monkeypatch.setattr(streams, "STALL_TIMEOUT_S", 0.05)
            writer.write(pack(wire.Envelope(snapshot_chunk=DATA[:300])))
            assert await reader.read() == b""
    assert b"".join(sink.came) == DATA[:300]
    assert (sink.finished, sink.closed) == (None, 1)


async def test_what_is_no_snapshot_ends_the_connection() -> None:
    sink = Kept(0)
    with pytest.raises(BadFrame, match="heartbeat in the middle of a snapshot"):
        async with receiving(sink) as (reader, writer):
            writer.write(pack(wire.Envelope(term=2, snapshot=HEADER)))
            await read_envelope(reader)
            writer.write(pack(wire.Envelope(heartbeat=wire.Heartbeat())))
            assert await reader.read() == b""
    assert sink.closed == 1
    with pytest.raises(BadFrame, match="did not begin with a snapshot's header"):
        async with receiving(Kept(0)) as (reader, writer):
            writer.write(pack(wire.Envelope(heartbeat=wire.Heartbeat())))
            assert await reader.read() == b""


async def test_a_first_frame_has_a_bound_and_one_of_tls_is_called_so() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(pack(wire.Envelope(snapshot_chunk=bytes(1000))))
    with pytest.raises(BadFrame, match="at most 100 are allowed here"):
        await read_envelope(reader, 100)
    reader = asyncio.StreamReader()
    reader.feed_data(bytes.fromhex("1603010200010001fc0303"))
    with pytest.raises(BadFrame, match="the peer speaks TLS, and this member does not"):
        await read_envelope(reader, 64 * 1024)
