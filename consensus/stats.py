"""Plain counters that an engine keeps, for whoever shows them (see ``Engine.stats``).

Counting costs a few additions; what the numbers are called, and in which form they are shown, is
the business of the program on top.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import Final

import attrs

from consensus.types import NodeId

DURATION_BOUNDS_S: Final = tuple(0.001 * 2**power for power in range(14))
"""Upper bounds of the buckets, in seconds: 1 ms to 8.192 s, doubling (etcd's for its disks)."""


class Durations:
    """A histogram of durations in seconds."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BOUNDS_S) + 1)
        """How many fell into each bucket; the last one has no upper bound."""
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


@attrs.define(slots=True)
class PeerTraffic:
    """What went to and came from one peer since this process started, in bytes on the wire."""

    sent_bytes: int = 0
    received_bytes: int = 0
    send_failures: int = 0


@attrs.frozen(slots=True)
class EngineStats:
    """What an engine has counted; None and nothing where it keeps no such count.

    Args:
        log_syncs: how long the syncs of its log took.
        peers: the traffic with each other member.
    """

    log_syncs: Durations | None = None
    peers: Mapping[NodeId, PeerTraffic] = attrs.field(factory=dict)
