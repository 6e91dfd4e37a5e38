"""How a member that was away past compaction comes back, while puts go on.

Three kvstore members on loopback. One is stopped, the others take so many gigabytes of values, and
the log is compacted, so that only a snapshot can help. Then the member is started again under a
constant load of puts. Measured: how long it takes until it has caught up; puts per second before,
meanwhile and afterwards; whether anybody was elected; the longest gap of each event loop.

    python -m benchmarks.catchup --gigabytes 1
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import click
import grpc
from rich.console import Console
from rich.table import Table

from benchmarks.interrupts import end_on_signals
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.clusters import Cluster, Member, Program

FILL_VALUE_BYTES: Final = 64 * 1024
FILL_CALLERS: Final = 8
LOAD_VALUE_BYTES: Final = 256
CALL_TIMEOUT_S: Final = 30.0
CATCH_UP_TIMEOUT_S: Final = 600.0
POLL_S: Final = 0.25
FLAGS: Final = ("--snapshot-count", "500", "--quota-backend-bytes", str(32 * 1024**3))
"""The log is shortened after so few entries that the smallest run needs a snapshot."""

PUT: Final = "/etcdserverpb.KV/Put"
STATUS: Final = "/etcdserverpb.Maintenance/Status"
SENDING: Final = b"sending a snapshot"
GAP: Final = re.compile(r"^raftyard_event_loop_gap_seconds (\S+)$", re.MULTILINE)


@attrs.frozen
class Phase:
    """Puts acknowledged while something went on."""

    name: str
    seconds: float
    puts: int
    failures: int
    gaps_s: dict[str, float]
    """The longest gap of each member's event loop in the 30 to 60 seconds before the end."""

    @property
    def rate(self) -> float:
        """Puts per second."""
        return self.puts / self.seconds


@attrs.frozen
class Found:
    """What one run came to."""

    gigabytes: float
    phases: tuple[Phase, Phase, Phase]
    terms: tuple[int, int]
    snapshots_sent: int

    @property
    def ratio(self) -> float:
        """Puts per second while the member caught up, to the mean of before and afterwards.

        A machine that others use too may be twice as fast at one time as a minute later.
        """
        before, meanwhile, afterwards = self.phases
        return 2 * meanwhile.rate / (before.rate + afterwards.rate)


class Putters:
    """Callers that put small values, one after the other each, in turn at some endpoints.

    Args:
        channels: of the members that serve.
        callers: how many.
    """

    def __init__(self, channels: Sequence[grpc.aio.Channel], callers: int) -> None:
        self.puts = self.failures = 0
        self._channels = channels
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(callers)]

    async def stop(self) -> None:
        """End them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, number: int) -> None:
        channel = self._channels[number % len(self._channels)]
        value = os.urandom(LOAD_VALUE_BYTES)
        request = pb.PutRequest(key=f"load/{number}".encode(), value=value).SerializeToString()
        while True:
            try:
                await channel.unary_unary(PUT)(request, timeout=CALL_TIMEOUT_S)
                self.puts += 1
            except grpc.aio.AioRpcError:
                self.failures += 1


@asynccontextmanager
async def channels_to(cluster: Cluster) -> AsyncIterator[dict[str, grpc.aio.Channel]]:
    """A channel to each member, by name."""
    options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 50)]
    opened = {
        member.name: grpc.aio.insecure_channel(member.client, options=options)
        for member in cluster.members
    }
    try:
        yield opened
    finally:
        for channel in opened.values():
            await channel.close()


async def status_of(channel: grpc.aio.Channel) -> pb.StatusResponse:
    """Ask one member where it stands."""
    answer = await channel.unary_unary(STATUS)(b"", timeout=CALL_TIMEOUT_S)
    return pb.StatusResponse.FromString(answer)


async def fill(channels: Sequence[grpc.aio.Channel], gigabytes: float) -> None:
    """Put values of 64 KiB until there are so many gigabytes (10^9 bytes) of them."""
    numbers = iter(range(int(gigabytes * 1e9 / FILL_VALUE_BYTES)))

    async def caller(channel: grpc.aio.Channel) -> None:
        for number in numbers:
            value = os.urandom(FILL_VALUE_BYTES)
            request = pb.PutRequest(key=f"fill/{number:08d}".encode(), value=value)
            await channel.unary_unary(PUT)(request.SerializeToString(), timeout=CALL_TIMEOUT_S)

    async with asyncio.TaskGroup() as group:
        for number in range(FILL_CALLERS):
            group.create_task(caller(channels[number % len(channels)]))


async def caught_up(behind: grpc.aio.Channel, ahead: grpc.aio.Channel) -> None:
    """Wait until one member has applied what the other had a moment before.

    Raises:
        TimeoutError: it has not in ``CATCH_UP_TIMEOUT_S`` seconds.
    """
    async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
        while True:
            wanted = (await status_of(ahead)).raftAppliedIndex
            await asyncio.sleep(POLL_S)
            try:
                if (await status_of(behind)).raftAppliedIndex >= wanted:
                    return
            except grpc.aio.AioRpcError:
                continue


def gaps_of(cluster: Cluster) -> dict[str, float]:
    """Read the longest recent gap of each running member's event loop, in seconds."""
    gaps = {}
    for member in cluster.members:
        if member.running:
            with urllib.request.urlopen(f"http://{member.client}/metrics", timeout=30) as answer:
                found = GAP.search(answer.read().decode())
            gaps[member.name] = float(found[1]) if found else float("nan")
    return gaps


