"""Elections that need not wait: a leader whose connection ended has probably died.

See ``consensus.raft.election.leader_gone`` for why that is safe.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from consensus.engines.native.driver import Driver
from consensus.types import NodeId

EARLY_SPREAD_S: Final = 0.05
"""Members that lost their leader at one moment stand for election within this time, not at once."""


def stand_soon(
    running: Callable[[], Driver | None], peer: NodeId, tick_s: float, wake: Callable[[], None]
) -> None:
    """A peer's connection ended: if it was the leader's, stand unless one is heard of meanwhile.

    Args:
        running: returns the driver, while there is one.
        peer: whose connection ended.
        tick_s: length of a tick, in seconds.
        wake: lets the driver do what it has to.
    """
    driver = running()
    if driver is None or not driver.core.leader_gone(peer):
        return
    term = driver.core.term
    timeout_s = tick_s * driver.core.config.election_timeout_ticks

    def stand() -> None:
        if running() is driver and driver.core.term == term and driver.core.leader is None:
            driver.core.campaign()
        wake()

    pause_s = random.uniform(0, min(EARLY_SPREAD_S, timeout_s / 3))
    asyncio.get_running_loop().call_later(pause_s, stand)
    wake()
