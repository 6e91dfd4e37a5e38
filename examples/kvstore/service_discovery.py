"""Service registration and discovery: who is alive, and where.

An instance puts its address under the service's prefix, attached to a lease that it keeps alive.
When the instance stops, or crashes and its lease runs out, the key is deleted by the server, and
everyone who watches the prefix knows.

    python -m examples.kvstore.service_discovery [HOST:PORT,...]
"""

from __future__ import annotations

import asyncio

from examples.kvstore.connect import run
from kvstore.client import AsyncClient, EventType

PREFIX = "/examples/services/web/"


async def instance(client: AsyncClient, name: str, address: str, stop: asyncio.Event) -> None:
    """A healthy instance: registered for as long as it runs."""
    async with client.lease(ttl_s=5) as lease:
        await client.put(PREFIX + name, address, lease=lease.id)
        await stop.wait()
        print(f"{name}: stops")


async def crashing_instance(client: AsyncClient, name: str, address: str) -> None:
    """An instance that registers and is never heard of again."""
    lease = await client.lease_grant(2)
    await client.put(PREFIX + name, address, lease=lease.id)
    print(f"{name}: crashes")


async def main(client: AsyncClient) -> None:
    """Service registration and discovery on kvstore."""
    await client.delete_prefix(PREFIX)
    stop = asyncio.Event()
    found = await client.range(PREFIX, prefix=True)
    alive: dict[str, str] = {}
    async with client.watch(PREFIX, prefix=True, start_revision=found.header.revision + 1) as watch:
        healthy = asyncio.create_task(instance(client, "web-1", "10.0.1.10:80", stop))
        await crashing_instance(client, "web-2", "10.0.1.11:80")
        async for event in watch:
            name = event.kv.key.decode().removeprefix(PREFIX)
            if event.type is EventType.PUT:
                alive[name] = event.kv.value.decode()
                print(f"client: {name} is at {alive[name]}")
            else:
                del alive[name]
                print(f"client: {name} is gone; left: {sorted(alive)}")
                if name == "web-2":
                    stop.set()
                else:
                    break
        await healthy


if __name__ == "__main__":
    run(main)
