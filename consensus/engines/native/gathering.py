"""What a leader holds back while a round of replication is under way.

A round costs each member a message, a write, a sync and a reply, however much it carries. Where
proposals come one by one while the last ones are not committed yet, rounds of their own would be
many and small: they wait for the round to end instead, and then go together, in one message with
the news of that commit. Where nothing was sent yet, nothing waits: what one turn of the loop brings
goes together anyway. And nothing waits for long: the host calls ``release`` after ``GATHER_S``, so
that a slow network is still filled with rounds.

A leader that is about to go lets go of everything: it is the last one that can answer for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from consensus.engines.native.batches import count_of
from consensus.raft.core import Core
from consensus.raft.messages import Propose
from consensus.types import Proposal

GATHER_S: Final = 0.004
"""Longest that a proposal is held back, in seconds, while the host is not held up itself."""

GATHERED_MAX: Final = 64
"""Commands that are held back together. More go at once: a longer round would only be later."""

GATHERED_BYTES_MAX: Final = 1024 * 1024
"""Bytes of commands that are held back together."""


class Gathering:
    """Stands before a leader's log, and is open on every other member.

    Args:
        core: the member's core.
        append: takes this node's own proposals, whoever leads.
    """

    def __init__(self, core: Core, append: Callable[[Sequence[Proposal]], None]) -> None:
        self._core = core
        self._append = append
        self._held: list[Sequence[Proposal] | Propose] = []
        self._commands = 0
        self._bytes = 0

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    def propose(self, proposals: Sequence[Proposal]) -> None:
        """Take proposals of this node."""
        size = sum(len(proposal.command) for proposal in proposals)
        if self._is_under_way() and self._has_room(len(proposals), size):
            self._held.append(proposals)
        else:
            self.release()
            self._append(proposals)

    def receive(self, message: Propose) -> None:
        """Take what another member forwarded to this one."""
        if (
            message.term == self._core.term
            and self._is_under_way()
            and self._has_room(
                sum(map(count_of, message.commands)), sum(map(len, message.commands))
            )
        ):
            self._held.append(message)
        else:
            self.release()
            self._core.step(message)

    def release_if_due(self) -> None:
        """Let go of what is held if no round is under way, or this leader goes or is gone."""
        if self._held and not self._is_under_way():
            self.release()

    def release(self) -> None:
        """Let go of what is held, in its order; what is this node's own goes together."""
        held, self._held, self._commands, self._bytes = self._held, [], 0, 0
        own: list[Proposal] = []
        for item in held:
            if not isinstance(item, Propose):
                own += item
                continue
            if own:
                self._append(own)
                own = []
            self._core.step(item)
        if own:
            self._append(own)

    def _is_under_way(self) -> bool:
        core = self._core
        return (
            core.is_leader
            and core.commit_index < core.handed_index
            and core.transfer_target is None
            and not core.is_leaving
        )

    def _has_room(self, commands: int, size: int) -> bool:
        self._commands += commands
        self._bytes += size
        return self._commands <= GATHERED_MAX and self._bytes <= GATHERED_BYTES_MAX
