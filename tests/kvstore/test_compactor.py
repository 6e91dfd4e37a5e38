"""Compaction by itself, on a clock that the test moves."""

from __future__ import annotations

import pytest

from kvstore.compactor import AutoCompactor
from kvstore.config import AutoCompaction
from kvstore.errors import NO_LEADER, EtcdError


class World:
    """A store's revision, who leads, and what was compacted."""

    def __init__(self, rule: AutoCompaction) -> None:
        self.revision = 1
        self.leads = True
        self.fails = False
        self.compacted: list[int] = []
        self.compactor = AutoCompactor(
            rule, lambda: self.revision, lambda: self.leads, self._compact
        )

    async def _compact(self, revision: int) -> None:
        if self.fails:
            raise EtcdError(NO_LEADER)
        self.compacted.append(revision)

    async def run(self, start_s: float, end_s: float, per_look: int = 10) -> None:
        """Look at every interval from start to end, with writes between."""
        now_s = start_s
        while now_s <= end_s:
            await self.compactor.look(now_s)
            self.revision += per_look
            now_s += self.compactor.interval_s


async def test_revision_mode_keeps_the_last_revisions() -> None:
    world = World(AutoCompaction("revision", keep_revisions=100))
    for revision, expected in ((50, []), (101, [1]), (101, [1]), (350, [1, 250])):
        world.revision = revision
        await world.compactor.look(0.0)
        assert world.compacted == expected


async def test_periodic_mode_keeps_the_wanted_time() -> None:
    world = World(AutoCompaction("periodic", keep_s=600.0))
    assert world.compactor.interval_s == 60.0
    await world.run(0.0, 599.0)
    assert world.compacted == [], "nothing is old enough yet"
    await world.run(600.0, 1800.0)
    assert world.compacted == [1, 101, 201], "once a period, up to where it began"


async def test_periodic_mode_compacts_every_hour_when_the_time_is_longer() -> None:
    world = World(AutoCompaction("periodic", keep_s=24 * 3600.0))
    assert world.compactor.interval_s == 360.0
    await world.run(0.0, 26 * 3600.0)
    assert len(world.compacted) == 3
    assert world.compacted == sorted(world.compacted)


async def test_only_the_leader_proposes_and_a_new_one_knows_where_history_begins() -> None:
    world = World(AutoCompaction("periodic", keep_s=600.0))
    world.leads = False
    await world.run(0.0, 1200.0)
    assert world.compacted == []
    world.leads = True
    await world.run(1260.0, 1260.0)
    assert world.compacted == [111]


async def test_a_failed_compaction_is_tried_again_at_the_next_look() -> None:
    world = World(AutoCompaction("periodic", keep_s=600.0))
    world.fails = True
    await world.run(0.0, 660.0)
    assert world.compacted == []
    world.fails = False
    await world.run(720.0, 720.0)
    assert world.compacted == [pytest.approx(21)]


async def test_history_of_many_months_is_compacted_too() -> None:
    """The samples are bounded, and reach back far enough all the same."""
    world = World(AutoCompaction("periodic", keep_s=3000 * 3600.0))
    await world.run(0.0, 3002 * 3600.0)
    assert world.compacted
    begun = 10 * 3602 * 3600 / 360  # ten revisions were written at each look
    assert world.compacted[-1] < begun - 10 * 3000 * 3600 / 360 + 10 * 600
