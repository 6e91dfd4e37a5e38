"""Configuration management: every program sees a change of the configuration at once.

A program reads all keys under a prefix, then watches the prefix from the next revision on: nothing
is missed between the two, and after a lost connection the client resumes where it was. Whoever
changes the configuration compares the revision that they read, so that no edit overwrites one it
never saw.

    python -m examples.kvstore.configuration [HOST:PORT,...]
"""

from __future__ import annotations

import asyncio

from examples.kvstore.connect import run
from kvstore.client import AsyncClient, EventType, Put, mod_revision

PREFIX = "/examples/config/"
STOP = PREFIX + "stop"


async def program(client: AsyncClient, ready: asyncio.Event) -> None:
    """Keep a copy of the configuration, until told to stop."""
    found = await client.range(PREFIX, prefix=True)
    config = {kv.key.decode(): kv.value.decode() for kv in found.kvs}
    print(f"program: starts with {config}")
    start = found.header.revision + 1
    async with client.watch(PREFIX, prefix=True, start_revision=start) as watch:
        ready.set()
        async for event in watch:
            key = event.kv.key.decode()
            if event.type is EventType.DELETE:
                del config[key]
                print(f"program: {key} is gone")
            else:
                config[key] = event.kv.value.decode()
                print(f"program: {key} is now {config[key]}")
            if key == STOP:
                return


async def edit(client: AsyncClient, who: str, revision: int, value: str) -> None:
    """Change the title, if it is still the one that was read at ``revision``."""
    title = PREFIX + "title"
    result = await client.txn(when=[mod_revision(title) == revision], then=[Put(title, value)])
    print(f"{who}: {'done' if result.succeeded else 'refused, someone else changed it'}")


async def main(client: AsyncClient) -> None:
    """Configuration management on kvstore."""
    await client.delete_prefix(PREFIX)
    await client.put(PREFIX + "title", "tizi365")
    ready = asyncio.Event()
    running = asyncio.create_task(program(client, ready))
    await ready.wait()

    title = await client.get(PREFIX + "title")
    assert title is not None
    await edit(client, "alice", title.mod_revision, "by alice")
    await edit(client, "bob", title.mod_revision, "by bob")
    await client.put(PREFIX + "debug", "on")
    await client.delete(PREFIX + "debug")
    await client.put(STOP, "yes")
    await running
    await client.delete_prefix(PREFIX)


if __name__ == "__main__":
    run(main)
