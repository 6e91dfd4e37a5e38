"""Administration while other things go wrong: each call again and again until the fault ends.

A call may fail, of course: nobody leads, a member is down. What shows an effect is one that did
not.
"""

from __future__ import annotations

import abc
from contextlib import suppress
from typing import Final

import grpc

from chaos.cluster.cluster import ClusterFailed
from chaos.cluster.rpc import CallFailed, MemberClient
from chaos.nemesis.injectors.base import Injector

CALL_TIMEOUT_S: Final = 5.0
LEADER_TIMEOUT_S: Final = 2.0


class Admin(Injector):
    """The base: calls ``once`` on each target in turn."""

    async def strike(self) -> None:
        """See ``Injector``."""
        self._done = 0
        self._last = ""
        self.begin_loop(self._again_and_again())

    async def _again_and_again(self) -> None:
        every_s = self.option("every_s", float)
        while not self._ending.is_set():
            for victim in self.victims:
                address = self.cluster.direct_addresses.get(victim)
                if address is None:
                    continue  # it left the group
                with suppress(CallFailed, ClusterFailed):
                    async with MemberClient(address, CALL_TIMEOUT_S) as client:
                        self._last = await self.once(victim, client)
                        self._done += bool(self._last)
            await self.rest(every_s)

    @abc.abstractmethod
    async def once(self, victim: str, client: MemberClient) -> str:
        """Do it once; say what was done, or "" if there was nothing to do."""

    async def evidence(self) -> str:
        """See ``Injector``."""
        return self._last if self._done else ""

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.end_loop()


class Compact(Admin):
    """admin.compact."""

    async def once(self, victim: str, client: MemberClient) -> str:
        """See ``Admin``."""
        newest = (await client.status()).revision
        kept = newest - self.option("keep", int)
        if kept < 1:
            return ""
        try:
            return await self._compact(victim, client, kept)
        except CallFailed as error:
            if error.code is not grpc.StatusCode.OUT_OF_RANGE:
                raise
        # Clients compact as well, and had done so beyond that.
        return await self._compact(victim, client, newest)

    async def _compact(self, victim: str, client: MemberClient, revision: int) -> str:
        compaction = self.recorder.compaction(revision)
        await client.compact(revision)
        self.recorder.compacted(compaction)
        return f"{victim} compacted what is before revision {revision}"


class Defragment(Admin):
    """admin.defragment."""

    async def once(self, victim: str, client: MemberClient) -> str:
        """See ``Admin``."""
        await client.defragment()
        return f"{victim} was defragmented"


class Snapshot(Admin):
    """admin.snapshot."""

    async def once(self, victim: str, client: MemberClient) -> str:
        """See ``Admin``."""
        return f"{await client.snapshot_bytes()} bytes came from {victim}"


class Transfer(Admin):
    """admin.transfer: whoever leads hands over to the member after it."""

    async def once(self, victim: str, client: MemberClient) -> str:
        """See ``Admin``."""
        leader = await self.cluster.leader(LEADER_TIMEOUT_S)
        members = self.cluster.members
        if leader not in members:
            return ""  # it left the group meanwhile
        heir = members[(members.index(leader) + 1) % len(members)]
        status = await self.cluster.status(heir)
        if status is None:
            return ""
        async with MemberClient(self.cluster.direct_addresses[leader], CALL_TIMEOUT_S) as leading:
            await leading.move_leader(status.member_id)
        return f"{leader} handed leadership to {heir}"
