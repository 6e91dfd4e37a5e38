"""Changing who is in the group, while everything else goes on and perhaps nothing works.

A change is asked of one member after the other until its effect is seen in a member list: an answer
may be lost, and a request that is repeated is refused by name, which does no harm. Peer URLs are
never used twice, so a list that is behind can only say that something has not happened yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from chaos.cluster.cluster import Cluster
from chaos.cluster.rpc import CallFailed, MemberClient
from kvstore.pb import etcdserverpb_pb2 as pb

CALL_TIMEOUT_S: Final = 3.0
PAUSE_S: Final = 0.1

GoingOn = Callable[[], bool]
"""Says whether a change is still wanted."""


class GivenUp(Exception):
    """A change was no longer wanted before it was made; it may still come."""


async def add_learner(cluster: Cluster, going_on: GoingOn) -> str:
    """Add a new member as a learner, and start it; return its name.

    Raises:
        ClusterFailed: there is no room for one.
        GivenUp: it was no longer wanted.
    """
    name = cluster.newcomer()
    url = cluster.peer_url(name)

    async def added(client: MemberClient) -> bool:
        if _known(await client.member_list(), url):
            return True
        await client.member_add(url)
        return False

    await _until(cluster, added, going_on, f"{name} is added")
    await cluster.join(name)
    return name


async def promote(cluster: Cluster, name: str, going_on: GoingOn) -> None:
    """Let a learner vote, as soon as it has caught up, and let clients go there.

    It is started again where it gave up, as a service manager would: a member that finds nobody to
    join ends.

    Raises:
        GivenUp: it was no longer wanted.
    """
    url = cluster.peer_url(name)

    async def promoted(client: MemberClient) -> bool:
        await cluster.restart([name])
        member = _known(await client.member_list(), url)
        if member is not None and member.isLearner:
            await client.member_promote(member.ID)
        return member is not None and not member.isLearner

    await _until(cluster, promoted, going_on, f"{name} is promoted")
    cluster.admit(name)


async def remove(cluster: Cluster, name: str, going_on: GoingOn) -> None:
    """Take a member out of the group; it is not asked itself.

    Raises:
        GivenUp: it was no longer wanted.
    """
    url = cluster.peer_url(name)

    async def gone(client: MemberClient) -> bool:
        member = _known(await client.member_list(), url)
        if member is not None:
            await client.member_remove(member.ID)
        return member is None

    await _until(cluster, gone, going_on, f"{name} is removed", but=name)
    cluster.expel(name)


async def listed(cluster: Cluster, member: str) -> list[str]:
    """Who is in the group, as one member tells it: peer URLs, sorted.

    Only of those that this cluster has or had: a workload may add others, and remove them again.

    Raises:
        CallFailed: it does not answer.
    """
    own = set(cluster.peer_urls.values())
    async with MemberClient(cluster.direct_addresses[member], CALL_TIMEOUT_S) as client:
        return sorted(
            url for one in await client.member_list() for url in one.peerURLs if url in own
        )


def _known(members: list[pb.Member], url: str) -> pb.Member | None:
    return next((member for member in members if url in member.peerURLs), None)


async def _until(
    cluster: Cluster,
    seen: Callable[[MemberClient], Awaitable[bool]],
    going_on: GoingOn,
    what: str,
    but: str = "",
) -> None:
    """Ask members in turn until one shows that it is so."""
    last = "nobody was asked"
    began = time.monotonic()
    while True:
        for member in cluster.members:
            if member == but:
                continue
            if not going_on():
                waited = time.monotonic() - began
                raise GivenUp(f"{what}: not in {waited:.0f} s: {last}")
            try:
                async with MemberClient(cluster.direct_addresses[member], CALL_TIMEOUT_S) as client:
                    if await seen(client):
                        return
            except CallFailed as error:
                last = f"{member}: {error}"
        await asyncio.sleep(PAUSE_S)