async def measure(
    name: str, putters: Putters, cluster: Cluster, until: asyncio.Task[None]
) -> Phase:
    """Count puts until a task is done."""
    began, puts, failures = time.monotonic(), putters.puts, putters.failures
    await until
    seconds = time.monotonic() - began
    gaps = await asyncio.to_thread(gaps_of, cluster)
    return Phase(name, seconds, putters.puts - puts, putters.failures - failures, gaps)


def snapshots_sent(members: Sequence[Member]) -> int:
    """Count the streams of snapshots that members' logs tell of."""
    return sum(member.log.read_bytes().count(SENDING) for member in members)


async def run(
    directory: Path, gigabytes: float, callers: int, seconds: float, console: Console
) -> Found:
    """Run everything once, on a cluster of its own."""
    cluster = Cluster(Program.kvstore("native"), directory, flags=FLAGS)
    try:
        await asyncio.to_thread(cluster.start)
        async with channels_to(cluster) as channels:
            leader_id = (await status_of(channels[cluster.members[0].name])).leader
            ids = {
                member.name: (await status_of(channels[member.name])).header.member_id
                for member in cluster.members
            }
            away = next(each for each in cluster.members if ids[each.name] != leader_id)
            leader = next(each for each in cluster.members if ids[each.name] == leader_id)
            staying = [channels[each.name] for each in cluster.members if each is not away]
            cluster.kill(away, signal.SIGTERM)
            console.print(f"{away.name} is away; putting {gigabytes:g} GB of values")
            began = time.monotonic()
            await fill(staying, gigabytes)
            console.print(f"that took {time.monotonic() - began:.0f} s; it comes back under load")
            putters = Putters(staying, callers)
            try:
                ahead = channels[leader.name]
                term = (await status_of(ahead)).raftTerm
                pause = asyncio.create_task(asyncio.sleep(seconds))
                before = await measure("before", putters, cluster, pause)
                cluster.launch(away)
                wait = asyncio.create_task(caught_up(channels[away.name], ahead))
                during = await measure("meanwhile", putters, cluster, wait)
                pause = asyncio.create_task(asyncio.sleep(seconds))
                after = await measure("afterwards", putters, cluster, pause)
                terms = (term, (await status_of(ahead)).raftTerm)
            finally:
                await putters.stop()
        return Found(gigabytes, (before, during, after), terms, snapshots_sent(cluster.members))
    finally:
        await asyncio.to_thread(cluster.stop)


def table_of(found: Found) -> Table:
    """Return one line for each phase."""
    table = Table(title=f"a member catches up with {found.gigabytes:g} GB")
    for title in ("phase", "seconds", "puts/s", "of before", "failed", "longest loop gap (ms)"):
        table.add_column(title, justify="left" if title == "phase" else "right")
    for phase in found.phases:
        gaps = ", ".join(f"{name} {1000 * gap:.0f}" for name, gap in phase.gaps_s.items())
        share = phase.rate / found.phases[0].rate
        figures = (f"{phase.seconds:.1f}", f"{phase.rate:.0f}", f"{share:.2f}")
        table.add_row(phase.name, *figures, str(phase.failures), gaps)
    return table


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--gigabytes", default=1.0, show_default=True, type=click.FloatRange(min=0.1))
@click.option("--callers", default=16, show_default=True, type=click.IntRange(min=1))
@click.option("--seconds", default=10.0, show_default=True, help="Measured before and afterwards.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where the data goes meanwhile.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write figures here.")
def main(
    gigabytes: float,
    callers: int,
    seconds: float,
    directory: Path | None,
    json_path: Path | None,
) -> None:
    """Run the command."""
    end_on_signals()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="catchup-", dir=directory) as data:
        found = asyncio.run(run(Path(data), gigabytes, callers, seconds, console))
    console.print(table_of(found))
    first, last = found.terms
    console.print(
        f"puts meanwhile: {found.ratio:.2f} of the mean of before and afterwards; snapshots begun: "
        f"{found.snapshots_sent}; term {first} before, {last} afterwards"
    )
    if json_path is not None:
        json_path.write_text(json.dumps(attrs.asdict(found), indent=1))
    if not found.snapshots_sent:
        raise click.ClickException("no snapshot was needed: nothing was measured")


if __name__ == "__main__":
    main()
