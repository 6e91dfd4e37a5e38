"""Writers whose every put has a known fate, and what a member's data are held against.

A put is acknowledged (with its revision), unknown, or certainly not applied.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs

from kvstore.client import AsyncClient, EtcdError, KeyValue, OutcomeUnknown
from tests.clusters import Cluster
from tests.waiting import wait_until

WRITERS = 6
RESUME_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 2.0
PREFIX = b"/durable/"


def _going() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@attrs.define
class Ledger:
    """What became of each put. Keys are used once; the value is the key again, and padding."""

    acknowledged: dict[bytes, int] = attrs.field(factory=dict)
    unknown: set[bytes] = attrs.field(factory=set)
    refused: set[bytes] = attrs.field(factory=set)
    newest_start: float = 0.0
    """When the youngest of the acknowledged puts was begun."""
    value_bytes: int = 0
    """Values are made at least this long."""
    go: asyncio.Event = attrs.field(factory=_going)
    """While it is not set the writers rest."""

    def value_of(self, key: bytes) -> bytes:
        """What is put under a key."""
        return key.ljust(self.value_bytes, b".")

    def under(self, prefix: bytes) -> Ledger:
        """What became of the puts under a prefix."""
        return attrs.evolve(
            self,
            acknowledged={k: at for k, at in self.acknowledged.items() if k.startswith(prefix)},
        )


@attrs.frozen
class Found:
    """One member's answer, held against the ledger."""

    member: str
    lost: list[bytes]
    moved: list[bytes]
    """Acknowledged at one revision, found at another or with another value."""
    invented: list[bytes]
    """Refused for certain, or never put, and there all the same."""

    @property
    def right(self) -> bool:
        return not (self.lost or self.moved or self.invented)


async def write(
    cluster: Cluster, ledger: Ledger, name: str, first: int, pause_s: float = 0.0
) -> None:
    """Put one key after the other, for ever; the ``first`` member is tried first."""
    endpoints = cluster.endpoints[first:] + cluster.endpoints[:first]
    async with AsyncClient(endpoints, timeout_s=CALL_TIMEOUT_S, dial_timeout_s=0.5) as client:
        number = 0
        while True:
            await ledger.go.wait()
            if pause_s:
                await asyncio.sleep(pause_s)
            number += 1
            key = PREFIX + f"{name}/{number}".encode()
            began = time.monotonic()
            # Unknown until told otherwise: a writer may be cancelled inside the call.
            ledger.unknown.add(key)
            try:
                revision = (await client.put(key, ledger.value_of(key))).header.revision
            except OutcomeUnknown:
                continue
            except EtcdError:
                ledger.refused.add(key)
                await asyncio.sleep(0.02)
            else:
                ledger.acknowledged[key] = revision
                ledger.newest_start = max(ledger.newest_start, began)
            ledger.unknown.discard(key)


@asynccontextmanager
async def load(
    cluster: Cluster, ledger: Ledger, name: str, pause_s: float = 0.0
) -> AsyncIterator[None]:
    """Run the writers while the block runs, each with a pause before each put."""
    tasks = [
        asyncio.create_task(write(cluster, ledger, f"{name}/{number}", number % 3, pause_s))
        for number in range(WRITERS)
    ]
    try:
        yield
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def more_acknowledged(ledger: Ledger, count: int) -> None:
    """Wait until so many more puts are acknowledged."""
    wanted = len(ledger.acknowledged) + count
    await wait_until(
        lambda: len(ledger.acknowledged) >= wanted, RESUME_TIMEOUT_S, "puts are acknowledged"
    )


def compare(member: str, pairs: Mapping[bytes, KeyValue], ledger: Ledger) -> Found:
    """Hold what one member has against the ledger."""
    known = ledger.acknowledged
    moved = {
        key
        for key in known.keys() & pairs.keys()
        if (pairs[key].mod_revision, pairs[key].value) != (known[key], ledger.value_of(key))
    }
    return Found(
        member,
        lost=sorted(known.keys() - pairs.keys()),
        moved=sorted(moved),
        invented=sorted(pairs.keys() - known.keys() - ledger.unknown),
    )
