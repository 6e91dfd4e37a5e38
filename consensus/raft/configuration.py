"""Who votes and who only listens, and how that changes (section 4.3, joint consensus).

A configuration is a value. While ``voters_outgoing`` is not empty it is joint: every decision needs
a majority of ``voters`` and one of ``voters_outgoing``. A configuration takes effect when it is
appended to the log, committed or not, and is undone when its entry is truncated (section 4.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import attrs

from consensus.types import NodeId


class InvalidChange(Exception):
    """The change asked for makes no sense for this configuration. The text says why."""


@attrs.frozen(slots=True)
class Configuration:
    """The members of a group. Tuples are sorted, so that equal configurations are equal values.

    Args:
        voters: members whose votes count.
        learners: members that receive the log and never vote.
        voters_outgoing: while a joint change is under way, the voters before it.
        learners_next: outgoing voters that will be learners once the change is done.
    """

    voters: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    voters_outgoing: tuple[NodeId, ...] = ()
    learners_next: tuple[NodeId, ...] = ()

    @classmethod
    def of(cls, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()) -> Configuration:
        """Return a plain configuration with these members."""
        return cls(voters=_sorted(voters), learners=_sorted(learners))

    @property
    def joint(self) -> bool:
        """Whether a change is half done: two majorities are needed."""
        return bool(self.voters_outgoing)

    @property
    def all_voters(self) -> tuple[NodeId, ...]:
        """Everyone whose vote counts in either majority, each once."""
        if not self.voters_outgoing:
            return self.voters
        return _sorted({*self.voters, *self.voters_outgoing})

    @property
    def members(self) -> tuple[NodeId, ...]:
        """Everyone who receives the log, each once."""
        return _sorted({*self.voters, *self.learners, *self.voters_outgoing, *self.learners_next})

    def is_voter(self, node: NodeId) -> bool:
        """Whether this node's vote counts."""
        return node in self.voters or node in self.voters_outgoing

    def change(self, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()) -> Configuration:
        """Return the next configuration on the way to these members.

        One voter more or less is safe in one step (section 4.1, any two majorities overlap);
        anything else goes through a joint configuration.

        Raises:
            InvalidChange: a change is under way, a node would be both, or nobody would vote.
        """
        if self.joint:
            raise InvalidChange("a change of members is already under way")
        new_voters, new_learners = set(voters), set(learners)
        if not new_voters:
            raise InvalidChange("a group needs at least one voter")
        both = new_voters & new_learners
        if both:
            raise InvalidChange(f"both voter and learner: {', '.join(sorted(both))}")
        old_voters = set(self.voters)
        if len(new_voters ^ old_voters) <= 1:
            return Configuration.of(new_voters, new_learners)
        demoted = new_learners & old_voters
        return Configuration(
            voters=_sorted(new_voters),
            learners=_sorted(new_learners - demoted),
            voters_outgoing=_sorted(old_voters),
            learners_next=_sorted(demoted),
        )

    def leave_joint(self) -> Configuration:
        """Return the configuration that ends a joint one."""
        return Configuration.of(self.voters, {*self.learners, *self.learners_next})

    def encode(self) -> bytes:
        """Return the bytes of a CONFIGURATION entry. Sorted, so the same on every member."""
        return json.dumps(attrs.asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Configuration:
        """Read what ``encode`` wrote."""
        fields = json.loads(data)
        return cls(**{name: tuple(nodes) for name, nodes in fields.items()})


def _sorted(nodes: Iterable[NodeId]) -> tuple[NodeId, ...]:
    return tuple(sorted(nodes))
