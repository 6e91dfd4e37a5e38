"""A leader whose wall clock jumps by an hour to and fro: leases and kept history do not notice."""

from __future__ import annotations

import asyncio
import struct
import time
from pathlib import Path

import attrs

from consensus.clock import CLOCK_FILE, CLOCK_FILE_VARIABLE
from kvstore.client import AsyncClient, LeaseLost
from tests.clusters import Cluster, Member, Program
from tests.waiting import wait_until

TTL_S = 5
KEPT_S = 3.0
JUMPS_MS = (3_600_000, -3_600_000)
JUMPING_S = 4.0
PATIENCE_S = 30.0


class Clocked(Cluster):
    """Each member has a wall clock of its own, which the test shifts."""

    def clock(self, member: Member) -> Path:
        """The file that shifts a member's clock and counts its readings."""
        return member.log.with_suffix(".clock")

    def launch(self, member: Member) -> None:
        """See ``Cluster``."""
        self.clock(member).write_bytes(CLOCK_FILE.pack(0, 0))
        program = self.program
        clock = {CLOCK_FILE_VARIABLE: str(self.clock(member))}
        self.program = attrs.evolve(program, environment=clock)
        super().launch(member)
        self.program = program

    def shift(self, member: Member, by_ms: int) -> None:
        """Let a member's clock be wrong by so much."""
        with self.clock(member).open("r+b") as file:
            file.write(struct.pack("<q", by_ms))

    def readings(self, member: Member) -> int:
        """How often a member has read its clock."""
        return int(CLOCK_FILE.unpack(self.clock(member).read_bytes())[1])


async def leader_of(cluster: Cluster) -> Member:
    async with AsyncClient(cluster.endpoints, dial_timeout_s=PATIENCE_S) as client:
        statuses = [await client.status(endpoint) for endpoint in cluster.endpoints]
    leader = next(each.leader for each in statuses)
    ids = [each.header.member_id for each in statuses]
    return cluster.members[ids.index(leader)]


@attrs.define
class Watched:
    """What was done when, and what is wrong with what was seen. Times on the test's own clock."""

    client: AsyncClient
    kept_alive: int
    granted_at: float
    renewed_at: float
    written_at: dict[int, float] = attrs.field(factory=dict)
    wrong: list[str] = attrs.field(factory=list)

    async def step(self, leader: str) -> None:
        """Write, renew, and look at everything once."""
        began = time.monotonic()
        answer = await self.client.put("/written", "")
        self.written_at[answer.header.revision] = began
        began = time.monotonic()
        try:
            await self.client.lease_keepalive(self.kept_alive)
            self.renewed_at = began
        except LeaseLost:
            if time.monotonic() < self.renewed_at + TTL_S:
                self.wrong.append("the lease that is kept alive was lost")
        await self.look(leader)

    async def look(self, leader: str) -> int:
        """Compare leases and history with what must be there; return the compact revision."""
        for key, until in (
            ("/left-alone", self.granted_at + TTL_S),
            ("/kept-alive", self.renewed_at + TTL_S),
        ):
            there = (await self.client.range(key)).kvs
            if not there and time.monotonic() < until:
                self.wrong.append(f"{key} is gone {until - time.monotonic():.2f} s early")
        compacted = (await self.client.hash_kv(leader)).compact_revision
        now = time.monotonic()
        for revision, began in self.written_at.items():
            if revision <= compacted and began > now - KEPT_S:
                self.wrong.append(f"revision {revision} was compacted at {now - began:.2f} s")
        return compacted


async def test_leases_and_history_on_a_leader_whose_clock_jumps(tmp_path: Path) -> None:
    flags = ("--auto-compaction-mode", "periodic", "--auto-compaction-retention", f"{KEPT_S:g}s")
    with Clocked(Program.kvstore(), tmp_path, flags=flags) as cluster:
        leader = await leader_of(cluster)
        async with AsyncClient(
            leader.client, timeout_s=PATIENCE_S, dial_timeout_s=PATIENCE_S
        ) as client:
            alone_at = time.monotonic()
            await client.put("/left-alone", "", lease=(await client.lease_grant(TTL_S)).id)
            kept_at = time.monotonic()
            kept_alive = (await client.lease_grant(TTL_S)).id
            await client.put("/kept-alive", "", lease=kept_alive)
            watched = Watched(client, kept_alive, alone_at, kept_at)
            before = cluster.readings(leader)
            jumping = 0
            ends = time.monotonic() + JUMPING_S
            while time.monotonic() < ends:
                cluster.shift(leader, JUMPS_MS[jumping % 2])
                jumping += 1
                await watched.step(leader.client)
                await asyncio.sleep(0.05)
            assert cluster.readings(leader) > before, "the leader never read its wrong clock"

            async def all_in_time() -> bool:
                await watched.step(leader.client)
                gone = not (await client.range("/left-alone")).kvs
                return gone and await watched.look(leader.client) > 0

            await wait_until(all_in_time, PATIENCE_S, "a lease ends and old history goes")
            assert watched.wrong == []
            await wait_until(lambda: gone(client, "/kept-alive"), PATIENCE_S, "nobody renews it")


async def gone(client: AsyncClient, key: str) -> bool:
    return not (await client.range(key)).kvs
