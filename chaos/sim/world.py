"""One simulated cluster: a heap of events, one to some members, one seed.

A run has three phases. In the first, faults come as the seed says while clients propose and read;
nothing promised may be broken. Then everything is healed: the cluster must elect and commit within
a bound. At last the clients go quiet, and every member must come to the same state.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from chaos.sim import audit
from chaos.sim.admin import Admin
from chaos.sim.clients import Clients
from chaos.sim.disk import SimFileSystem
from chaos.sim.faults import Faults
from chaos.sim.invariants import Promises, Violation, require
from chaos.sim.member import Member
from chaos.sim.network import Network
from chaos.sim.options import SECOND_US, Options
from chaos.sim.trace import Trace
from consensus.raft.configuration import Configuration
from consensus.types import NodeId

SECONDS: Final = 30.0
FAULTY_SHARE: Final = 0.67
HEALED_SHARE: Final = 0.23
"""Shares of a run; the rest is quiet."""
COMMIT_WITHIN: Final = 12
"""Least election timeouts from healing to the first commit of something new. A round of an
election takes one to two; a split vote costs another."""
EVENTS_MAX: Final = 100_000
EVENTS_PER_S_MAX: Final = 5_000
"""Events in one phase, and as many more for each of its seconds: dozens of times what is usual.
More means that something goes round in circles."""
LOOP: Final = "a loop without end"
"""How the violation ends that says so."""
PULSE_EVENTS: Final = 1_000
"""A run is asked once in so many events whether it is to go on."""
SWEEP_US: Final = SECOND_US // 2
MATCH_EVERY: Final = 6
"""Sweeps between two comparisons of logs."""


def stream_of(seed: int, purpose: str) -> random.Random:
    """Return a seed's source of randomness for one purpose."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


