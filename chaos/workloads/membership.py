"""The membership workload: registers, and operators who change who is in the group meanwhile.

Two operators add learners, read the list of members, try to promote, and remove, through the links
that faults strike. Nobody ever starts what they add: a *ghost* has an address where nothing
listens. So it never catches up and must never vote, and no majority ever depends on one. Members
that do run come and go by the faults ``member.add`` and ``member.remove``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from chaos.checkers.group import GHOSTS, GROUP, check_group
from chaos.history.format import Operation, Outcome
from chaos.nemesis.vocabulary import Want
from chaos.workloads.base import FINAL_TIMEOUT_S, Check, Setting
from chaos.workloads.kv import KvProcess
from chaos.workloads.register import RegisterWorkload
from kvstore.client import rpcs
from kvstore.pb import etcdserverpb_pb2 as pb

OPERATORS: Final = 2
PAUSE_S: Final = (0.05, 0.4)
"""How long an operator rests after each call, at least and at most."""

SETUP_TIMEOUT_S: Final = 30.0
HOP: Final = 0.3
READ: Final = 0.4
"""Share of an operator's calls that only read."""

PROMOTE: Final = 0.4
"""Share of its changes to a ghost that are promotions; the others are removals."""

HOSTS: Final = 250
GHOST_PORT: Final = 9

Found = list[tuple[str, str]]
"""Ghosts that an operator knows of: ID in hexadecimal, and URL."""


class MembershipWorkload(RegisterWorkload):
    """Clients work on registers, as in ``register``; the operators run beside them."""

    name = "membership"
    wants = frozenset({Want.MEMBERSHIP})

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._ghosts = itertools.count()

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (*super().checks(), check_group)

    async def setup(self) -> None:
        """One ghost comes and goes, so that every history has a change that was acknowledged."""
        await super().setup()
        member = min(self.setting.addresses)
        process = KvProcess(self, 0, self.setting.rng, member, FINAL_TIMEOUT_S)
        deadline = asyncio.get_running_loop().time() + SETUP_TIMEOUT_S
        try:
            while asyncio.get_running_loop().time() < deadline:
                added = await self._add(process)
                for ghost in await self._read(process):
                    await self._remove(process, *ghost)
                if added.outcome is Outcome.OK:
                    break
                await asyncio.sleep(PAUSE_S[0])  # members that just started may be too new for it
        finally:
            await process.close()

    def helpers(self) -> Sequence[Callable[[KvProcess], Awaitable[None]]]:
        """The operators."""
        return [self._operate] * OPERATORS

    async def final_read(self, process: KvProcess) -> None:
        """The registers, and who is in the group."""
        await super().final_read(process)
        await self._read(process)

    async def _operate(self, process: KvProcess) -> None:
        known: Found | None = None
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            if known is None or process.rng.random() < READ:
                known = await self._read(process)
            else:
                await self._change(process, known)
                known = None
            if process.failed or process.rng.random() < HOP:
                process.hop()
            await self.wait_until(loop.time() + process.rng.uniform(*PAUSE_S))

    async def _change(self, process: KvProcess, known: Found) -> None:
        if not known:
            await self._add(process)
        elif process.rng.random() < PROMOTE:
            await self._promote(process, *process.rng.choice(known))
        else:
            await self._remove(process, *process.rng.choice(known))

    async def _read(self, process: KvProcess) -> Found:
        """A linearizable list of the members; returns the ghosts in it."""

        async def send(operation: Operation) -> None:
            found = await process.client.member_list()
            operation.output = {
                "members": sorted(
                    [f"{each.id:x}", ",".join(each.peer_urls), each.is_learner] for each in found
                )
            }

        operation = await process.attempt("read", GROUP, send)
        if operation.outcome is not Outcome.OK:
            return []
        listed = operation.output["members"]
        return [(id, url) for id, url, _ in listed if url.startswith(GHOSTS)]

    async def _add(self, process: KvProcess) -> Operation:
        number = next(self._ghosts)
        url = f"{GHOSTS}{number // HOSTS}.{number % HOSTS + 1}:{GHOST_PORT}"

        async def send(operation: Operation) -> None:
            request = pb.MemberAddRequest(peerURLs=[url], isLearner=True)
            answer = await process.client.connection.call(rpcs.MEMBER_ADD, request)
            operation.output = {"id": f"{answer.member.ID:x}"}

        return await process.attempt("add", GROUP, send, input={"url": url})

    async def _promote(self, process: KvProcess, id: str, url: str) -> Operation:
        async def send(_: Operation) -> None:
            request = pb.MemberPromoteRequest(ID=int(id, 16))
            await process.client.connection.call(rpcs.MEMBER_PROMOTE, request)

        return await process.attempt("promote", GROUP, send, input={"id": id, "url": url})

    async def _remove(self, process: KvProcess, id: str, url: str) -> Operation:
        async def send(_: Operation) -> None:
            request = pb.MemberRemoveRequest(ID=int(id, 16))
            await process.client.connection.call(rpcs.MEMBER_REMOVE, request)

        return await process.attempt("remove", GROUP, send, input={"id": id, "url": url})
