"""Who is in the group: who votes, who only listens, where they are reached, and who has left.

A configuration is a value. While ``voters_outgoing`` is not empty it is joint: every decision needs
a majority of ``voters`` and one of ``voters_outgoing`` (section 4.3). A configuration takes effect
when it is appended to the log, committed or not, and is undone when its entry is truncated
(section 4.1).

Whoever leaves is remembered in ``removed`` for ever: its id is never used again, so nothing that it
says late can be taken for the word of a later member.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from consensus.types import NodeId

CONFIGURATION_VERSION: Final = 1
"""Of the encoding. A program refuses what a newer one has written."""


class InvalidChange(Exception):
    """The change asked for makes no sense for this configuration. The text says why."""


class InvalidConfiguration(Exception):
    """Bytes that are no configuration which this program can read. The text says why."""


@attrs.frozen(slots=True)
class Peer:
    """Where a member is reached ("host:port"), and what the program on top keeps with it."""

    id: NodeId
    address: str
    context: bytes = b""


@attrs.frozen(slots=True)
class Configuration:
    """The members of a group. Tuples are sorted, so that equal configurations are equal values.

    Args:
        voters: members whose votes count.
        learners: members that receive the log and never vote.
        voters_outgoing: while a joint change is under way, the voters before it.
        learners_next: outgoing voters that will be learners once the change is done.
        peers: where members are reached; those without an entry are reached some other way.
        removed: everyone who was a member and is not any more.
    """

    voters: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    voters_outgoing: tuple[NodeId, ...] = ()
    learners_next: tuple[NodeId, ...] = ()
    peers: tuple[Peer, ...] = ()
    removed: tuple[NodeId, ...] = ()

    @classmethod
    def of(
        cls,
        voters: Iterable[NodeId],
        learners: Iterable[NodeId] = (),
        peers: Iterable[Peer] = (),
        removed: Iterable[NodeId] = (),
    ) -> Configuration:
        """Return a plain configuration with these members."""
        return cls(
            voters=_sorted(voters),
            learners=_sorted(learners),
            peers=tuple(sorted(peers, key=lambda peer: peer.id)),
            removed=_sorted(removed),
        )

    @classmethod
    def founded(
        cls, members: Mapping[NodeId, str], contexts: Mapping[NodeId, bytes] | None = None
    ) -> Configuration:
        """Return a group's first configuration: all vote, and are reached at these addresses."""
        kept = contexts or {}
        peers = [Peer(node, address, kept.get(node, b"")) for node, address in members.items()]
        return cls.of(members, peers=peers)

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

    def has_left(self, node: NodeId) -> bool:
        """Whether this node was a member and is not any more."""
        return node in self.removed

    def peer(self, node: NodeId) -> Peer:
        """Return where a member is reached; its address is empty where that is not known here."""
        return next((peer for peer in self.peers if peer.id == node), Peer(node, ""))

    def change(
        self,
        voters: Iterable[NodeId],
        learners: Iterable[NodeId] = (),
        peers: Iterable[Peer] | None = None,
    ) -> Configuration:
        """Return the next configuration on the way to these members.

        One voter more or less is safe in one step (section 4.1, any two majorities overlap);
        anything else goes through a joint configuration. ``peers`` None leaves those as they are.

        Raises:
            InvalidChange: a change is under way, a node would be both, was removed, or nobody would
                vote.
        """
        if self.joint:
            raise InvalidChange("a change of members is already under way")
        new_voters, new_learners = set(voters), set(learners)
        if not new_voters:
            raise InvalidChange("a group needs at least one voter")
        both = new_voters & new_learners
        if both:
            raise InvalidChange(f"both voter and learner: {', '.join(sorted(both))}")
        again = (new_voters | new_learners) & set(self.removed)
        if again:
            raise InvalidChange(f"removed before: {', '.join(sorted(again))}")
        old_voters = set(self.voters)
        known = self.peers if peers is None else tuple(sorted(peers, key=lambda peer: peer.id))
        if len(new_voters ^ old_voters) <= 1:
            return self._followed_by(Configuration.of(new_voters, new_learners, known))
        demoted = new_learners & old_voters
        leaving = [peer for peer in self.peers if peer.id in old_voters - new_voters - demoted]
        joined = {peer.id: peer for peer in (*leaving, *known)}
        return self._followed_by(
            Configuration(
                voters=_sorted(new_voters),
                learners=_sorted(new_learners - demoted),
                voters_outgoing=_sorted(old_voters),
                learners_next=_sorted(demoted),
                peers=tuple(joined[node] for node in sorted(joined)),
            )
        )

    def leave_joint(self) -> Configuration:
        """Return the configuration that ends a joint one."""
        learners = {*self.learners, *self.learners_next}
        return self._followed_by(Configuration.of(self.voters, learners, self.peers))

    def alone(self, node: NodeId) -> Configuration:
        """Return the configuration of ``node`` alone, whoever else was in the group until now."""
        following = self._followed_by(Configuration.of([node], peers=self.peers))
        return attrs.evolve(
            following, removed=tuple(left for left in following.removed if left != node)
        )

    def encode(self) -> bytes:
        """Return the bytes of a CONFIGURATION entry. Sorted, so the same on every member."""
        fields: dict[str, Any] = attrs.asdict(self, recurse=False)
        fields["peers"] = [
            [peer.id, peer.address, base64.b64encode(peer.context).decode()] for peer in self.peers
        ]
        fields["version"] = CONFIGURATION_VERSION
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Configuration:
        """Read what ``encode`` wrote.

        Raises:
            InvalidConfiguration: a newer program wrote it, or it is none.
        """
        try:
            fields = json.loads(data)
            version = fields.pop("version", None)
            if version != CONFIGURATION_VERSION:
                raise InvalidConfiguration(
                    f"the group's configuration has format version {version}; this program reads "
                    f"version {CONFIGURATION_VERSION}. Start this member with the program that the "
                    "others run"
                )
            peers = tuple(
                Peer(node, address, base64.b64decode(context))
                for node, address, context in fields.pop("peers")
            )
            return cls(peers=peers, **{name: tuple(nodes) for name, nodes in fields.items()})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidConfiguration(f"not a configuration of a group: {error}") from error

    def _followed_by(self, following: Configuration) -> Configuration:
        """Return ``following`` with who has left by then, and without where those were reached."""
        members = set(following.members)
        left = (set(self.removed) | set(self.members)) - members
        return attrs.evolve(
            following,
            peers=tuple(peer for peer in following.peers if peer.id in members),
            removed=_sorted(left),
        )


def _sorted(nodes: Iterable[NodeId]) -> tuple[NodeId, ...]:
    return tuple(sorted(nodes))
