"""Service registration and discovery: instances that send heartbeats, and a client that finds them.

An instance that crashes says nothing; its heartbeats stop, and when its time to live is over the
leader's clock removes it on all members at once.

    python -m examples.machines.service_discovery [--engine native|pysyncobj|local]
"""

from __future__ import annotations

import asyncio

from consensus import Handle, Node
from examples.machines.group import run
from statemachines import ServiceRegistry

TTL_MS = 1000


async def instance(node: Node, name: str, address: str) -> None:
    """A running instance: registers, then sends heartbeats until it is cancelled (it crashes)."""
    registry = Handle(node, ServiceRegistry)
    await registry.register(service="web", instance=name, address=address, ttl_ms=TTL_MS)
    while True:
        await asyncio.sleep(TTL_MS / 4000)
        await registry.heartbeat(service="web", instance=name)


async def discover(node: Node, expected: int) -> None:
    """Follow the service until it has ``expected`` instances."""
    registry = Handle(node, ServiceRegistry)
    version = -1
    while True:
        found = await registry.discover(service="web")
        if found["version"] != version:
            version = found["version"]
            addresses = [f"{row['instance']} at {row['address']}" for row in found["instances"]]
            print(f"client: {', '.join(addresses) or 'nobody is there'}")
        if len(found["instances"]) == expected:
            return
        await asyncio.sleep(0.05)


async def main(nodes: list[Node]) -> None:
    """Service registration and discovery on a replicated registry."""
    client = nodes[2]
    web1 = asyncio.create_task(instance(nodes[0], "web-1", "10.0.1.10:80"))
    web2 = asyncio.create_task(instance(nodes[1], "web-2", "10.0.1.11:80"))
    await discover(client, expected=2)

    print("web-1 crashes")
    web1.cancel()
    await discover(client, expected=1)

    print("web-2 stops in good order")
    web2.cancel()
    await asyncio.gather(web1, web2, return_exceptions=True)
    await Handle(nodes[1], ServiceRegistry).deregister(service="web", instance="web-2")
    await discover(client, expected=0)


if __name__ == "__main__":
    run(ServiceRegistry, main)
