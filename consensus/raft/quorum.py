"""Majorities, plain and joint: what is committed, and whether a vote is won.

An empty majority agrees to everything, which is what makes a configuration that is not joint a
joint one with an empty other half.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from consensus.raft.configuration import Configuration
from consensus.types import NodeId


class VoteResult(enum.Enum):
    """Where an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def committed_index(configuration: Configuration, match_index: Mapping[NodeId, int]) -> int:
    """Return the greatest index that every needed majority has. Members not named have 0."""
    index = _majority_index(configuration.voters, match_index)
    if configuration.voters_outgoing:
        index = min(index, _majority_index(configuration.voters_outgoing, match_index))
    return index


def vote_result(configuration: Configuration, votes: Mapping[NodeId, bool]) -> VoteResult:
    """Return whether the votes cast so far decide the election."""
    result = _majority_vote(configuration.voters, votes)
    if not configuration.voters_outgoing or result is VoteResult.LOST:
        return result
    other = _majority_vote(configuration.voters_outgoing, votes)
    if other is VoteResult.LOST:
        return other
    return VoteResult.WON if result is other is VoteResult.WON else VoteResult.PENDING


def _majority_index(voters: Sequence[NodeId], match_index: Mapping[NodeId, int]) -> int:
    ranked = sorted((match_index.get(voter, 0) for voter in voters), reverse=True)
    return ranked[len(ranked) // 2]


def _majority_vote(voters: Sequence[NodeId], votes: Mapping[NodeId, bool]) -> VoteResult:
    needed = len(voters) // 2 + 1
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return VoteResult.WON
    if refused > len(voters) - needed:
        return VoteResult.LOST
    return VoteResult.PENDING
