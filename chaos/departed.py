"""The last look at a group that has changed: who was removed is out, and all agree who is in."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from chaos.checkers.membership import LISTED, REMOVED
from chaos.cluster.cluster import Cluster
from chaos.cluster.membership import listed
from chaos.cluster.rpc import CallFailed
from chaos.history.recorder import Recorder

REFUSAL_TIMEOUT_S: Final = 10.0
"""How long a removed member that was started again is watched, if it does not end by itself."""

AGREE_TIMEOUT_S: Final = 30.0
"""How long the members may take to learn of the last change."""

POLL_S: Final = 0.1


async def look_at_members(cluster: Cluster, recorder: Recorder) -> None:
    """Write down what became of each removed member, and whom each other takes for the group."""
    if not cluster.removed:
        return
    found_out = await asyncio.gather(*(_try(cluster, member) for member in cluster.removed))
    for member, (text, is_out) in zip(cluster.removed, found_out, strict=True):
        recorder.fault(REMOVED, "end", [member], text, is_out)
    wanted = sorted(cluster.peer_url(member) for member in cluster.members)
    deadline = time.monotonic() + AGREE_TIMEOUT_S
    for member in cluster.members:
        found = await _listed(cluster, member)
        while found != wanted and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
            found = await _listed(cluster, member)
        agrees = found == wanted
        text = "agrees" if agrees else f"says {', '.join(found)} and not {', '.join(wanted)}"
        recorder.fault(LISTED, "end", [member], text, agrees)


async def _try(cluster: Cluster, member: str) -> tuple[str, bool]:
    """Start a removed member once more: what it does, and whether that is right."""
    await cluster.try_again(member)
    process = cluster.processes[member]
    deadline = time.monotonic() + REFUSAL_TIMEOUT_S
    while process.running and time.monotonic() < deadline:
        if await cluster.serves(member):
            return "it was removed, was started again, and serves", False
        await asyncio.sleep(POLL_S)
    if process.running:
        await cluster.kill([member])
        return f"it was removed; started again it did not serve for {REFUSAL_TIMEOUT_S:g} s", True
    return f"it was removed; started again it ended with exit code {process.exit_code}", True


async def _listed(cluster: Cluster, member: str) -> list[str]:
    try:
        return await listed(cluster, member)
    except CallFailed as error:
        return [f"nothing ({error})"]
