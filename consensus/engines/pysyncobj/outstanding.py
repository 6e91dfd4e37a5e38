"""What became of frames that this member sent into the log.

A frame is sent once, to the leader of one term, and that leader appends it in that term or not at
all. Terms never fall along a log. So when an entry of a later term has been applied here and the
frame was not seen before it, the frame will never be applied, and its proposals may be retried.
Until then, silence means that nobody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import attrs

from consensus.engines.pysyncobj.codec import FrameKey
from consensus.errors import ConsensusError, ProposalDropped
from consensus.types import Proposal, ProposalId


@attrs.frozen(slots=True)
class Sent:
    """A frame under way: the term it can be appended in, and who waits for it."""

    term: int
    ids: tuple[ProposalId, ...]
    barrier: asyncio.Future[int] | None


class Outstanding:
    """Frames under way. Bounded by the node's bound on proposals, and one barrier for each read.

    Args:
        dropped: called for each proposal that certainly will not be applied, or that nobody knows
            about.
    """

    def __init__(self, dropped: Callable[[ProposalId, ConsensusError], None]) -> None:
        self._dropped = dropped
        self._sent: dict[FrameKey, Sent] = {}

    def add(
        self,
        key: FrameKey,
        term: int,
        proposals: Sequence[Proposal],
        barrier: asyncio.Future[int] | None,
    ) -> None:
        """Remember a frame that is about to be sent."""
        self._sent[key] = Sent(term, tuple(item.id for item in proposals), barrier)

    def seen(self, key: FrameKey) -> Sent | None:
        """The frame is committed: forget it, and return who waited for it."""
        return self._sent.pop(key, None)

    def fail(self, key: FrameKey, error: ConsensusError) -> None:
        """This frame has ended with ``error``."""
        sent = self._sent.pop(key, None)
        if sent is None:
            return
        for identity in sent.ids:
            self._dropped(identity, error)
        if sent.barrier is not None and not sent.barrier.done():
            sent.barrier.set_exception(error)
            sent.barrier.exception()  # seen: its caller may have given up

    def applied_term(self, term: int) -> None:
        """An entry of ``term`` has been applied: earlier terms' frames not seen are dropped."""
        while self._sent:
            key = next(iter(self._sent))
            if self._sent[key].term >= term:
                break
            self.fail(key, ProposalDropped("the leader changed before it was committed"))

    def fail_all(self, error: ConsensusError) -> None:
        """Every frame has ended with ``error``."""
        for key in list(self._sent):
            self.fail(key, error)
