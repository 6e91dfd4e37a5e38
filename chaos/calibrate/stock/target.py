"""Stock PySyncObj as a target, and a client of its members."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import itertools
import json
import sys
import zlib
from typing import Any, Final

import grpc

from chaos.cluster.rpc import CallFailed, MemberStatus
from chaos.cluster.targets.base import Api, Control, Launch, Layout, Target

MODULE: Final = "chaos.calibrate.stock.member"
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
NEVER_APPENDED: Final = frozenset({1, 2, 3, 4, 6})
"""FAIL_REASONs after which a command is certainly not applied; the others leave it open."""


class Refused(Exception):
    """The command was certainly not applied."""


class StockClient:
    """A connection to one member, made when it is first used; several calls at once are well."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def add(self, item: str) -> None:
        """Add an item.

        Raises:
            Refused: it was certainly not added.
            CallFailed: nobody knows.
        """
        reason = (await self._call({"op": "add", "item": item}))["reason"]
        if reason in NEVER_APPENDED:
            raise Refused(f"fail reason {reason}")
        if reason:
            raise CallFailed(grpc.StatusCode.UNKNOWN, f"fail reason {reason}")

    async def read(self) -> list[str]:
        """The items that this member holds."""
        items: list[str] = (await self._call({"op": "read"}))["items"]
        return items

    async def told(self) -> dict[str, Any]:
        """What the member says of itself."""
        return await self._call({"op": "status"})

    async def status(self) -> MemberStatus:
        """See ``Control``. Members have addresses here, so ids are made of them."""
        found = await self.told()
        own, leader = (zlib.crc32(found[name].encode()) for name in ("self", "leader"))
        return MemberStatus(own, leader if found["leader"] else 0, found["term"], found["applied"])

    async def probe(self, timeout_s: float | None = None) -> None:
        """See ``Control``: a member serves when the library says that it is ready."""
        found = await self.told()
        if not found["ready"] or not found["leader"]:
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, "not ready")

    async def close(self) -> None:
        """Close the connection."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._disconnect()

    async def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        try:
            async with asyncio.timeout(self.timeout_s):
                writer = await self._connect()
                waiting = asyncio.get_running_loop().create_future()
                self._waiting[number] = waiting
                writer.write(json.dumps({"id": number, **request}).encode() + b"\n")
                answer: dict[str, Any] = await waiting
                return answer
        except (OSError, TimeoutError) as error:
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, str(error) or "no answer") from error
        finally:
            self._waiting.pop(number, None)

    async def _connect(self) -> asyncio.StreamWriter:
        if self._writer is None:
            host, _, port = self.address.rpartition(":")
            reader, self._writer = await asyncio.open_connection(
                host, int(port), limit=LINE_BYTES_MAX
            )
            self._reading = asyncio.create_task(self._read(reader))
        return self._writer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            with contextlib.suppress(OSError):
                async for line in reader:
                    answer = json.loads(line)
                    waiting = self._waiting.get(answer["id"])
                    if waiting is not None and not waiting.done():
                        waiting.set_result(answer)
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the connection ended"))


class StockTarget(Target):
    """Members are ``python -m chaos.calibrate.stock.member``.

    Args:
        flags: for every member.
    """

    name = "pysyncobj-stock"
    engine = "pysyncobj"
    api = Api.MACHINE

    def __init__(self, *flags: str) -> None:
        self._flags = flags

    def check(self) -> None:
        """See ``Target``; the library is always there."""

    def control(self, address: str, timeout_s: float) -> Control:
        """See ``Target``."""
        return StockClient(address, timeout_s)

    def link_address(self, source: str, target: str, number: int, peer: str) -> str:
        """See ``Target``. The links stay unused: the library knows one address of a peer."""
        return "127.0.0.1:0"

    def launch(self, member: str, layout: Layout) -> Launch:
        """See ``Target``."""
        own = layout.members[member]
        peers = [other.peer for name, other in layout.members.items() if name != member]
        command = (
            *(sys.executable, "-m", MODULE, "--me", own.peer, "--peers", ",".join(peers)),
            *("--client", own.client, "--data", str(layout.data_directory(member))),
            *self._flags,
        )
        return Launch(command)

    def version(self) -> str:
        """See ``Target``."""
        return importlib.metadata.version("pysyncobj")
