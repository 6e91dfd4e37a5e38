"""From PySyncObj's frames to the host: in slices, counted, and nothing that the machine has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from consensus.engines.pysyncobj.codec import Frame, FrameKey
from consensus.engines.pysyncobj.delivery import DELIVER_BATCH_MAX, Delivery
from consensus.types import Committed, Position
from tests.consensus.native.member import ListHost, proposal


class SlicedHost(ListHost):
    """Notes how many commands came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.slices: list[int] = []

    def committed(self, batch: Sequence[Committed]) -> None:
        self.slices.append(sum(len(item.commands) for item in batch))
        super().committed(batch)


def frame(first: int, count: int) -> Frame:
    """A frame with commands numbered from ``first`` on."""
    numbers = range(first, first + count)
    return Frame(FrameKey(1, 1, first), 0, tuple(proposal(number) for number in numbers))


@pytest.mark.parametrize("sizes", [[1], [1] * 600, [20_000], [255, 2, 300, 1, 0, 512]])
def test_frames_of_any_size_reach_the_host_in_slices(sizes: list[int]) -> None:
    host = SlicedHost()
    delivery = Delivery(host, Position(), None)
    first = 1
    for size in sizes:
        delivery.frame(frame(first, size), 1)
        first += size
    reached: list[int] = []
    delivery.barrier(reached.append)
    assert delivery.waiting == sum(sizes) + 1
    delivery.drain()
    assert delivery.waiting == 0
    assert host.commands == [f"c{number}" for number in range(1, sum(sizes) + 1)]
    assert max(host.slices) <= DELIVER_BATCH_MAX
    assert reached == [delivery.index] == [sum(sizes)]


@pytest.mark.parametrize("has", range(1, 9))
def test_what_the_machine_has_is_skipped_also_within_a_frame(has: int) -> None:
    names = [f"c{number}" for number in range(1, 9)]
    host = ListHost((Position(has, 1), names[:has]))
    delivery = Delivery(host, Position(), Position(has, 1))
    for first, count in ((1, 3), (4, 1), (5, 4)):
        delivery.frame(frame(first, count), 1)
    assert not delivery.skipping
    assert delivery.waiting == 8 - has
    delivery.drain()
    assert host.commands == names
    assert not host.halted


def test_a_machine_of_another_term_halts() -> None:
    host = ListHost((Position(2, 1), ["c1", "c2"]))
    delivery = Delivery(host, Position(), Position(2, 1))
    delivery.frame(frame(1, 3), 2)
    assert "the group committed index 2 in term 2" in host.halted
