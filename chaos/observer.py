"""What the members say of themselves while a run goes on: roles and terms, for the report.

Each member is asked on its own, straight and on no proxied link, so that one that is stopped does
not hold up the others; its answer is written into the history when it is another than before.
"""

from __future__ import annotations

import asyncio
from typing import Final

from chaos.cluster.cluster import Cluster
from chaos.cluster.rpc import MemberStatus
from chaos.history.recorder import Recorder

SAMPLE_EVERY_S: Final = 0.1
SILENT: Final = "silent"


def role_of(status: MemberStatus | None) -> str:
    """The role that a status tells, in the words of ``StatusEvent``."""
    if status is None:
        return SILENT
    if status.leads:
        return "leader"
    return "follower" if status.leader_id else "no leader"


async def observe_members(cluster: Cluster, recorder: Recorder) -> None:
    """Write every change of a member's role or term into the history, until cancelled."""
    watched: set[str] = set()
    async with asyncio.TaskGroup() as group:
        while True:
            for member in set(cluster.processes) - watched:
                group.create_task(_observe(cluster, member, recorder))
                watched.add(member)
            await asyncio.sleep(SAMPLE_EVERY_S)


async def _observe(cluster: Cluster, member: str, recorder: Recorder) -> None:
    last: tuple[str, int] | None = None
    while True:
        status = await cluster.status(member)
        now = (role_of(status), status.term if status is not None else 0)
        if now != last:
            recorder.status(member, *now)
            last = now
        await asyncio.sleep(SAMPLE_EVERY_S)
