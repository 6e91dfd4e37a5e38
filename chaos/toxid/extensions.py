"""Toxics that Toxiproxy does not have: lost packets as TCP shows them, damage, and whole frames.

``frames`` knows the frames of the native engine's peer connections (``consensus.transport.codec``)
and treats them as a network treats datagrams. It touches only what Raft allows it to: not the
first frame of a connection, with which peers greet each other, and not a connection that carries
a snapshot, whose pieces rely on their order. It needs a connection from its first byte on; one
that was there before the toxic is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, ClassVar

import attrs

from chaos.toxid.link import STAGE_CHUNKS_MAX, Chunk, Signal, Stage
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import PREFIX_BYTES, BadFrame, unpack, unpack_prefix


class InvalidAttributes(ValueError):
    """An attribute of a toxic is unknown, of the wrong type, or out of range."""


def check_rates(toxic: Any, *names: str) -> None:
    """See that these attributes are probabilities.

    Raises:
        InvalidAttributes: one is not.
    """
    for name in names:
        if not 0.0 <= getattr(toxic, name) <= 1.0:
            raise InvalidAttributes(f"{name} must be between 0 and 1")


@attrs.define(slots=True)
class Retransmit:
    """Lose a chunk with probability ``loss_rate``: it comes ``delay`` ms late, the rest waits."""

    type: ClassVar[str] = "retransmit"
    mailbox_chunks_max: ClassVar[int] = STAGE_CHUNKS_MAX

    loss_rate: float = 0.1
    delay: int = 200

    def __attrs_post_init__(self) -> None:
        check_rates(self, "loss_rate")

    async def run(self, stage: Stage) -> None:
        while isinstance(item := await stage.get(), Chunk):
            interrupted = False
            if stage.rng.random() < self.loss_rate:
                stage.touched()
                interrupted = await stage.sleep(self.delay / 1000)
            await stage.put(item)
            if interrupted:
                return
        await stage.finish(item)


@attrs.define(slots=True)
class Corrupt:
    """Flip one bit of a chunk with probability ``rate``."""

    type: ClassVar[str] = "corrupt"
    mailbox_chunks_max: ClassVar[int] = STAGE_CHUNKS_MAX

    rate: float = 0.01

    def __attrs_post_init__(self) -> None:
        check_rates(self, "rate")

    async def run(self, stage: Stage) -> None:
        while isinstance(item := await stage.get(), Chunk):
            data = item.data
            if stage.rng.random() < self.rate:
                stage.touched()
                damaged = bytearray(data)
                damaged[stage.rng.randrange(len(data))] ^= 1 << stage.rng.randrange(8)
                data = bytes(damaged)
            await stage.put(Chunk(data, item.read_at_s))
        await stage.finish(item)


@attrs.define(slots=True)
class Frames:
    """Drop, repeat and delay whole frames, each with its probability.

    ``late``: a repeated or delayed frame comes after at most so many others.
    """

    type: ClassVar[str] = "frames"
    mailbox_chunks_max: ClassVar[int] = STAGE_CHUNKS_MAX

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    late: int = 5

    def __attrs_post_init__(self) -> None:
        check_rates(self, "drop", "duplicate", "reorder")
        if self.late < 1:
            raise InvalidAttributes("late must be at least 1")

    async def run(self, stage: Stage) -> None:
        if stage.memory is None:
            stage.memory = _Frames(spared=not stage.fresh)
        frames: _Frames = stage.memory
        while isinstance(item := await stage.get(), Chunk):
            for data in frames.take(item.data, self, stage):
                await stage.put(Chunk(data, item.read_at_s))
        if item is Signal.EOF or stage.retired:
            for data in frames.rest():
                await stage.put(Chunk(data, 0.0))
        await stage.finish(item)


class _Frames:
    """The frames of one direction of one connection.

    Args:
        spared: whether everything passes as it is.
    """

    def __init__(self, spared: bool) -> None:
        self._spared = spared
        self._greeted = False
        self._partial = bytearray()
        self._held: list[tuple[int, bytes]] = []
        self._passed = 0

    def take(self, data: bytes, toxic: Frames, stage: Stage) -> Iterator[bytes]:
        """Yield what goes on now."""
        if self._spared:
            yield data
            return
        self._partial += data
        while (frame := self._cut()) is not None:
            if not self._greeted:
                self._greeted = True
                self._spared = self._spared or not _carries_messages(frame)
                yield frame
            elif self._spared:
                yield frame
            else:
                yield from self._treat(frame, toxic, stage)
            if self._spared:
                yield from self.rest()
                return

    def rest(self) -> Iterator[bytes]:
        """Yield everything that is still held."""
        held, self._held = self._held, []
        for _, frame in held:
            yield frame
        partial, self._partial = bytes(self._partial), bytearray()
        if partial:
            yield partial

    def _cut(self) -> bytes | None:
        if len(self._partial) < PREFIX_BYTES:
            return None
        try:
            length, _ = unpack_prefix(bytes(self._partial[:PREFIX_BYTES]))
        except BadFrame:
            self._spared = True
            whole, self._partial = bytes(self._partial), bytearray()
            return whole
        end = PREFIX_BYTES + length
        if len(self._partial) < end:
            return None
        frame = bytes(self._partial[:end])
        del self._partial[:end]
        return frame

    def _treat(self, frame: bytes, toxic: Frames, stage: Stage) -> Iterator[bytes]:
        rng: Random = stage.rng
        dropped, repeated, delayed = (
            rng.random() < chance for chance in (toxic.drop, toxic.duplicate, toxic.reorder)
        )
        if dropped or repeated or delayed:
            stage.touched()
        due = self._passed + rng.randint(1, toxic.late)
        if not dropped and (repeated or delayed):
            self._held.append((due, frame))
        if not dropped and not delayed:
            yield frame
        self._passed += 1
        ready = [late for due, late in self._held if due <= self._passed]
        self._held = [(due, late) for due, late in self._held if due > self._passed]
        yield from ready


def _carries_messages(frame: bytes) -> bool:
    """Whether a connection's first frame, a Hello or a Welcome, begins one with Raft messages."""
    checksum = unpack_prefix(frame[:PREFIX_BYTES])[1]
    try:
        envelope = unpack(frame[PREFIX_BYTES:], checksum)
    except BadFrame:
        return False
    return envelope.WhichOneof("body") == "hello" and (
        envelope.hello.purpose == wire.Hello.MESSAGES
    )