class World:
    """A run of one seed.

    Args:
        seed: decides everything.
        options: what to do, where it is not to be drawn from the seed.
        say: called with a line for a person about everything that happens.
    """

    def __init__(
        self,
        seed: int,
        options: Options | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.options = options or Options.draw(self.stream("options"))
        self.now = 0
        self.events = 0
        self.counts: Counter[str] = Counter()
        self.trace = Trace(say)
        self.promises = Promises()
        self.disk_prng = self.stream("disk time")
        self.members: dict[NodeId, Member] = {}
        self.reachable: list[Member] = []
        self._heap: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._number = 0
        self._sweeps = 0
        self._healed_at = 0
        self._committed_before = 0
        self._asked_after: int | None = None
        self._committed_after: int | None = None
        self.network = Network(self)
        self.faults = Faults(self)
        self.clients = Clients(self)
        self.admin = Admin(self)
        first = Configuration.of(f"n{number}" for number in range(1, self.options.nodes + 1))
        for _ in first.voters:
            self.new_member(first)

    def stream(self, purpose: str) -> random.Random:
        """Return a source of randomness of its own for one purpose, the same in any process."""
        return stream_of(self.seed, purpose)

    def run(self, seconds: float = SECONDS, faulty_s: float | None = None) -> None:
        """Run all phases; ``seconds`` of virtual time.

        Args:
            seconds: virtual time of all phases.
            faulty_s: of the first phase, where that is to be shorter; the others stay as they are.

        Raises:
            Violation: a promise was broken; the text says which. Any other exception is a defect
                of the engine or of the simulator, and as bad.
        """
        length = int(seconds * SECOND_US)
        self.faults.schedule()
        self.clients.schedule()
        self.admin.schedule()
        self.at(SWEEP_US, self._sweep, None)
        faulty, healed = int(length * FAULTY_SHARE), int(length * HEALED_SHARE)
        self.advance(faulty if faulty_s is None else int(faulty_s * SECOND_US))
        self.heal()
        self.advance(healed)
        self.clients.stop()
        self.advance(length - faulty - healed)
        self._check_end()

    # -- time ---------------------------------------------------------------------------------

    def at(self, time_us: int, action: Callable[[Any], None], argument: Any) -> None:
        """Call ``action(argument)`` at a time; events of one time come in the order of asking."""
        self._number += 1
        now = self.now
        heapq.heappush(
            self._heap, (time_us if time_us > now else now, self._number, action, argument)
        )

    def advance(self, duration_us: int) -> None:
        """Let time pass, and everything happen that is due."""
        end = self.now + duration_us
        heap, pop = self._heap, heapq.heappop
        events, most = 0, EVENTS_MAX + EVENTS_PER_S_MAX * duration_us // SECOND_US
        pulse = min(PULSE_EVENTS, most)
        while heap and heap[0][0] <= end:
            self.now, _, action, argument = pop(heap)
            events += 1
            action(argument)
            if events > pulse:
                if events > most:
                    raise Violation(f"more than {most} events in one phase: {LOOP}")
                self.pulse()
                pulse = min(pulse + PULSE_EVENTS, most)
        self.now = end
        self.events += events

    def pulse(self) -> None:
        """Called once in ``PULSE_EVENTS`` events of a phase, however little time passes."""

    def count(self, what: str) -> None:
        """Count something that happened, for the report."""
        self.counts[what] += 1

    # -- members ------------------------------------------------------------------------------

    def new_member(self, bootstrap: Configuration) -> Member:
        """Make a member with an empty disk, and start it."""
        number = len(self.members) + 1
        member = Member(self, f"n{number}", number, bootstrap)
        self.members[member.name] = member
        self.reachable.append(member)
        member.start()
        return member

    def retire(self, member: Member) -> None:
        """End a member's process for good: it was removed from the group."""
        if member.driver is not None:
            member.crash(self.faults.crash_mode())
        member.retired = True
        self.reachable.remove(member)

    def leader(self) -> Member | None:
        """Return the running leader of the highest term, if there is one."""
        leading = [
            (member.driver.core.term, member)
            for member in self.reachable
            if member.driver is not None and member.driver.core.is_leader
        ]
        return max(leading, key=lambda pair: pair[0])[1] if leading else None

    def disks_before(self, index: int) -> dict[NodeId, SimFileSystem]:
        """Return the logs on disk of those members whose logs begin before ``index``."""
        return {
            name: member.log_files
            for name, member in self.members.items()
            if member.base_index < index and not member.flipped
        }

    @property
    def acknowledgements(self) -> int:
        """How many commands callers were told were applied."""
        return self.promises.acknowledged

    def asked(self) -> None:
        """A member was given a proposal: after healing, liveness counts from the first one."""
        if self._healed_at and self._asked_after is None:
            self._asked_after = self.now

    def acknowledged(self, index: int) -> None:
        """A caller was told that its command was applied."""
        self.promises.told_applied(index)
        if self._healed_at and self._committed_after is None and index > self._committed_before:
            self._committed_after = self.now

    # -- phases -------------------------------------------------------------------------------

    def heal(self) -> None:
        """End every fault; whatever is down and may run comes up."""
        self.trace.note(self.now, "heal")
        self._healed_at = self.now
        self._committed_before = len(self.promises.canonical)
        self.faults.stop()
        self.admin.stop()
        self.network.heal()
        for member in list(self.members.values()):
            member.paused_until = 0
            member.slow_until = 0
            member.busy_until = min(member.busy_until, self.now)
            member.fuse = 0
            member.die_at_sync = False
            member.disk.fail_next_sync = False
            member.disk.full = False
            member.start()
            member.wake()
        self.admin.replace_damaged()

    def _sweep(self, _: None) -> None:
        self._sweeps += 1
        self.trace.settle()
        self.admin.sweep()
        if self._sweeps % MATCH_EVERY == 0:
            self._check_logs(audit.MATCH_TAIL)
        self.at(self.now + SWEEP_US, self._sweep, None)

    def _check_logs(self, tail: int | None) -> None:
        audit.check_log_matching(
            [
                (name, member.driver.core.log)
                for name, member in self.members.items()
                if member.driver is not None
            ],
            tail,
        )

    def _check_end(self) -> None:
        timeout_us = self.options.election_timeout_us
        if self._asked_after is None or self._committed_after is None:
            raise Violation("liveness: nothing new was committed after everything was healed")
        took = (self._committed_after - self._asked_after) / timeout_us
        require(
            took <= COMMIT_WITHIN,
            f"liveness: the first commit after healing took {took:.1f} election timeouts",
        )
        _, configuration = self.promises.configuration
        expected = [command for _, command in self.promises.canonical]
        for name in configuration.members:
            member = self.members[name]
            require(not member.damaged, f"liveness: {name} is damaged and was not replaced")
            applied = member.host.applied.index
            require(
                applied == len(expected),
                f"liveness: {name} has applied {applied} of {len(expected)} when all is quiet",
            )
            require(member.host.commands == expected, f"{name} does not hold what was committed")
        for name, member in self.members.items():
            if member.driver is not None and member.pending:
                raise Violation(f"{name} gave no outcome to {len(member.pending)} proposals")
        self._check_logs(None)
        if self.options.audit_disks:
            for name, member in self.members.items():
                if member.driver is not None:
                    audit.check_disk(name, member.driver.core, member.log_files)
