"""Compaction by itself: ``--auto-compaction-mode`` and ``--auto-compaction-retention``.

Only the leader proposes, as etcd does; every member samples, so that a new leader knows where
history of the wanted age begins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from consensus.errors import ConsensusError
from kvstore.config import AutoCompaction
from kvstore.errors import EtcdError

log = structlog.get_logger(__name__)

REVISION_INTERVAL_S: Final = 300.0
"""How often the revision mode looks (etcd's value)."""

PERIOD_MAX_S: Final = 3600.0
"""The periodic mode compacts once a period, and at least once an hour."""

SAMPLES_PER_PERIOD: Final = 10
SAMPLES_MAX: Final = 10_000
"""Samples reach back twice as long as history is kept, however long that is."""
RETRIES_LATER: Final = (EtcdError, ConsensusError)


class AutoCompactor:
    """Decides up to which revision to compact, and when.

    Args:
        rule: what history to keep.
        revision: returns the current revision.
        leads: returns whether this member leads.
        compact: compacts up to a revision.
    """

    def __init__(
        self,
        rule: AutoCompaction,
        revision: Callable[[], int],
        leads: Callable[[], bool],
        compact: Callable[[int], Awaitable[object]],
    ) -> None:
        self._rule = rule
        self._revision = revision
        self._leads = leads
        self._compact = compact
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES_MAX)
        self._sampled_every_s = 2 * rule.keep_s / SAMPLES_MAX
        self._compacted = 0
        self._compacted_at = float("-inf")

    @property
    def interval_s(self) -> float:
        """Seconds between two looks."""
        if self._rule.mode == "revision":
            return REVISION_INTERVAL_S
        return min(self._rule.keep_s, PERIOD_MAX_S) / SAMPLES_PER_PERIOD

    def target(self, now_s: float) -> int:
        """Take a sample at ``now_s``, and return the revision to compact to now; 0: nothing."""
        if self._rule.mode == "revision":
            target = self._revision() - self._rule.keep_revisions
            return target if target > max(self._compacted, 0) else 0
        if not self._samples or now_s - self._samples[-1][0] >= self._sampled_every_s:
            self._samples.append((now_s, self._revision()))
        target = 0
        while self._samples and self._samples[0][0] <= now_s - self._rule.keep_s:
            target = self._samples.popleft()[1]
        if target:
            self._samples.appendleft((now_s - self._rule.keep_s, target))
        period_s = min(self._rule.keep_s, PERIOD_MAX_S)
        if target <= self._compacted or now_s - self._compacted_at < period_s:
            return 0
        return target

    async def look(self, now_s: float) -> None:
        """Compact if it is time to and this member leads."""
        target = self.target(now_s)
        if not target or not self._leads():
            return
        try:
            await self._compact(target)
        except RETRIES_LATER as error:
            log.warning("auto compaction failed", revision=target, error=str(error))
            return
        self._compacted, self._compacted_at = target, now_s
        log.info("compacted by itself", revision=target, mode=self._rule.mode)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.interval_s)
            await self.look(loop.time())
