"""What can go wrong, by name. A caller acts on the class; the text is for a person.

A proposal has three outcomes: it was applied (``Applied``), it certainly was not (``NotLeader``,
``ProposalDropped``: retry freely), or nobody can tell (``OutcomeUnknown``: it may be applied yet).
"""

from __future__ import annotations


class ConsensusError(Exception):
    """Base of every error that this package raises on purpose."""


class ProposalDropped(ConsensusError):
    """The proposal was certainly not applied and never will be. Retry freely."""


class NotLeader(ProposalDropped):
    """No leader could take the proposal. It was certainly not applied.

    Args:
        leader: the member believed to lead, or None when none is known.
    """

    def __init__(self, leader: str | None = None, message: str = "") -> None:
        super().__init__(message or f"not leader (leader: {leader or 'unknown'})")
        self.leader = leader


class OutcomeUnknown(ConsensusError):
    """The proposal may have been applied, or may yet be. Only reading the state can tell."""


class QueueFull(ProposalDropped):
    """The node's bounded queue of proposals is full. Nothing was sent; slow down and retry."""


class ReadFailed(ConsensusError):
    """A linearizable read could not be confirmed in time. Reads change nothing: retry freely."""


class Unsupported(ConsensusError):
    """This engine does not have the capability that was asked for (see ``Engine.capabilities``)."""


class Halted(ConsensusError):
    """The node stopped: its machine or its storage failed, and going on could break a promise."""


class Removed(Halted):
    """This member was removed from its group, for good. Its data directory is of no more use."""


class Stopped(ConsensusError):
    """The node was stopped on purpose while the call waited."""


class StorageError(ConsensusError):
    """A data directory cannot be used: locked, of another cluster, damaged, or unreadable."""


class DataDamaged(StorageError):
    """What was once safe on disk cannot be read any more, or is gone. Never repaired in silence."""


class SnapshotRefused(ConsensusError):
    """A member does not take this stream of a snapshot. The text says why."""


class ConfigError(ConsensusError):
    """A setting is wrong. The text names the setting, the value, and what would be right."""


class FeatureUnavailable(ProposalDropped):
    """A member of the group is too old for this command, or has not said what it knows yet."""


class BadTransferTarget(ConsensusError):
    """The member that should take over leadership is not another voter. Nothing was changed."""


class ChangeUnderWay(ProposalDropped):
    """Another change of members is not finished, or the leader is too new. Retry freely."""


class ChangeRefused(ConsensusError):
    """The change of members makes no sense, or is not safe now. Nothing was changed."""


class MemberExists(ChangeRefused):
    """A member with this id is in the group already."""


class AddressTaken(ChangeRefused):
    """Another member has this address."""


class UnknownMember(ChangeRefused):
    """No member of the group has this id."""


class MemberWasRemoved(UnknownMember):
    """This id was removed from the group. Ids are never used again."""


class NotLearner(ChangeRefused):
    """The member that should be promoted votes already."""


class LearnerNotReady(ChangeRefused):
    """The learner's log is too far behind the leader's to let it vote. Retry when it caught up."""


class TooManyLearners(ChangeRefused):
    """The group has as many learners as its members allow."""


class NotEnoughStarted(ChangeRefused):
    """Too few voters of the group as it would be then have ever been heard of by the leader."""


class GroupUnhealthy(ChangeRefused):
    """Voters are out of reach now, and the change could cost the group its majority."""
