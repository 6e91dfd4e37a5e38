"""Every setting and every bound of the core, checked once."""

from __future__ import annotations

import attrs

from consensus.errors import ConfigError
from consensus.types import NodeId


@attrs.frozen(slots=True, kw_only=True)
class CoreConfig:
    """How one member's core behaves. Times are in ticks; the driver says what a tick is.

    Args:
        node_id: this member.
        election_timeout_ticks: a follower waits this long, and at random up to twice as long.
        heartbeat_ticks: a leader's rounds of heartbeats are this far apart.
        pre_vote: ask before raising the term (section 9.6).
        early_elections: a member whose leader's connection ended neither waits for its timeout to
            stand for election nor to help another. Rules out lease reads.
        message_bytes_max: data in one AppendEntries; a single larger entry goes alone.
        inflight_messages_max: unanswered AppendEntries to one member.
        inflight_bytes_max: data in them.
        uncommitted_bytes_max: data a leader has appended and not committed; more is refused.
        apply_bytes_max: data handed out to be applied at once.
        learners_max: learners that a group may have at once.
        strict_reconfig_check: refuse changes of members that would make the group depend on members
            which never started or are out of reach (etcd's flag of that name).
    """

    node_id: NodeId
    election_timeout_ticks: int = 10
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    early_elections: bool = False
    message_bytes_max: int = 1 << 20
    inflight_messages_max: int = 64
    inflight_bytes_max: int = 8 << 20
    uncommitted_bytes_max: int = 64 << 20
    apply_bytes_max: int = 4 << 20
    learners_max: int = 1
    strict_reconfig_check: bool = True

    def __attrs_post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not self.node_id:
            raise ConfigError("node_id must not be empty")
        if self.heartbeat_ticks < 1:
            raise ConfigError(f"heartbeat_ticks is {self.heartbeat_ticks}; it must be at least 1")
        if self.election_timeout_ticks <= self.heartbeat_ticks:
            raise ConfigError(
                f"election_timeout_ticks ({self.election_timeout_ticks}) must exceed "
                f"heartbeat_ticks ({self.heartbeat_ticks}), or followers depose live leaders"
            )
        for name in (
            "message_bytes_max",
            "inflight_messages_max",
            "inflight_bytes_max",
            "uncommitted_bytes_max",
            "apply_bytes_max",
            "learners_max",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
