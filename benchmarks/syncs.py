"""Ways of waiting for the disk: ``python -m benchmarks.syncs``.

An event loop that is 90 % busy asks again and again for a write of 4 KiB to be synced, and notes
when it learns of it. Compared are the sync inside the loop, Linux AIO (``io_submit`` of an FDSYNC,
whose end an eventfd tells), a thread with Python's switch interval and with a hundredth of it, and
a small process that is told through a pipe. The decision is in docs/decisions/0003.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import queue
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import uvloop

from benchmarks.figures import quantile
from benchmarks.machine import describe
from benchmarks.tables import Sheet

FILE_BYTES: Final = 64 * 1024 * 1024
WRITE: Final = bytes(4096)
PAUSE_S: Final = 0.003
BUSY_S: Final = 0.0009
IDLE_S: Final = 0.0001

IO_SETUP, IO_DESTROY, IO_GETEVENTS, IO_SUBMIT = 206, 207, 208, 209
"""Numbers of the system calls on x86-64 (io_setup(2) and its neighbours)."""

IOCB: Final = struct.Struct("<QIIHhIQQqQII")
"""data, key, rw_flags, opcode, priority, fd, buffer, bytes, offset, reserved, flags, eventfd."""

FDSYNC: Final = 3
RESULT_BY_EVENTFD: Final = 1
EVENT_BYTES: Final = 32

Sync = Callable[[Callable[[], None]], None]
"""Begins to sync the file and calls back, from the loop, when that is done."""

Way = Callable[[int], Iterator[Sync]]


def inline(descriptor: int) -> Iterator[Sync]:
    """Sync in the loop."""

    def sync(done: Callable[[], None]) -> None:
        os.fdatasync(descriptor)
        done()

    yield sync


def linux_aio(descriptor: int) -> Iterator[Sync]:
    """Have the kernel sync, and be told through an eventfd."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise click.ClickException("Linux AIO is measured on x86-64 only")
    call = ctypes.CDLL(None, use_errno=True).syscall
    context = ctypes.c_ulong(0)
    if call(IO_SETUP, 8, ctypes.byref(context)) != 0:
        raise click.ClickException(f"io_setup failed: {os.strerror(ctypes.get_errno())}")
    told = os.eventfd(0, os.EFD_NONBLOCK)
    events = ctypes.create_string_buffer(EVENT_BYTES)
    request = ctypes.create_string_buffer(
        IOCB.pack(0, 0, 0, FDSYNC, 0, descriptor, 0, 0, 0, 0, RESULT_BY_EVENTFD, told)
    )
    requests = (ctypes.c_void_p * 1)(ctypes.addressof(request))
    waiting: list[Callable[[], None]] = []

    def ready() -> None:
        os.eventfd_read(told)
        call(IO_GETEVENTS, context, 1, 1, events, None)
        waiting.pop()()

    def sync(done: Callable[[], None]) -> None:
        waiting.append(done)
        if call(IO_SUBMIT, context, 1, requests) != 1:
            raise click.ClickException(f"io_submit failed: {os.strerror(ctypes.get_errno())}")

    asyncio.get_running_loop().add_reader(told, ready)
    try:
        yield sync
    finally:
        asyncio.get_running_loop().remove_reader(told)
        os.close(told)
        call(IO_DESTROY, context)


def thread(descriptor: int) -> Iterator[Sync]:
    """Sync in a thread that waits for work."""
    loop = asyncio.get_running_loop()
    work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def run() -> None:
        while (done := work.get()) is not None:
            os.fdatasync(descriptor)
            loop.call_soon_threadsafe(done)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        yield work.put
    finally:
        work.put(None)
        worker.join()


def quick_thread(descriptor: int) -> Iterator[Sync]:
    """The same, with threads that take turns a hundred times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 100)
    try:
        yield from thread(descriptor)
    finally:
        sys.setswitchinterval(before)


def process(descriptor: int) -> Iterator[Sync]:
    """Sync in a small process: a byte asks, a byte answers."""
    asks, ask = os.pipe()
    answer, answers = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ask)
        while os.read(asks, 1):
            os.fdatasync(descriptor)
            os.write(answers, b"1")
        os._exit(0)
    os.close(asks)
    os.close(answers)
    waiting: list[Callable[[], None]] = []

    def ready() -> None:
        os.read(answer, 1)
        waiting.pop()()

    def sync(done: Callable[[], None]) -> None:
        waiting.append(done)
        os.write(ask, b"1")

    asyncio.get_running_loop().add_reader(answer, ready)
    try:
        yield sync
    finally:
        asyncio.get_running_loop().remove_reader(answer)
        os.close(ask)
        os.close(answer)
        os.waitpid(child, 0)


WAYS: Final[dict[str, Way]] = {
    "inline": inline,
    "Linux AIO": linux_aio,
    "thread": thread,
    "thread, quick": quick_thread,
    "process": process,
}


@contextmanager
def busy_loop() -> Iterator[None]:
    """Keep the loop at work nine tenths of the time."""
    loop = asyncio.get_running_loop()
    handle: list[asyncio.TimerHandle] = []

    def work() -> None:
        until = time.perf_counter() + BUSY_S
        while time.perf_counter() < until:
            pass
        handle[:] = [loop.call_later(IDLE_S, work)]

    work()
    try:
        yield
    finally:
        handle[0].cancel()


async def measure(way: Way, path: Path, count: int) -> list[float]:
    """Return how long each of ``count`` syncs took as the loop saw it, in seconds, ascending."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    times: list[float] = []
    try:
        os.posix_fallocate(descriptor, 0, FILE_BYTES)
        os.fsync(descriptor)
        ways = way(descriptor)
        sync = next(ways)
        loop = asyncio.get_running_loop()
        with busy_loop():
            for number in range(count):
                await asyncio.sleep(PAUSE_S)
                finished = loop.create_future()
                began = time.perf_counter()
                os.pwrite(descriptor, WRITE, number * len(WRITE) % FILE_BYTES)
                sync(lambda finished=finished: finished.set_result(time.perf_counter()))
                times.append(await finished - began)
        for _ in ways:
            pass
    finally:
        os.close(descriptor)
    return sorted(times)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--count", type=click.IntRange(min=1), default=300, help="Syncs of a measurement.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="All ways, one by one.")
@click.option("--quick", is_flag=True, help="One round of 50.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def main(count: int, rounds: int, quick: bool, markdown: bool) -> None:
    """Measure ways to sync a log from an event loop that is 90 % busy."""
    if quick:
        count, rounds = 50, 1
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory(prefix="raftyard-bench-") as directory:
        machine = describe(Path(directory))
        for _ in range(rounds):
            for name, way in WAYS.items():
                times[name] += uvloop.run(measure(way, Path(directory) / "log", count))
    rows = []
    for name, found in times.items():
        found.sort()
        shares = (quantile(found, share) * 1000 for share in (0.1, 0.5, 0.9, 0.99, 1.0))
        rows.append((name, *(format(share, ".2f") for share in shares)))
    sheet = Sheet(("way", "p10 ms", "p50 ms", "p90 ms", "p99 ms", "max ms"), tuple(rows), 1)
    about = f"{rounds * count} syncs of 4 KiB each; data on {machine['data on']}"
    sheet.show(about, markdown=markdown)


if __name__ == "__main__":
    main()
