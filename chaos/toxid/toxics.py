"""The toxics: what each does to the bytes of one direction.

Names, attributes and effects are Toxiproxy's (README of version 2.12, section "Toxics"); units are
in each attribute's description. ``packet_loss`` follows the toxic that Toxiproxy gained after 2.12:
it drops whole chunks from the stream, so the receiver sees damaged data, not a retransmission.
What neither has is in ``chaos.toxid.extensions``.
Every random choice comes from the stage's own generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, ClassVar, Final

import attrs

from chaos.toxid.extensions import Corrupt, Frames, InvalidAttributes, Retransmit, check_rates
from chaos.toxid.link import STAGE_CHUNKS_MAX, Behaviour, Chunk, Signal, Stage

LATENCY_CHUNKS_MAX: Final = 1024
"""Chunks in flight inside one latency toxic."""

BANDWIDTH_SLICE_MS: Final = 100
"""A slow link sends its bytes in portions of this many milliseconds."""


@attrs.define(slots=True)
class Latency:
    """Delay every chunk by ``latency`` +- ``jitter`` milliseconds."""

    type: ClassVar[str] = "latency"
    mailbox_chunks_max: ClassVar[int] = LATENCY_CHUNKS_MAX

    latency: int = 0
    jitter: int = 0

    async def run(self, stage: Stage) -> None:
        while isinstance(item := await stage.get(), Chunk):
            delay_ms = self.latency
            if self.jitter > 0:
                delay_ms += stage.rng.randrange(-self.jitter, self.jitter)
            stage.touched()
            interrupted = await stage.sleep_until(item.read_at_s + delay_ms / 1000)
            await stage.put(item)
            if interrupted:
                return
        await stage.finish(item)


@attrs.define(slots=True)
class Bandwidth:
    """Pass at most ``rate`` kilobytes a second. Rate 0 passes nothing."""

    type: ClassVar[str] = "bandwidth"
    mailbox_chunks_max: ClassVar[int] = STAGE_CHUNKS_MAX

    rate: int = 0

    async def run(self, stage: Stage) -> None:
        while isinstance(item := await stage.get(), Chunk):
            data = item.data
            stage.touched()
            while data:
                if self.rate == 0:
                    interrupted = await stage.sleep(3600.0)
                    portion = b""
                else:
                    portion = data[: self.rate * BANDWIDTH_SLICE_MS]
                    interrupted = await stage.sleep(len(portion) / (self.rate * 1000))
                if interrupted:
                    await stage.put(Chunk(data, item.read_at_s))
                    return
                if portion:
                    await stage.put(Chunk(portion, item.read_at_s))
                    data = data[len(portion) :]
        await stage.finish(item)


@attrs.define(slots=True)
class SlowClose:
    """Hold back the end of the stream for ``delay`` milliseconds."""

    type: ClassVar[str] = "slow_close"
    mailbox_chunks_max: ClassVar[int] = STAGE_CHUNKS_MAX

    delay: int = 0

    async def run(self, stage: Stage) -> None:
        while isinstance(item := await stage.get(), Chunk):
            await stage.put(item)
        if item is Signal.EOF:
            stage.touched()
            await stage.sleep(self.delay / 1000)
        await stage.finish(item)


@attrs.define(slots=True)
class Timeout:
    """Swallow all data; close after ``timeout`` milliseconds without any (0: never).

    Taking the toxic away closes the connections it starved: bytes are missing from their streams.
    """

    type: ClassVar[str] = "timeout"
    mailbox_chunks_max: ClassVar[int] = STAGE_CHUNKS_MAX

    timeout: int = 0

    async def run(self, stage: Stage) -> None:
        limit_s = self.timeout / 1000 if self.timeout > 0 else None
        while isinstance(item := await stage.get(limit_s), Chunk):
            stage.touched()
        if item is Signal.INTERRUPTED and not stage.retired:
            return
        await stage.close()


@attrs.define(slots=True)
class ResetPeer:
    """Reset (TCP RST) both ends ``timeout`` milliseconds after the first data or end of stream."""

    type: ClassVar[str] = "reset_peer"
    mailbox_chunks_max: ClassVar[int] = STAGE_CHUNKS_MAX

    timeout: int = 0

    async def run(self, stage: Stage) -> None:
        if await stage.get() is Signal.INTERRUPTED:
            return
        await stage.sleep(self.timeout / 1000)
        stage.reset_on_close = True
        stage.touched()
        await stage.close()


@attrs.define(slots=True)
class Slicer:
    """Cut data into pieces of ``average_size`` +- ``size_variation`` bytes, ``delay`` us apart.

    The event loop's timers count milliseconds: a shorter delay lasts about one.
    """

    type: ClassVar[str] = "slicer"
    mailbox_chunks_max: ClassVar[int] = STAGE_CHUNKS_MAX

    average_size: int = 0
    size_variation: int = 0
    delay: int = 0

    def __attrs_post_init__(self) -> None:
        if self.size_variation and self.size_variation >= self.average_size:
            raise InvalidAttributes("size_variation must be less than average_size")

    async def run(self, stage: Stage) -> None:
        while isinstance(item := await stage.get(), Chunk):
            data = item.data
            while data:
                size = max(1, self.average_size)
                if self.size_variation:
                    size += stage.rng.randrange(-self.size_variation, self.size_variation)
                await stage.put(Chunk(data[:size], item.read_at_s))
                data = data[size:]
                if data:
                    stage.touched()
                if data and await stage.sleep(self.delay / 1_000_000):
                    await stage.put(Chunk(data, item.read_at_s))
                    return
        await stage.finish(item)


@attrs.define(slots=True)
class LimitData:
    """Close the connection after ``bytes`` bytes."""

    type: ClassVar[str] = "limit_data"
    mailbox_chunks_max: ClassVar[int] = STAGE_CHUNKS_MAX

    bytes: int = 0

    async def run(self, stage: Stage) -> None:
        while isinstance(item := await stage.get(), Chunk):
            sent = stage.state.get("sent", 0)
            data = item.data[: max(0, self.bytes - sent)]
            if data:
                await stage.put(Chunk(data, item.read_at_s))
                stage.state["sent"] = sent + len(data)
            if sent + len(data) >= self.bytes:
                stage.touched()
                await stage.close()
                return
        await stage.finish(item)


@attrs.define(slots=True)
class PacketLoss:
    """Drop a chunk with probability ``loss_rate``, raised by ``correlation`` after a drop."""

    type: ClassVar[str] = "packet_loss"
    mailbox_chunks_max: ClassVar[int] = STAGE_CHUNKS_MAX

    loss_rate: float = 0.1
    correlation: float = 0.0

    def __attrs_post_init__(self) -> None:
        check_rates(self, "loss_rate", "correlation")

    async def run(self, stage: Stage) -> None:
        while isinstance(item := await stage.get(), Chunk):
            chance = self.loss_rate + self.correlation * stage.state.get("dropped", 0)
            dropped = stage.rng.random() < chance
            stage.state["dropped"] = int(dropped)
            if dropped:
                stage.touched()
            else:
                await stage.put(item)
        await stage.finish(item)


AnyToxic = (
    Latency
    | Bandwidth
    | SlowClose
    | Timeout
    | ResetPeer
    | Slicer
    | LimitData
    | PacketLoss
    | Retransmit
    | Corrupt
    | Frames
)

TYPES: Final[Mapping[str, type[AnyToxic]]] = {
    kind.type: kind
    for kind in (
        Latency,
        Bandwidth,
        SlowClose,
        Timeout,
        ResetPeer,
        Slicer,
        LimitData,
        PacketLoss,
        Retransmit,
        Corrupt,
        Frames,
    )
}


def build(kind: type[AnyToxic], attributes: Mapping[str, Any], base: AnyToxic | None) -> AnyToxic:
    """Return a toxic of ``kind`` from a request's attributes; those not given come from ``base``.

    Raises:
        InvalidAttributes: an attribute is unknown, of the wrong type, or out of range.
    """
    fields = {field.name: field for field in attrs.fields(kind)}
    values = {} if base is None else attrs.asdict(base)
    for name, value in attributes.items():
        if name not in fields:
            raise InvalidAttributes(
                f"{kind.type} has no attribute {name!r}; it has {', '.join(sorted(fields))}"
            )
        wants_float = isinstance(fields[name].default, float)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidAttributes(f"{name} must be a number, not {value!r}")
        if isinstance(value, float) and not wants_float:
            raise InvalidAttributes(f"{name} must be a whole number, not {value!r}")
        if value < 0:
            raise InvalidAttributes(f"{name} must not be negative, not {value!r}")
        values[name] = value
    return kind(**values)


@attrs.define(slots=True)
class Toxic:
    """A toxic as the API names it: a behaviour, a direction, and the share of links it touches."""

    name: str
    stream: str
    toxicity: float
    behaviour: AnyToxic

    @property
    def type(self) -> str:
        """The toxic's type, such as ``latency``."""
        return self.behaviour.type

    def choose(self, rng: Random) -> Behaviour | None:
        """Draw whether this toxic touches a link: its behaviour, or None."""
        return self.behaviour if rng.random() < self.toxicity else None

    def as_json(self) -> dict[str, Any]:
        """The toxic in the API's form."""
        return {
            "attributes": attrs.asdict(self.behaviour),
            "name": self.name,
            "type": self.type,
            "stream": self.stream,
            "toxicity": self.toxicity,
        }
