"""What no engine can beat: ``python -m benchmarks.floor``.

Three processes on loopback do what a lone command needs and nothing else. A leader sends it to two
followers, writes it and syncs; each follower writes it, syncs and answers; the command counts as
committed once the leader's own sync is over and one answer has come. No Raft, no event loop, no
checksum: blocking sockets, ``pwrite`` and ``fdatasync``. The same again without the syncs.
"""

from __future__ import annotations

import os
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from benchmarks.figures import quantile
from benchmarks.interrupts import end_on_signals
from benchmarks.machine import describe
from benchmarks.tables import Sheet

FOLLOWERS: Final = 2
FILE_BYTES: Final = 16 * 1024 * 1024
COMMAND_BYTES: Final = 256
READ_BYTES: Final = 4096
ANSWER: Final = b"k"
ANSWER_TIMEOUT_S: Final = 30.0


class Log:
    """A file whose space is there already, so that a sync is of data only."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._sync = sync
        self._end = 0
        os.pwrite(self._descriptor, bytes(FILE_BYTES), 0)
        os.fsync(self._descriptor)

    def append(self, data: bytes) -> None:
        """Write, and wait for the disk."""
        os.pwrite(self._descriptor, data, self._end)
        self._end = (self._end + len(data)) % (FILE_BYTES - READ_BYTES)
        if self._sync:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def follow(listener: socket.socket, path: Path, *, sync: bool) -> None:
    """Write and answer until the leader hangs up."""
    log = Log(path, sync=sync)
    leader, _ = listener.accept()
    leader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    leader.sendall(ANSWER)  # the file is made
    while data := leader.recv(READ_BYTES):
        log.append(data)
        leader.sendall(ANSWER)


@contextmanager
def followers(directory: Path, *, sync: bool) -> Iterator[list[socket.socket]]:
    """Run the followers, and yield a connection to each."""
    links: list[socket.socket] = []
    children: list[int] = []
    try:
        for number in range(FOLLOWERS):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                child = os.fork()
                if child == 0:
                    try:
                        for link in links:
                            link.close()
                        follow(listener, directory / f"follower{number}", sync=sync)
                    finally:
                        os._exit(0)
                children.append(child)
                link = socket.create_connection(listener.getsockname(), ANSWER_TIMEOUT_S)
            links.append(link)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.recv(len(ANSWER))
        yield links
    finally:
        for link in links:
            link.close()
        for child in children:
            os.waitpid(child, 0)


def measure(directory: Path, count: int, *, sync: bool) -> list[float]:
    """Return how long each of ``count`` commands took, in seconds, ascending."""
    times: list[float] = []
    command = bytes(COMMAND_BYTES)
    log = Log(directory / "leader", sync=sync)
    try:
        with followers(directory, sync=sync) as links:
            owed = dict.fromkeys(links, 0)
            for _ in range(count):
                began = time.perf_counter()
                for link in links:
                    link.sendall(command)
                    owed[link] += 1
                log.append(command)
                while min(owed.values()):
                    ready, _, _ = select.select(links, (), (), ANSWER_TIMEOUT_S)
                    if not ready:
                        raise click.ClickException("a follower did not answer")
                    for link in ready:
                        owed[link] -= len(link.recv(READ_BYTES))
                times.append(time.perf_counter() - began)
    finally:
        log.close()
    return sorted(times)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--count", type=click.IntRange(min=1), default=2000, help="Commands a measurement.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Both ways, one by one.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def main(count: int, rounds: int, markdown: bool) -> None:
    """Measure the least that a lone command takes on three nodes of this machine."""
    end_on_signals()
    rows = []
    with tempfile.TemporaryDirectory(prefix="raftyard-bench-") as directory:
        machine = describe(Path(directory))
        for number in range(1, rounds + 1):
            for sync in (True, False):
                times = measure(Path(directory), count, sync=sync)
                shares = (quantile(times, share) * 1000 for share in (0.1, 0.5, 0.9, 0.99))
                figures = (format(share, ".2f") for share in shares)
                rows.append((str(number), "yes" if sync else "no", *figures))
    sheet = Sheet(("round", "synced", "p10 ms", "p50 ms", "p90 ms", "p99 ms"), tuple(rows), 2)
    about = f"{count} commands of {COMMAND_BYTES} bytes, one by one; data on {machine['data on']}"
    sheet.show(about, markdown=markdown)


if __name__ == "__main__":
    main()
