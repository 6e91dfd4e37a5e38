"""How long writes stop when a leader dies, or hands over: kvstore beside a real etcd.

A prober begins a put at every member every 10 ms. Measured is the time from the leader's SIGKILL
(or from the call of MoveLeader) to the first acknowledged put that was begun after it. The programs
take turns, and each trial has a cluster of its own.

    python -m benchmarks.failover --trials 50
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Final

import attrs
import click
import grpc
from rich.console import Console
from rich.table import Table

from benchmarks.interrupts import end_on_signals
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.clusters import Cluster, Member, Program

PROBE_EVERY_S: Final = 0.01
PROBE_TIMEOUT_S: Final = 1.0
"""A try is not cancelled sooner: servers end connections on which many calls are. With a new try
every 10 ms, giving up after 50 ms would find the same moment."""
TRIAL_TIMEOUT_S: Final = 30.0
SETTLED: Final = 20
"""Puts acknowledged, for each member, before a trial begins."""

PUT: Final = "/etcdserverpb.KV/Put"
STATUS: Final = "/etcdserverpb.Maintenance/Status"
MOVE_LEADER: Final = "/etcdserverpb.Maintenance/MoveLeader"


@attrs.frozen
class Contender:
    """A program with the timing that it runs with."""

    name: str
    program: Program
    election_timeout_ms: int

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that set the timing; the heartbeat is a tenth of the election timeout."""
        return (
            *("--election-timeout", str(self.election_timeout_ms)),
            *("--heartbeat-interval", str(self.election_timeout_ms // 10)),
        )


class Prober:
    """Puts at every endpoint, all the time; knows when the last acknowledged put was begun.

    Args:
        endpoints: "host:port" of every member.
    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        options = [("grpc.max_reconnect_backoff_ms", 50), ("grpc.initial_reconnect_backoff_ms", 20)]
        self.channels = [grpc.aio.insecure_channel(each, options=options) for each in endpoints]
        self.acknowledged: list[tuple[float, float]] = []
        """(when begun, when acknowledged) of each put."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Prober:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [*self._tasks, *([self._running] if self._running is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for channel in self.channels:
            await channel.close()

    async def first_since(self, began: float) -> float:
        """Wait for a put begun after ``began``; return when it was acknowledged.

        Raises:
            TimeoutError: none was acknowledged in ``TRIAL_TIMEOUT_S`` seconds.
        """
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            while True:
                for asked, answered in reversed(self.acknowledged):
                    if asked >= began:
                        return answered
                await asyncio.sleep(0.001)

    async def settle(self) -> None:
        """Wait until puts are acknowledged one after the other."""
        self.acknowledged.clear()
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            while len(self.acknowledged) < SETTLED * len(self.channels):  # noqa: ASYNC110 - polls
                await asyncio.sleep(PROBE_EVERY_S)

    async def call(self, channel: grpc.aio.Channel, method: str, request: bytes) -> bytes:
        """Make one call, bytes to bytes."""
        answer: bytes = await channel.unary_unary(method)(request, timeout=TRIAL_TIMEOUT_S)
        return answer

    async def _run(self) -> None:
        while True:
            for channel in self.channels:
                task = asyncio.create_task(self._probe(channel))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(PROBE_EVERY_S)

    async def _probe(self, channel: grpc.aio.Channel) -> None:
        asked = time.monotonic()
        request = pb.PutRequest(key=b"probe", value=b"x").SerializeToString()
        try:
            await channel.unary_unary(PUT)(request, timeout=PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return
        self.acknowledged.append((asked, time.monotonic()))


async def leader_of(cluster: Cluster, prober: Prober) -> tuple[Member, int]:
    """Return the member that leads, and the id of one that does not."""
    async with asyncio.timeout(TRIAL_TIMEOUT_S):
        while True:
            ids = {}
            leaders = set()
            for member, channel in zip(cluster.members, prober.channels, strict=True):
                answer = await prober.call(channel, STATUS, b"")
                status = pb.StatusResponse.FromString(answer)
                ids[status.header.member_id] = member
                leaders.add(status.leader)
            if len(leaders) == 1 and (leader := leaders.pop()) in ids:
                return ids[leader], next(each for each in ids if each != leader)
            await asyncio.sleep(PROBE_EVERY_S)


async def kill_trial(cluster: Cluster) -> float:
    """Kill the leader; return the seconds until a put is acknowledged. All run again afterwards."""
    async with Prober(cluster.endpoints) as prober:
        await prober.settle()
        leader, _ = await leader_of(cluster, prober)
        began = time.monotonic()
        cluster.kill(leader)
        took_s = await prober.first_since(began) - began
    cluster.launch(leader)
    await asyncio.to_thread(cluster.wait_ready)
    return took_s


async def transfer_trial(cluster: Cluster) -> float:
    """Hand leadership over; return the seconds until it is done and a put is acknowledged."""
    async with Prober(cluster.endpoints) as prober:
        await prober.settle()
        leader, other = await leader_of(cluster, prober)
        channel = prober.channels[cluster.members.index(leader)]
        request = pb.MoveLeaderRequest(targetID=other).SerializeToString()
        began = time.monotonic()
        await prober.call(channel, MOVE_LEADER, request)
        return await prober.first_since(time.monotonic()) - began


async def run(
    contenders: Sequence[Contender], trials: int, directory: Path, console: Console
) -> dict[str, dict[str, list[float]]]:
    """Run every trial, the contenders in turn; return seconds by contender and kind."""
    found: dict[str, dict[str, list[float]]] = {
        each.name: {"kill": [], "transfer": []} for each in contenders
    }
    for trial in range(trials):
        for each in contenders if trial % 2 == 0 else reversed(contenders):
            # One cluster at a time: an idle one beside it would still use the machine.
            cluster = Cluster(each.program, directory / f"{each.name}-{trial}", flags=each.flags)
            try:
                await asyncio.to_thread(cluster.start)
                found[each.name]["kill"].append(await kill_trial(cluster))
                found[each.name]["transfer"].append(await transfer_trial(cluster))
            finally:
                await asyncio.to_thread(cluster.stop)
        console.print(f"trial {trial + 1} of {trials}", end="\r")
    return found


def table_of(found: dict[str, dict[str, list[float]]]) -> Table:
    """Return medians and extremes, in milliseconds."""
    table = Table(title="writes stop for (ms)")
    for title in ("program", "after", "trials", "median", "shortest", "longest"):
        table.add_column(title, justify="left" if title in ("program", "after") else "right")
    for name, kinds in found.items():
        for kind, seconds in kinds.items():
            figures = (median(seconds), min(seconds), max(seconds))
            table.add_row(
                name, kind, str(len(seconds)), *(f"{1000 * each:.0f}" for each in figures)
            )
    return table


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--trials", default=50, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write all figures here."
)
@click.option("--etcd/--no-etcd", default=True, show_default=True, help="Run etcd beside kvstore.")
def main(trials: int, json_path: Path | None, etcd: bool) -> None:
    """Run the command."""
    end_on_signals()
    console = Console()
    contenders = [
        Contender("kvstore 150 ms", Program.kvstore("native"), 150),
        Contender("kvstore 1000 ms", Program.kvstore("native"), 1000),
    ]
    if etcd:
        contenders.append(Contender("etcd 1000 ms", Program.etcd(), 1000))
    with tempfile.TemporaryDirectory(prefix="failover-") as directory:
        found = asyncio.run(run(contenders, trials, Path(directory), console))
    console.print(table_of(found))
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
