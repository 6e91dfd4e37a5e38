"""The background scrub finds damage that nobody reads, and survives a replaced database."""

from __future__ import annotations

import asyncio
from pathlib import Path

from consensus.types import Entry
from kvstore.machine import DATABASE_NAME, KVStateMachine
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command
from kvstore.scrubber import Scrubber
from tests.waiting import wait_until

VALUE = b"a value that is written once and never read "


def filled(directory: Path, keys: int) -> KVStateMachine:
    """Return a store with this many keys."""
    machine = KVStateMachine(directory)
    for number in range(keys):
        put = pb.PutRequest(key=b"key/%05d" % number, value=VALUE * 4)
        machine.apply(Entry(1, number + 1, 0, Command(put=put).SerializeToString()))
    machine.commit()
    return machine


def flip_a_bit(database: Path) -> None:
    """Change one bit of one key's value, in each copy of its page that the file still has."""
    data = bytearray(database.read_bytes())
    start = 0
    while (found := data.find(b"key/00042", start)) >= 0:
        value = data.find(VALUE, found, found + 200)
        if value >= 0:
            data[value + 5] ^= 0x10
        start = found + 1
    database.write_bytes(data)


async def test_a_sound_store_is_scrubbed_and_nothing_is_reported(tmp_path: Path) -> None:
    machine = filled(tmp_path, 300)
    reports: list[str] = []
    scrubber = Scrubber(machine.scrub_steps, reports.append)

    assert await scrubber.once() >= 600
    assert reports == []
    machine.close()


async def test_damage_that_nobody_reads_is_reported(tmp_path: Path) -> None:
    filled(tmp_path, 300).close()
    flip_a_bit(tmp_path / DATABASE_NAME)
    machine = KVStateMachine(tmp_path)
    reports: list[str] = []
    scrubbing = asyncio.create_task(Scrubber(machine.scrub_steps, reports.append).run())

    await wait_until(lambda: bool(reports), what="a report of the damage")

    assert "damaged" in reports[0]
    await scrubbing
    machine.close()


async def test_a_scrub_ends_where_the_database_is_replaced(tmp_path: Path) -> None:
    machine = filled(tmp_path, 5_000)
    steps = machine.scrub_steps()
    next(steps)
    machine.discard()
    reports: list[str] = []
    scrubber = Scrubber(lambda: steps, reports.append)

    assert await scrubber.once() < 10_000
    assert reports == []
    machine.close()
