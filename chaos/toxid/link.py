"""One direction of one proxied connection: a chain of stages between two sockets.

Bytes are read in chunks, pass through one stage per toxic, and end in the sink, which writes
them. Each stage is a task with a bounded mailbox; feeding a full mailbox waits, so that a slow
stage pushes back to the sending socket, as TCP itself would. Everything runs on one event loop:
relinking the chain is atomic between two awaits, which is what lets toxics come and go on live
connections without losing or reordering a byte.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final, Protocol

import attrs

READ_BYTES_MAX: Final = 32 * 1024
"""Largest chunk read from a socket at once; toxics act on chunks."""

STAGE_CHUNKS_MAX: Final = 4
"""Chunks that wait before a stage, unless its toxic asks for more."""


@attrs.frozen(slots=True)
class Chunk:
    """Bytes on their way, and when they were read (event loop seconds)."""

    data: bytes
    read_at_s: float


class Signal(enum.Enum):
    """What a stage may receive instead of a chunk."""

    EOF = "eof"
    INTERRUPTED = "interrupted"
    TIMED_OUT = "timed_out"


class Behaviour(Protocol):
    """What a toxic does to the chunks of one link. One object serves all links of its toxic."""

    @property
    def mailbox_chunks_max(self) -> int:
        """How many chunks may wait in front of it."""

    async def run(self, stage: Stage) -> None:
        """Move chunks from ``stage.get`` to ``stage.put`` until interrupted or closed."""


class Inlet(Protocol):
    """Anything that takes chunks: a stage or the sink."""

    async def feed(self, item: Chunk | Signal) -> None:
        """Take one chunk, or ``Signal.EOF``; wait while there is no room."""


class Passthrough:
    """Hands every chunk on unchanged."""

    mailbox_chunks_max = STAGE_CHUNKS_MAX

    async def run(self, stage: Stage) -> None:
        while True:
            item = await stage.get()
            if item is Signal.INTERRUPTED:
                return
            if isinstance(item, Chunk):
                await stage.put(item)
            else:
                await stage.close()
                return


PASSTHROUGH: Final = Passthrough()


class Stage:
    """A toxic's place in one link.

    Args:
        choose: returns the behaviour to run now, or None for a link that the toxic's toxicity
            spared. Asked again after each interrupt.
        rng: source of this stage's random choices.
        downstream: where chunks go next.
        touched: called whenever the toxic did something to what flows.
        fresh: whether it sees its connection from the first byte.
    """

    def __init__(
        self,
        choose: Callable[[Random], Behaviour | None],
        rng: Random,
        downstream: Inlet,
        touched: Callable[[], None],
        fresh: bool = False,
    ) -> None:
        self.rng = rng
        self.touched = touched
        self.fresh = fresh
        self.downstream = downstream
        self.state: dict[str, int] = {}
        self.memory: Any = None
        self.reset_on_close = False
        self.closed = False
        self._choose = choose
        self._behaviour: Behaviour = choose(rng) or PASSTHROUGH
        self._mailbox: deque[Chunk | Signal] = deque()
        self._feeders = 0
        self._retired = False
        self._interrupted = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._on_idle: Callable[[Stage], None] = lambda stage: None

    # What behaviours use.

    async def get(self, timeout_s: float | None = None) -> Chunk | Signal:
        """Return the next chunk, or EOF, INTERRUPTED, or TIMED_OUT after ``timeout_s`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while True:
            if self._interrupted:
                return Signal.INTERRUPTED
            if self._mailbox:
                item = self._mailbox.popleft()
                self._room.set()
                return item
            if not await self._wait_changed(deadline):
                return Signal.TIMED_OUT

    async def put(self, chunk: Chunk) -> None:
        """Hand a chunk on; wait while the next stage has no room."""
        await self.downstream.feed(chunk)

    async def sleep(self, seconds: float) -> bool:
        """Wait; return True at once if the stage is interrupted meanwhile."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not self._interrupted:
            if not await self._wait_changed(deadline):
                return False
        return True

    async def sleep_until(self, when_s: float) -> bool:
        """``sleep`` until an instant of the event loop's clock."""
        return await self.sleep(when_s - asyncio.get_running_loop().time())

    @property
    def retired(self) -> bool:
        """True once the toxic was taken away."""
        return self._retired

    async def finish(self, item: Chunk | Signal) -> None:
        """After ``get`` brought no chunk: close, unless it only told of an interruption."""
        if item is not Signal.INTERRUPTED:
            await self.close()

    async def close(self) -> None:
        """End the stream here: what comes later is discarded."""
        if not self.closed:
            self.closed = True
            await self.downstream.feed(Signal.EOF)

    # What the link uses.

    async def feed(self, item: Chunk | Signal) -> None:
        """Take one item into the mailbox, waiting for room (see ``Inlet``)."""
        self._feeders += 1
        try:
            while len(self._mailbox) >= self._behaviour.mailbox_chunks_max and not self.closed:
                self._room.clear()
                await self._room.wait()
            if not self.closed:
                self._mailbox.append(item)
                self._changed.set()
        finally:
            self._feeders -= 1

    def interrupt(self) -> None:
        """The toxic changed: let the behaviour finish its chunk and choose again."""
        self._interrupted = True
        self._changed.set()

    def retire(self, on_idle: Callable[[Stage], None]) -> None:
        """The toxic is gone: hand on what is here, then call ``on_idle`` once nothing is left."""
        self._retired = True
        self._on_idle = on_idle
        self.interrupt()

    async def run(self) -> None:
        """The stage's task: run behaviours until the stream ends or the stage is retired."""
        try:
            while not self.closed:
                self._interrupted = False
                if self._retired:
                    await self._drain()
                    return
                await self._behaviour.run(self)
                if self._interrupted and not self._retired:
                    self._behaviour = self._choose(self.rng) or PASSTHROUGH
        except (ConnectionError, TimeoutError, OSError):
            return
        finally:
            self.closed = True
            self._mailbox.clear()
            self._room.set()

    async def _drain(self) -> None:
        while not self.closed:
            if self._mailbox:
                item = self._mailbox.popleft()
                self._room.set()
                if item is Signal.EOF:
                    await self.close()
                else:
                    await self.downstream.feed(item)
            elif self._feeders:
                self._room.set()
                await asyncio.sleep(0)
            else:
                self._on_idle(self)
                return

    async def _wait_changed(self, deadline: float | None) -> bool:
        self._changed.clear()
        if deadline is None:
            await self._changed.wait()
            return True
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            return False
        try:
            async with asyncio.timeout(remaining):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True


class Sink:
    """The end of a link: writes to the socket while the gate is open.

    A closed gate is a silent cut: nothing passes, not even the end of the stream, and what was held
    is delivered when the gate opens, late, as TCP would after a real partition.
    """

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        gate: asyncio.Event,
        count: Callable[[int], None],
        on_held: Callable[[], None],
        on_eof: Callable[[], None],
    ) -> None:
        self._on_held = on_held
        self._writer = writer
        self._gate = gate
        self._count = count
        self._on_eof = on_eof

    async def feed(self, item: Chunk | Signal) -> None:
        """Write a chunk, or end the connection (see ``Inlet``)."""
        if not self._gate.is_set():
            self._on_held()
        while not self._gate.is_set():
            await self._gate.wait()
        if not isinstance(item, Chunk):
            self._on_eof()
            return
        self._writer.write(item.data)
        self._count(len(item.data))
        await self._writer.drain()


class Link:
    """One direction: socket, stages in the order their toxics were added, socket."""

    def __init__(self, reader: asyncio.StreamReader, sink: Sink) -> None:
        self._reader = reader
        self._sink = sink
        self._stages: dict[str, Stage] = {}
        self._tasks: dict[Stage, asyncio.Task[None]] = {}
        self._head: Inlet = sink
        self._chain: list[Stage] = []

    def add(
        self,
        name: str,
        choose: Callable[[Random], Behaviour | None],
        rng: Random,
        touched: Callable[[], None],
        fresh: bool,
    ) -> Stage:
        """Put a toxic's stage at the end of the chain."""
        stage = Stage(choose, rng, self._sink, touched, fresh)
        if self._chain:
            self._chain[-1].downstream = stage
        else:
            self._head = stage
        self._chain.append(stage)
        self._stages[name] = stage
        task = asyncio.get_running_loop().create_task(stage.run())
        self._tasks[stage] = task
        return stage

    def update(self, name: str) -> None:
        """The toxic's attributes changed: let its stage see them at once."""
        if name in self._stages:
            self._stages[name].interrupt()

    def remove(self, name: str) -> None:
        """Take a toxic's stage out once the chunks inside it have passed on."""
        stage = self._stages.pop(name, None)
        if stage is not None:
            stage.retire(self._splice)

    async def pump(self, count: Callable[[int], None], clock: Callable[[], float]) -> None:
        """Read until the end of the stream and feed the chain. An error ends the stream too."""
        try:
            while data := await self._reader.read(READ_BYTES_MAX):
                count(len(data))
                await self._head.feed(Chunk(data, clock()))
        except (ConnectionError, TimeoutError, OSError):
            pass
        await _until_broken(self._head.feed(Signal.EOF))

    def cancel(self) -> None:
        """Stop all stages at once; what they hold is lost."""
        for task in self._tasks.values():
            task.cancel()

    async def settled(self) -> None:
        """Return when every stage's task has ended."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _splice(self, stage: Stage) -> None:
        position = self._chain.index(stage)
        if position:
            self._chain[position - 1].downstream = stage.downstream
        else:
            self._head = stage.downstream
        del self._chain[position]
        del self._tasks[stage]


async def _until_broken(work: Awaitable[None]) -> None:
    """Await ``work``; a connection that breaks under it only ends it."""
    try:
        await work
    except (ConnectionError, TimeoutError, OSError):
        return
