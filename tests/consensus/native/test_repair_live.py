"""Damage on a running group's disks: the member is repaired by the others while they serve."""

from __future__ import annotations

from pathlib import Path

from tests.consensus.native.groups import PATIENCE_S, Group, group
from tests.waiting import wait_until


def flip_log(running: Group, name: str) -> None:
    """Flip a bit in the middle of what a stopped member's log holds."""
    segment = max((running.directory / name / "wal").glob("*.wal"))
    data = bytearray(segment.read_bytes())
    used = len(bytes(data).rstrip(b"\0"))
    data[(4_096 + used) // 2] ^= 4
    segment.write_bytes(data)


async def test_a_damaged_follower_is_repaired_while_the_others_serve(tmp_path: Path) -> None:
    async with group(tmp_path) as running:
        await running.propose(20)
        victim = await running.follower()
        await running.stop(victim)
        await running.propose(5)
        flip_log(running, victim)
        await running.start(victim)
        core = running.engine(victim)._running().core
        assert core.repairing
        await wait_until(lambda: not core.repairing, PATIENCE_S, "the member is repaired")
        await running.propose(5)
        await running.caught_up()


async def test_a_leader_that_comes_back_damaged_does_not_lead(tmp_path: Path) -> None:
    async with group(tmp_path) as running:
        await running.propose(20)
        old = await running.led()
        await running.stop(old)
        flip_log(running, old)
        await running.start(old)
        core = running.engine(old)._running().core
        assert core.repairing
        new = await running.led()
        assert new != old or not core.repairing
        await running.propose(5)
        await wait_until(lambda: not core.repairing, PATIENCE_S, "the member is repaired")
        await running.caught_up()
