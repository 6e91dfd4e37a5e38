"""A snapshot on a connection of its own, which goes on where an earlier connection broke off.

    sender                              receiver
    Snapshot (id, where it stands)
                                        snapshot_offset, or Welcome with a refusal
    snapshot_chunk ...
    SnapshotEnd (size, checksum)
                                        Welcome, with a refusal or none

The id names the bytes: a receiver that has the beginning of a snapshot with this id asks for the
rest, and the sender does not send again what it has. Size and checksum are of the whole, whichever
connections it came over.

The sender is a leader that has a group to serve from the same loop: it sends in slices and rests
in between, so that a member that catches up does not take the others' commands their time. It rests
no more once that would cost more than it brings: see ``send_snapshot``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol, TypeVar

import google_crc32c

from consensus.errors import ConsensusError, SnapshotRefused
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import (
    FRAME_BYTES_MAX,
    PREFIX_BYTES,
    BadFrame,
    pack,
    unpack,
    unpack_prefix,
)

STALL_TIMEOUT_S: Final = 10.0
"""A stream that does not move for so long has broken; the next one goes on from there."""

RESTS_PER_WORK: Final = 2.0
"""A sender rests so many times as long as it worked on a chunk: a third of its loop, at most."""

REST_MAX_S: Final = 0.25
"""It rests no longer than this at a time: the receiver must not take it for dead."""

RESTS_FOR_S: Final = 120.0
"""A stream that has lasted so long rests no more: whoever froze what it sends wants it back."""

SKIPPING_SIGN_S: Final = 1.0
"""While a sender reads past what the receiver has, it says so often that it is still there."""

TLS_HANDSHAKE: Final = b"\x16\x03"
"""How a connection of TLS begins."""

Answer = TypeVar("Answer")


class SnapshotSink(Protocol):
    """Where one stream of a snapshot goes."""

    @property
    def offset(self) -> int:
        """Bytes of this snapshot that an earlier stream has brought."""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            ConsensusError: this stream is not wanted any more, or they cannot be kept.
        """

    def finish(self, size: int, checksum: int) -> None:
        """Everything has come: check it, and put it in place.

        Raises:
            ConsensusError: it is not what was sent, or is not wanted any more.
        """

    def close(self) -> None:
        """The stream is over. What came of an unfinished snapshot is kept for the next one."""


async def send_snapshot(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    term: int,
    header: wire.Snapshot,
    chunks: Iterator[bytes],
    hurries: Callable[[], bool] = lambda: False,
) -> None:
    """Send what the receiver lacks of a snapshot.

    Args:
        chunks: all of it, from the beginning.
        hurries: whether there is no time to rest now.

    Raises:
        SnapshotRefused: the receiver does not want it, or found it damaged. Begin anew.
        OSError, BadFrame, asyncio.IncompleteReadError: the connection broke. Try again.
    """
    writer.write(pack(wire.Envelope(term=term, snapshot=header)))
    answer = await _in_time(read_envelope(reader), "it gave no answer")
    if answer.WhichOneof("body") != "snapshot_offset":
        raise SnapshotRefused(answer.welcome.refusal or "no reason was given")
    received = answer.snapshot_offset
    size = checksum = 0
    clock = time.monotonic  # the loop's own may stand still for a turn, as uvloop's does
    first = began = said = clock()
    for chunk in chunks:
        checksum = google_crc32c.extend(checksum, chunk)
        begins, size = size, size + len(chunk)
        new = chunk[max(0, received - begins) :]
        if new or clock() >= said + SKIPPING_SIGN_S:
            writer.write(pack(wire.Envelope(snapshot_chunk=new)))
            said = clock()
        rest_s = min(RESTS_PER_WORK * (clock() - began), REST_MAX_S)
        await _in_time(writer.drain(), "it took nothing")
        began = clock()
        await asyncio.sleep(0 if began > first + RESTS_FOR_S or hurries() else rest_s)
        began = clock()
    writer.write(pack(wire.Envelope(snapshot_end=wire.SnapshotEnd(size=size, checksum=checksum))))
    answer = await _in_time(read_envelope(reader), "it did not say whether it arrived")
    if answer.WhichOneof("body") != "welcome" or answer.welcome.refusal:
        raise SnapshotRefused(answer.welcome.refusal or "no reason was given")


async def receive_snapshot(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    begin: Callable[[int, wire.Snapshot], SnapshotSink],
) -> None:
    """Receive what is missing of a snapshot.

    Args:
        begin: called with the sender's term and the header; ``ConsensusError`` refuses.

    Raises:
        OSError, BadFrame, asyncio.IncompleteReadError: the connection broke.
    """
    refusal = ""
    try:
        await _receive(reader, writer, begin)
    except ConsensusError as error:
        refusal = str(error)
    writer.write(pack(wire.Envelope(welcome=wire.Welcome(refusal=refusal))))
    await _in_time(writer.drain(), "it took no answer")


async def _receive(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    begin: Callable[[int, wire.Snapshot], SnapshotSink],
) -> None:
    first = await _in_time(read_envelope(reader), "it sent nothing")
    if first.WhichOneof("body") != "snapshot":
        raise BadFrame("a snapshot connection did not begin with a snapshot's header")
    sink = begin(first.term, first.snapshot)
    try:
        writer.write(pack(wire.Envelope(snapshot_offset=sink.offset)))
        while True:
            envelope = await _in_time(read_envelope(reader), "it sent nothing")
            match envelope.WhichOneof("body"):
                case "snapshot_chunk":
                    sink.write(envelope.snapshot_chunk)
                case "snapshot_end":
                    sink.finish(envelope.snapshot_end.size, envelope.snapshot_end.checksum)
                    return
                case other:
                    raise BadFrame(f"{other} in the middle of a snapshot")
    finally:
        sink.close()


async def read_envelope(
    reader: asyncio.StreamReader, bytes_max: int = FRAME_BYTES_MAX
) -> wire.Envelope:
    """Read one frame.

    Raises:
        OSError, asyncio.IncompleteReadError: the connection ended.
        BadFrame: it is no frame of this protocol, or longer than it may be here.
    """
    prefix = await reader.readexactly(PREFIX_BYTES)
    length, checksum = unpack_prefix(prefix)
    if length > bytes_max:
        if prefix.startswith(TLS_HANDSHAKE):
            raise BadFrame("the peer speaks TLS, and this member does not")
        raise BadFrame(f"a frame of {length} bytes; at most {bytes_max} are allowed here")
    return unpack(await reader.readexactly(length), checksum)


async def _in_time(work: Awaitable[Answer], otherwise: str) -> Answer:
    try:
        async with asyncio.timeout(STALL_TIMEOUT_S):
            return await work
    except TimeoutError:
        raise OSError(f"{otherwise} for {STALL_TIMEOUT_S:g} s") from None
