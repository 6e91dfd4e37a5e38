"""The load generator on our own Python client, the twin of ``benchmarks/go``.

CALLERS tasks, each sends its next request when the last is answered. As etcd's Go client does, one
connection goes to each endpoint and requests take them in turn, so that leader and followers all
serve. Runs in a process of its own; prints "measuring" after the warm-up and one JSON object at the
end::

    python -m benchmarks.load --endpoints A,B,C --operation put --callers 64 --seconds 5
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import click

from benchmarks.figures import LoadResult
from kvstore.client import AsyncClient, EtcdError

OPERATIONS: Final = ("put", "get", "serializable")
"""A put, a linearizable get, a serializable get."""

CALL_TIMEOUT_S: Final = 10.0
KEYS: Final = 1000
VALUE_BYTES: Final = 256

Request = Callable[[AsyncClient, str], Awaitable[object]]


def key_of(number: int) -> str:
    """Return the ``number``-th key that all generators use."""
    return f"bench/{number:08d}"


def request_of(operation: str, value: bytes) -> Request:
    """Return what one request of ``operation`` does."""
    if operation == "put":
        return lambda client, key: client.put(key, value)
    serializable = operation == "serializable"
    return lambda client, key: client.get(key, serializable=serializable)


@attrs.define(slots=True)
class Load:
    """Runs ``callers`` tasks that make ``request`` of some of ``keys`` on ``clients`` in turn."""

    clients: Sequence[AsyncClient]
    request: Request
    callers: int
    keys: Sequence[str]
    errors: int = 0
    first_error: str = ""

    async def drive(self, seconds: float) -> list[float]:
        """Run for ``seconds`` and return what each good request took, in seconds."""
        self.errors, self.first_error = 0, ""
        times: list[float] = []
        deadline = time.perf_counter() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(self.callers):
                group.create_task(self._caller(number, deadline, times))
        return times

    async def _caller(self, number: int, deadline: float, times: list[float]) -> None:
        clients, keys = self.clients, self.keys
        choose = random.Random(number).choice
        turn = number
        while (sent := time.perf_counter()) < deadline:
            turn += 1
            try:
                await self.request(clients[turn % len(clients)], choose(keys))
            except EtcdError as error:
                self.errors += 1
                self.first_error = self.first_error or f"{type(error).__name__}: {error}"
                continue
            times.append(time.perf_counter() - sent)


async def run(
    endpoints: Sequence[str],
    operation: str,
    callers: int,
    warmup_s: float,
    seconds: float,
    keys: int,
    value_bytes: int,
) -> LoadResult:
    """Warm up, say so, and measure."""
    clients = [AsyncClient(endpoint, timeout_s=CALL_TIMEOUT_S) for endpoint in endpoints]
    try:
        names = [key_of(number) for number in range(keys)]
        load = Load(clients, request_of(operation, b"v" * value_bytes), callers, names)
        await load.drive(warmup_s)
        click.echo("measuring")
        cpu, start = time.process_time(), time.perf_counter()
        times = await load.drive(seconds)
        return LoadResult.of(
            times,
            seconds=time.perf_counter() - start,
            client_cpu_s=time.process_time() - cpu,
            errors=load.errors,
            first_error=load.first_error,
        )
    finally:
        for client in clients:
            await client.close()


@click.command()
@click.option("--endpoints", required=True, help="Client addresses, host:port, with commas.")
@click.option("--operation", type=click.Choice(OPERATIONS), default="put", show_default=True)
@click.option("--callers", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--warmup", type=click.FloatRange(min=0), default=0.5, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True)
@click.option("--keys", type=click.IntRange(min=1), default=KEYS, show_default=True)
@click.option("--value", type=click.IntRange(min=0), default=VALUE_BYTES, show_default=True)
def main(
    endpoints: str,
    operation: str,
    callers: int,
    warmup: float,
    seconds: float,
    keys: int,
    value: int,
) -> None:
    """Send one kind of request from many callers; print one JSON object."""
    addresses = endpoints.split(",")
    result = asyncio.run(run(addresses, operation, callers, warmup, seconds, keys, value))
    click.echo(json.dumps(attrs.asdict(result)))


if __name__ == "__main__":
    main()
