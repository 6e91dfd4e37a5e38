"""The links between members: delay, loss, repetition, reordering, cuts, and stalls that burst.

A message is delivered at most seconds after it was sent, or never; what a link does is decided
when the message leaves, except for cuts, which take what would arrive while they last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from chaos.sim.options import SECOND_US
from consensus.raft.messages import AnyMessage
from consensus.types import NodeId

if TYPE_CHECKING:
    from chaos.sim.world import World

LATE_US_MAX: Final = 4 * SECOND_US
"""A late repeat arrives within this time: some elections later."""

Link = tuple[NodeId, NodeId]


class Network:
    """Every link of one world."""

    def __init__(self, world: World) -> None:
        options = world.options
        self._world = world
        self._members = world.members
        self._prng = world.stream("network")
        self._random = self._prng.random
        self._breaks = world.stream("streams that break")
        self._low, high = options.delay_us
        self._span = high - self._low
        self._loss = options.loss
        self._duplication = options.duplication
        self._late = options.late_duplicates
        self._in_order = not options.reordering
        self._last: dict[Link, int] = {}
        self._cuts: dict[Link, int] = {}
        self._stalls: dict[Link, int] = {}

    def send(self, message: AnyMessage, leaves_at: int) -> None:
        """Let a message leave at a time (microseconds)."""
        random = self._random
        if self._loss and random() < self._loss:
            self._world.count("messages lost")
            return
        if self._duplication and random() < self._duplication:
            self._repeat(message, leaves_at)
        arrives = leaves_at + self._low + int(random() * self._span)
        if self._in_order or self._stalls:
            arrives = self._held(message, arrives)
        self._world.at(arrives, self._deliver, message)

    def stream(self, message: AnyMessage, leaves_at: int, arrive: Callable[[float], None]) -> None:
        """Carry a snapshot: ``arrive`` is called once, with the share of it that comes through."""
        link = (message.sender, message.receiver)
        arrives = leaves_at + self._low + int(self._prng.random() * self._span)
        share = 1.0
        if self._prng.random() < self._loss:
            share = self._breaks.random()
        if link in self._cuts:
            share = 0.0
        self._world.at(max(arrives, self._stalls.get(link, 0)), arrive, share)

    def cut(self, links: Iterable[Link]) -> None:
        """Cut links, in the direction given; each cut must be mended once."""
        for link in links:
            self._cuts[link] = self._cuts.get(link, 0) + 1

    def close(self, link: Link) -> None:
        """End a connection: its receiver learns of it, unless the link is cut."""
        member = self._world.members.get(link[1])
        if self._world.options.early_elections and member is not None and link not in self._cuts:
            arrives = self._world.now + self._low + int(self._prng.random() * self._span)
            self._world.at(arrives, member.peer_gone, link[0])

    def mend(self, links: Iterable[Link]) -> None:
        """Undo one ``cut`` of each link."""
        for link in links:
            left = self._cuts.get(link, 0) - 1
            if left > 0:
                self._cuts[link] = left
            else:
                self._cuts.pop(link, None)

    def stall(self, links: Iterable[Link], until: int) -> None:
        """Hold what is sent on these links, and deliver all of it at one moment."""
        for link in links:
            self._stalls[link] = until

    def heal(self) -> None:
        """Make every link whole, and keep it so."""
        self._cuts.clear()
        self._stalls.clear()
        self._last.clear()
        self._loss = self._duplication = 0.0

    def _repeat(self, message: AnyMessage, leaves_at: int) -> None:
        late = self._late and self._prng.random() < 0.3
        self._world.count("late repeats" if late else "messages repeated")
        span = LATE_US_MAX if late else self._span
        arrives = leaves_at + self._low + int(self._prng.random() * span)
        self._world.at(arrives, self._deliver, message)

    def _held(self, message: AnyMessage, arrives: int) -> int:
        link = (message.sender, message.receiver)
        until = self._stalls.get(link, 0)
        if until > arrives:
            self._world.count("messages stalled")
            arrives = until
        if self._in_order:
            arrives = self._last[link] = max(arrives, self._last.get(link, 0))
        return arrives

    def _deliver(self, message: AnyMessage) -> None:
        if self._cuts and (message.sender, message.receiver) in self._cuts:
            self._world.count("messages cut off")
            return
        member = self._members.get(message.receiver)
        if member is not None:
            member.receive(message)
