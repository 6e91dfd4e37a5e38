"""A client of a member's watch hub, on an event loop without time: nothing here waits."""

from __future__ import annotations

import asyncio
from typing import Any

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.watch import WatchHub, WatchStream
from tests.kvstore.watch.fakes import header
from tests.replayed.machines import StoreMember

TURNS = 200
"""Turns of the loop in which everything that can come has come, in the stories told here."""


def hub_of(member: StoreMember) -> WatchHub:
    """Make the watch hub of a member."""
    hub = WatchHub(member.machine.store, header)
    member.machine.watch_sink = hub
    return hub


class Client:
    """One stream, read when the story says so.

    Args:
        hub: the member's.
        options: of the stream.
    """

    def __init__(self, hub: WatchHub, **options: Any) -> None:
        self.stream = WatchStream(hub, **options)
        self.taken: list[pb.WatchResponse] = []

    async def watch(self, key: bytes, range_end: bytes = b"", **fields: Any) -> None:
        """Ask for a watch."""
        request = pb.WatchCreateRequest(key=key, range_end=range_end, **fields)
        await self.stream.handle(pb.WatchRequest(create_request=request))

    async def ask_progress(self) -> None:
        """Ask for a progress notification of the whole stream."""
        await self.stream.handle(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def take(self) -> None:
        """Take everything that there is to take."""

        async def read() -> None:
            async for messages in self.stream.responses():
                self.taken.extend(map(pb.WatchResponse.FromString, messages))

        task = asyncio.create_task(read())
        for _ in range(TURNS):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @property
    def revisions(self) -> list[int]:
        """The revision of every event that was taken."""
        return [event.kv.mod_revision for answer in self.taken for event in answer.events]
