"""Configuration management: a replicated map, and programs that follow it.

Every member has the whole configuration in memory. A program reads it from its own member without
asking the network, and learns of a change as soon as its member has applied one. Whoever changes
the configuration says which version they saw, so that no edit overwrites one it never saw.

    python -m examples.machines.configuration [--engine native|pysyncobj|local]
"""

from __future__ import annotations

import asyncio

from consensus import Consistency, Handle, Node
from examples.machines.group import run
from statemachines import Map


async def program(node: Node) -> None:
    """Follow the configuration on this member until it says stop."""
    name = node.engine.node_id
    config = Handle(node, Map, consistency=Consistency.SERIALIZABLE)
    version = 0
    while True:
        applied = node.status().applied_index
        found = await config.items()
        if found["version"] != version:
            version = found["version"]
            now = {item["key"]: item["value"] for item in found["items"]}
            print(f"program on {name}: version {version}: {now}")
            if "stop" in now:
                return
        await node.wait_applied(applied + 1)


async def edit(node: Node, who: str, version: int, value: str) -> None:
    """Change the title, if it is still the version that was read."""
    answer = await Handle(node, Map).compare_and_set(key="title", version=version, value=value)
    print(f"{who}: {'done' if answer['succeeded'] else 'refused, someone else changed it'}")


async def main(nodes: list[Node]) -> None:
    """Configuration management on a replicated map."""
    config = Handle(nodes[0], Map)
    await config.put(key="title", value="tizi365")
    programs = [asyncio.create_task(program(node)) for node in nodes[1:]]

    title = await config.get(key="title")
    await edit(nodes[0], "alice", title["version"], "by alice")
    await edit(nodes[2], "bob", title["version"], "by bob")
    await config.put(key="debug", value=True)
    await config.delete(key="debug")
    await config.put(key="stop", value=True)
    await asyncio.gather(*programs)


if __name__ == "__main__":
    run(Map, main)
