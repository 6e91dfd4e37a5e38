"""The proposals of this node: appended here, or forwarded to the leader, and what became of them.

Every proposal has one outcome. Applied: the node sees its identity in what is committed. Certainly
not: its place in the log went to another entry, the leader refused it, or a later leader's entry is
applied and it was not before it. Unknown: the leader gave no answer in time, or a snapshot took the
place of the log that would have told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from consensus.engine import EngineHost
from consensus.engines.native.batches import encode_batch, split
from consensus.errors import ConsensusError, NotLeader, OutcomeUnknown, ProposalDropped
from consensus.raft.core import Core
from consensus.types import Committed, Proposal, ProposalId

FORWARDS_PENDING_MAX: Final = 10_000
"""Forwarded batches that wait for their entries. The oldest is given up as unknown beyond this."""

FORWARD_TIMEOUTS_MAX: Final = 4
"""Election timeouts after which a forwarded batch is given up as unknown: the message that carried
it may be lost while its leader goes on leading."""


@attrs.define(slots=True)
class _Placed:
    """Proposals of this node that it appended as the leader, in one entry."""

    ids: list[ProposalId]
    index: int
    term: int


@attrs.define(slots=True)
class _Forward:
    """Proposals of this node that went to the leader of a term together, by sequence; and when."""

    ids: dict[int, ProposalId]
    term: int
    sent_tick: int


class Proposals:
    """What this node proposed and has not heard of yet.

    Args:
        core: the member's core.
        host: the node, which is told outcomes.
        requests: numbers for what is forwarded; none comes twice, in no life of this member.
        forward_ticks_max: ticks after which a forwarded batch is given up as unknown.
    """

    def __init__(
        self, core: Core, host: EngineHost, requests: Iterator[int], forward_ticks_max: int
    ) -> None:
        self._core = core
        self._host = host
        self._requests = requests
        self._forward_ticks_max = forward_ticks_max
        self._placed: list[_Placed] = []
        self._forwarded: dict[int, _Forward] = {}
        self._request_of: dict[int, int] = {}
        self._proposer = ProposalId(0, 0, 0)

    def propose(self, proposals: Sequence[Proposal]) -> None:
        """Append proposals, or forward them to the leader, or say that neither can be."""
        if not proposals:
            return
        batches = list(split(proposals))
        data = [encode_batch(batch) for batch in batches]
        if self._core.is_leader:
            try:
                index = self._core.propose(data)
            except ProposalDropped as error:
                self._drop([proposal.id for proposal in proposals], error)
                return
            term = self._core.term
            self._placed.extend(
                _Placed([proposal.id for proposal in batch], index + number, term)
                for number, batch in enumerate(batches)
            )
            return
        request = next(self._requests)
        if self._core.forward(request, data):
            ids = {proposal.id.sequence: proposal.id for proposal in proposals}
            self._forwarded[request] = _Forward(ids, self._core.term, self._core.now_ticks)
            self._request_of.update(dict.fromkeys(ids, request))
            self._proposer = proposals[0].id
            if len(self._forwarded) > FORWARDS_PENDING_MAX:
                self._forget_forward(next(iter(self._forwarded)))
        else:
            unknown = NotLeader(None, "no leader is known")
            self._drop([proposal.id for proposal in proposals], unknown)

    def tick(self) -> None:
        """Give up what was forwarded too long ago."""
        if self._forwarded:
            self._forget_old_forwards()

    def committed(self, batch: Iterable[Committed]) -> None:
        """The node is about to apply these."""
        if self._request_of:
            self._settle_forwarded(batch)

    def applied(self, index: int, term: int) -> None:
        """The log is applied up to an entry."""
        if self._placed:
            self._settle_placed(index)
        if self._forwarded:
            self._drop_forwards_before(term)

    def rejected(self, request: int) -> None:
        """The leader refused a forwarded batch."""
        self._end_forward(request, NotLeader(self._core.leader))

    def superseded(self) -> None:
        """A snapshot took the log's place: whether these are inside it nobody can tell."""
        covered, self._placed = self._placed, []
        for placed in covered:
            self._drop(placed.ids, OutcomeUnknown("a snapshot took this log's place"))
        for request in list(self._forwarded):
            self._forget_forward(request)

    # -- inside -------------------------------------------------------------------------------

    def _settle_placed(self, applied_index: int) -> None:
        """A place in the log that went to another entry: its proposals were certainly dropped."""
        waiting = []
        for placed in self._placed:
            if placed.index > applied_index:
                waiting.append(placed)
            elif self._core.log.has(placed.index, placed.term):
                continue  # they were applied and their callers have the results
            else:
                self._drop(placed.ids, ProposalDropped("another leader's entry took its place"))
        self._placed = waiting

    def _settle_forwarded(self, batch: Iterable[Committed]) -> None:
        """What this node forwarded and now applies needs no other outcome."""
        proposer = self._proposer
        member, incarnation, _ = proposer
        for committed in batch:
            if committed.incarnation != incarnation or committed.member != member:
                continue
            for sequence in committed.sequences:
                request = self._request_of.pop(sequence, None)
                if request is not None:
                    ids = self._forwarded[request].ids
                    del ids[sequence]
                    if not ids:
                        del self._forwarded[request]

    def _drop_forwards_before(self, term: int) -> None:
        """What leaders of earlier terms took and committed is applied by now; the rest never is.

        An entry of ``term`` is applied here. Whatever was committed before it stands before it in
        the log; what an older leader appends, or has appended elsewhere, cannot be committed any
        more, and leaders of this term or a later one do not take what was sent in an older one.
        """
        for request, forward in list(self._forwarded.items()):
            if forward.term >= term:
                return
            self._end_forward(
                request, ProposalDropped("the leader that it was sent to was replaced before")
            )

    def _forget_old_forwards(self) -> None:
        sent_before = self._core.now_ticks - self._forward_ticks_max
        while self._forwarded:
            request, oldest = next(iter(self._forwarded.items()))
            if oldest.sent_tick > sent_before:
                return
            self._forget_forward(request)

    def _forget_forward(self, request: int) -> None:
        self._end_forward(
            request, OutcomeUnknown("the leader that the proposal was sent to gave no answer")
        )

    def _end_forward(self, request: int, error: ConsensusError) -> None:
        forward = self._forwarded.pop(request, None)
        if forward is None:
            return
        for sequence, identity in forward.ids.items():
            del self._request_of[sequence]
            self._host.dropped(identity, error)

    def _drop(self, ids: Iterable[ProposalId], error: ConsensusError) -> None:
        for identity in ids:
            self._host.dropped(identity, error)
