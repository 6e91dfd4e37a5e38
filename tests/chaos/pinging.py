"""The cluster of pingers (see ``pinger.py``): a target, and what its members tell."""

from __future__ import annotations

import asyncio
import json
import sys
import weakref
import zlib
from pathlib import Path
from typing import Any

import grpc

from chaos.cluster.cluster import Cluster
from chaos.cluster.rpc import CallFailed, MemberStatus
from chaos.cluster.targets.base import Api, Control, Launch, Layout, Target
from chaos.history.recorder import Recorder
from chaos.nemesis.injectors import INJECTORS
from chaos.nemesis.injectors.base import Injector
from chaos.nemesis.plan import fault_of
from chaos.nemesis.vocabulary import Want
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import pack
from tests.waiting import wait_until

PROGRAM = Path(__file__).with_name("pinger.py")
PATIENCE_S = 30.0


class PingControl:
    """Asks one pinger; see ``Control``."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s

    async def ask(self, timeout_s: float | None = None) -> dict[str, Any]:
        host, _, port = self.address.rpartition(":")
        try:
            async with asyncio.timeout(timeout_s or self.timeout_s):
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    answer: dict[str, Any] = json.loads(await reader.readline())
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        return answer

    async def status(self) -> MemberStatus:
        answer = await self.ask()
        ids = [zlib.crc32(answer[name].encode()) for name in ("name", "leader")]
        return MemberStatus(ids[0], ids[1] if answer["serves"] else 0, 1, 0)

    async def probe(self, timeout_s: float | None = None) -> None:
        if not (await self.ask(timeout_s))["serves"]:
            raise CallFailed(grpc.StatusCode.UNAVAILABLE, "it hears no majority")

    async def close(self) -> None:
        return


class PingTarget(Target):
    """Members are ``pinger.py``."""

    name = "pinger"
    engine = "native"
    api = Api.MACHINE

    @property
    def provides(self) -> frozenset[Want]:
        return frozenset(Want) - {Want.ADMIN, Want.TRANSFER, Want.MEMBERSHIP}

    def check(self) -> None:
        return

    def control(self, address: str, timeout_s: float) -> Control:
        return PingControl(address, timeout_s)

    def link_address(self, source: str, target: str, number: int, peer: str) -> str:
        return "127.0.0.1:0"

    def launch(self, member: str, layout: Layout) -> Launch:
        own = layout.members[member]
        hellos = ",".join(
            f"{name}={pack(wire.Envelope(hello=wire.Hello(sender=name))).hex()}"
            for name in layout.members
        )
        dials = ",".join(
            f"{target}={address}"
            for (source, target), address in layout.dial.items()
            if source == member
        )
        data = str(layout.data_directory(member))
        command = (sys.executable, str(PROGRAM), member, own.peer, own.client, data, hellos, dials)
        return Launch(command)

    def version(self) -> str:
        return "1"


async def told(cluster: Cluster, member: str) -> dict[str, Any]:
    """What a pinger tells of itself; {} if it says nothing."""
    control = cluster.control(member)
    assert isinstance(control, PingControl)
    try:
        return await control.ask()
    except CallFailed:
        return {}


async def total(cluster: Cluster, count: str) -> int:
    """A count of what is heard, over all members and links."""
    answers = [await told(cluster, member) for member in cluster.members]
    return sum(heard[count] for answer in answers if answer for heard in answer["hears"].values())


async def all_hear_all(cluster: Cluster) -> bool:
    """Whether every member hears every other one, now and fast."""
    for member in cluster.members:
        answer = await told(cluster, member)
        if not answer:
            return False
        for heard in answer["hears"].values():
            if heard["age_s"] > 0.5 or heard["delay_s"] > 0.5:
                return False
    return True


async def settled(cluster: Cluster) -> None:
    """Wait until nothing is broken."""
    await wait_until(lambda: all_hear_all(cluster), PATIENCE_S, "every member hears every other")


def inject(cluster: Cluster, victims: list[str], kind: str, **options: Any) -> Injector:
    """An injector of one fault, which the test strikes and mends by itself."""
    import random

    target = victims[0] if len(victims) == 1 else "all"
    if kind.startswith(("net.", "clock.", "disk.")) and len(victims) > 1:
        target = "all"
    table = {"kind": kind, "at": 0, "for": 0, "target": target, **options}
    if kind == "proc.rolling_restart":
        table["target"] = "all"
    recorder = Recorder(cluster.directory / "faults.jsonl", {})
    injector = INJECTORS[kind](cluster, fault_of(table), victims, random.Random(7), recorder)
    weakref.finalize(injector, recorder.close)
    return injector


async def seen(injector: Injector) -> str:
    """Wait for an injector's evidence and return it."""
    found: list[str] = []

    async def look() -> bool:
        found.append(await injector.evidence())
        return bool(found[-1])

    await wait_until(look, PATIENCE_S, f"evidence of {injector.fault.kind}")
    return found[-1]
