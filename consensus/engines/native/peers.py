"""Whom a member dials, and what peers say when they meet.

Peers follow the configurations: whoever is in one that may count is dialled; who left is let go a
little later, so that the news of it can still reach it. A peer that introduces itself and is not
known here (a leader that this log has not heard of yet) is dialled as well, or nobody could ever
answer it.

A member learns that it was removed from its own log, or by being refused: members refuse by name
whoever a committed change has removed, and ids are never used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from consensus.raft.configuration import Configuration
from consensus.raft.core import Core
from consensus.raft.membership import configuration_at
from consensus.transport.tcp import TcpTransport
from consensus.types import Member, NodeId

log = structlog.get_logger(__name__)

FAREWELL_S: Final = 1.0
"""Seconds that a member which left is still sent to, so that it learns of it."""

LINGER_S: Final = 0.2
"""Seconds that a removed member stays: what was sent to it before it left may yet arrive."""

VISITORS_MAX: Final = 16
"""Peers dialled that no configuration here names. The oldest makes room for one more."""


class Peers:
    """The other members, as one member's transport needs them.

    Args:
        core: this member's core.
        transport: its connections.
        contacts: addresses to begin with, for a member that is in no configuration yet, and for
            members whose address no configuration gives.
        dial: where to reach a peer, by its own address, where that is elsewhere.
        feature_level: what this member's program knows.
        wake: has the driver pumped soon.
        removed: called, perhaps more than once, when this member was removed from the group.
    """

    def __init__(
        self,
        core: Core,
        transport: TcpTransport,
        contacts: Mapping[NodeId, str],
        dial: Mapping[str, str],
        feature_level: int,
        wake: Callable[[], None],
        removed: Callable[[], None],
    ) -> None:
        self._core = core
        self._transport = transport
        self._dial = dial
        self._contacts = contacts
        self._wake = wake
        self._removed = removed
        self._members: tuple[Configuration, tuple[Member, ...]] = (Configuration(), ())
        self._followed: tuple[int, Configuration] | None = None
        self._dialled: dict[NodeId, str] = {}
        self._visitors: dict[NodeId, None] = {}
        self._feature_levels = {core.node_id: feature_level}
        self._lingers: asyncio.TimerHandle | None = None

    @property
    def feature_level(self) -> int:
        """The least level that a member of the configuration in force has declared."""
        levels = self._feature_levels
        return min((levels.get(node, 0) for node in self._core.configuration.members), default=0)

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of the configuration in force."""
        configuration = self._core.configuration
        if self._members[0] is not configuration:
            members = []
            for node in configuration.members:
                peer = configuration.peer(node)
                learner = not configuration.is_voter(node)
                members.append(Member(node, peer.address, learner, peer.context))
            self._members = (configuration, tuple(members))
        return self._members[1]

    def pumped(self) -> None:
        """Something happened: dial whoever the configurations in the log name now."""
        core = self._core
        if self._followed is not core.configurations[-1]:
            self._followed = core.configurations[-1]
            self._follow()
        if self._lingers is None and self.was_removed(core.node_id):
            self._lingers = asyncio.get_running_loop().call_later(LINGER_S, self._removed)

    def stop(self) -> None:
        """This member takes no further part: it dials nobody any more."""
        if self._lingers is not None:
            self._lingers.cancel()
        for node in (*self._dialled, *self._visitors):
            self._transport.remove_peer(node)

    # -- what the transport asks and tells ----------------------------------------------------

    def was_removed(self, node: NodeId) -> bool:
        """Whether a change that is committed, as far as is known here, has removed this node."""
        core = self._core
        return core.configuration.has_left(node) and (
            configuration_at(core, core.commit_index).has_left(node)
        )

    def met(self, node: NodeId, address: str, feature_level: int) -> None:
        """A peer has introduced itself."""
        self._feature_levels[node] = feature_level
        if self._transport.knows(node) or not address:
            return
        if len(self._visitors) >= VISITORS_MAX:
            oldest = next(iter(self._visitors))
            self._forget_visitor(oldest)
            self._transport.remove_peer(oldest)
        self._visitors[node] = None
        self._transport.add_peer(node, self._dial.get(address, address))

    def connected(self, peer: NodeId) -> None:
        """A peer can be sent to now: a leader does so at once."""
        self._core.reconnected(peer)
        self._wake()

    def refused_as_removed(self, peer: NodeId, reason: str) -> None:
        """A peer knows that this member is of the group no more."""
        log.info("refused by a peer", peer=peer, reason=reason)
        self._removed()

    # -- inside -------------------------------------------------------------------------------

    def _follow(self) -> None:
        wanted = self._wanted()
        for node, address in wanted.items():
            self._visitors.pop(node, None)
            if self._dialled.get(node) != address:
                self._dialled[node] = address
                self._transport.add_peer(node, self._dial.get(address, address))
        for node in self._dialled.keys() - wanted.keys():
            asyncio.get_running_loop().call_later(FAREWELL_S, self._let_go, node)

    def _wanted(self) -> dict[NodeId, str]:
        core = self._core
        wanted: dict[NodeId, str] = {}
        joining = core.node_id not in core.configuration.members
        wanted.update(
            (node, address)
            for node, address in self._contacts.items()
            if joining or node in core.configuration.members
        )
        for _, configuration in core.configurations:
            wanted.update((peer.id, peer.address) for peer in configuration.peers)
        for node in (core.node_id, *core.configuration.removed):
            if node == core.node_id or self.was_removed(node):
                wanted.pop(node, None)
        return wanted

    def _let_go(self, node: NodeId) -> None:
        if node in self._dialled and node not in self._wanted():
            del self._dialled[node]
            self._feature_levels.pop(node, None)
            self._transport.remove_peer(node)

    def _forget_visitor(self, node: NodeId) -> None:
        del self._visitors[node]
        self._feature_levels.pop(node, None)


def removal_of(node_id: NodeId, directory: Path) -> str:
    """Return what a person must know about a member that was removed from its group."""
    return (
        f"member {node_id} was removed from its group for good; {directory} is of no more use. To "
        "have this machine in the group again, add it as a new member and start it with an empty "
        "directory"
    )
