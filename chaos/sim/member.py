"""One simulated machine: its disk, its process while it runs, and its own sense of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from chaos.sim import audit
from chaos.sim.disk import CrashMode, SimDisk, SimulatedCrash
from chaos.sim.invariants import Violation, Vote
from chaos.sim.machine import ModelHost
from chaos.sim.streams import Streams
from consensus.engines.native.driver import Driver
from consensus.errors import ConsensusError, ProposalDropped, StorageError
from consensus.raft.config import CoreConfig
from consensus.raft.configuration import Configuration
from consensus.raft.messages import (
    AnyMessage,
    AppendEntriesResponse,
    InstallSnapshot,
    RequestVote,
    RequestVoteResponse,
)
from consensus.types import Committed, NodeId, Position, Proposal, ProposalId, Role

if TYPE_CHECKING:
    from chaos.sim.world import World

SEGMENT_BYTES: Final = 16 * 1024
EPOCH_MS: Final = 1_700_000_000_000
"""What a wall clock says when a run begins."""
EARLY_SPREAD_S: Final = 0.02
"""Mean time from the end of a leader's connection to an election."""
SLICE_US: Final = 2_000
"""Between two slices of a restore."""
AUDIT_EVERY: Final = 8
"""One acknowledgement, and one commit of a leader, in so many is compared with the disks."""


class Member:
    """A machine that a process starts and dies on.

    Args:
        world: where it lives.
        name: its name.
        number: stands for the name in proposals.
        bootstrap: what its program is told about the group's first members.
    """

    def __init__(self, world: World, name: str, number: int, bootstrap: Configuration) -> None:
        options = world.options
        self.name = name
        self.number = number
        self.world = world
        self.disk = SimDisk(
            world.stream(f"disk {name}"),
            self._synced,
            self.burn,
            world.count,
            options.sector_bytes,
        )
        self.log_files = self.disk.directory()
        self.snapshot_files = self.disk.directory()
        self.host = ModelHost(
            self,
            durable=options.durable_machine,
            flush_every=options.flush_every,
            operation=self.burn,
        )
        self.driver: Driver | None = None
        self.incarnation = 0
        self.paused_until = 0
        self.busy_until = 0
        self.slow_until = 0
        self.fuse = 0
        self.die_at_sync = False
        self.damaged = False
        self.flipped = False
        self.repairing = False
        self.retired = False
        self.pending: dict[int, bytes] = {}
        self.base_index = 0
        time = world.stream(f"time {name}")
        self.tick_us = int(options.tick_us * (1 + options.drift * (2 * time.random() - 1)))
        self.clock_offset_ms = 0
        self._bootstrap = bootstrap
        self._sequence = 0
        self._deferred: list[tuple[Callable[[Any], None], Any]] = []
        self._wakes_at = 0
        self._observed: tuple[int, int, Role] | None = None
        self._slicing = False
        self._releasing = False
        self.streams = Streams(self)
        self._before: tuple[Vote, int, int] | None = None
        self._audited = 0

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process, if it is down and may run."""
        if self.driver is not None or self.damaged or self.retired:
            return
        world = self.world
        self.incarnation += 1
        self.busy_until = world.now
        self.pending = {}
        self._slicing = False
        self._releasing = False
        self.streams = Streams(self)
        self._observed = None
        self.disk.raised = False
        try:
            self.driver = self._new_driver()
        except SimulatedCrash:
            self.crash(world.faults.crash_mode())
            self.restart_later()
            return
        except StorageError as error:
            self._refused(error)
            return
        world.trace.note(world.now, "start", self.name, self.incarnation)
        world.count("starts")
        if self.driver.damage:
            self._distrusted(self.driver.damage)
        self._check_restart(self.driver)
        self.base_index = self.driver.core.log.snapshot.index
        world.at(world.now + self.tick_us, self._tick, self.incarnation)
        self.pump()

    def _new_driver(self) -> Driver:
        options = self.world.options
        config = CoreConfig(
            node_id=self.name,
            election_timeout_ticks=options.election_timeout_ticks,
            heartbeat_ticks=options.heartbeat_ticks,
            early_elections=options.early_elections,
            message_bytes_max=2_000,
            inflight_messages_max=8,
            inflight_bytes_max=16_000,
            uncommitted_bytes_max=options.uncommitted_bytes_max,
        )
        return Driver(
            config,
            self.log_files,
            self.snapshot_files,
            self.host,
            self._bootstrap,
            self.world.stream(f"core {self.name} {self.incarnation}"),
            self.send,
            snapshot_entries=options.snapshot_entries,
            segment_bytes=SEGMENT_BYTES,
            incarnation=self.incarnation,
            catch_up_entries=min(50, options.snapshot_entries),
        )

    def _distrusted(self, damage: str) -> None:
        """A member that begins to be repaired must have been damaged."""
        if not self.flipped:
            raise Violation(f"{self.name} calls its disk damaged, which it is not: {damage}")
        self.world.count("bit flip detected")
        self.world.trace.note(self.world.now, "damaged", self.name, damage)

    def _refused(self, error: StorageError) -> None:
        """A start that is refused is right only where the disk was made to deserve it."""
        world = self.world
        if self.flipped:
            self.damaged = True
            self.disk.crash(CrashMode.LOSE_ALL)
            self.host.crash()
            world.count("bit flip detected")
            world.trace.note(world.now, "damaged", self.name, str(error))
        elif self.disk.raised:
            self.disk.crash(CrashMode.LOSE_ALL)
            self.host.crash()
            self.restart_later()
        else:
            raise Violation(f"{self.name} refuses to start after a crash: {error}") from error

    def crash(self, mode: CrashMode) -> None:
        """Lose power: the process is gone, and of the disk's cache what ``mode`` says."""
        world = self.world
        world.trace.note(world.now, "crash", self.name, mode.value)
        world.count(f"crash {mode.value}")
        if self.driver is not None:
            self._remember(self.driver)
        self.driver = None
        self.fuse = 0
        self.die_at_sync = False
        self.disk.crash(mode)
        self.host.crash()
        self.paused_until = 0
        for other in world.reachable:
            if other is not self:
                world.network.close((self.name, other.name))

    def restart_later(self) -> None:
        """Start again after a while."""
        self.world.at(
            self.world.now + self.world.faults.soon(self.world.options.restart_s),
            self._restart,
            None,
        )

    def _restart(self, _: None) -> None:
        self.start()

    def burn(self) -> None:
        """One more operation of this process; the fuse may end here."""
        if self.fuse:
            self.fuse -= 1
            if not self.fuse:
                self.world.count("crash inside")
                raise SimulatedCrash

    def _remember(self, driver: Driver) -> None:
        """Note what was certainly promised when the process died between two events."""
        core = driver.core
        index = core.log.persisted_index
        term = core.log.term_at(index) or 0
        self._before = (Vote(core.term, core.voted_for), index, term)

    def _check_restart(self, driver: Driver) -> None:
        before, self._before = self._before, None
        if before is None:
            return
        vote, index, term = before
        core = driver.core
        self.world.promises.observe_restart(self.name, core, vote)
        lost = not core.lost_term and not core.log.has(index, term)
        if lost and index > core.log.snapshot.index:
            raise Violation(
                f"{self.name} had entry {index} of term {term} on disk and came back without it"
            )

    # -- work ---------------------------------------------------------------------------------

    def _tick(self, incarnation: int) -> None:
        if self.driver is None or self.incarnation != incarnation:
            return
        world = self.world
        if self.paused_until > world.now or self.busy_until > world.now:
            self._defer(self._tick, incarnation)
            return
        self.driver.tick()
        self.pump()
        world.at(world.now + self.tick_us, self._tick, incarnation)

    def _defer(self, action: Callable[[Any], None], argument: Any) -> None:
        """Put something off until this member gets to it."""
        self._deferred.append((action, argument))
        until = max(self.paused_until, self.busy_until)
        if self._wakes_at <= self.world.now:
            self._wakes_at = until
            self.world.at(until, self.wake, None)

    def wake(self, _: None = None) -> None:
        """Do what was put off; what finds this member busy again is put off again."""
        self._wakes_at = 0
        deferred, self._deferred = self._deferred, []
        for action, argument in deferred:
            action(argument)

    def receive(self, message: AnyMessage) -> None:
        """Take in a message, now or when this member gets to it."""
        driver = self.driver
        if driver is None:
            return
        world = self.world
        now = world.now
        if self.paused_until > now or self.busy_until > now:
            self._defer(self.receive, message)
            return
        world.trace.message(now, message)
        driver.receive(message)
        self.pump()

    def pump(self) -> None:
        """Let the driver do all that it has to, and look at what came of it."""
        driver, world = self.driver, self.world
        if driver is None:
            return
        try:
            driver.pump()
        except (SimulatedCrash, StorageError) as end:
            self._ended(end)
            return
        if self.host.halted:
            raise Violation(f"{self.name} halted: {self.host.halted}")
        if driver.restoring and not self._slicing:
            self._slicing = True
            world.at(world.now + SLICE_US, self._restore_slice, self.incarnation)
        if driver.holds_proposals and not self._releasing:
            self._releasing = True
            at = world.now + world.options.gather_us
            world.at(at, self._release_proposals, self.incarnation)
        core = driver.core
        if self.repairing and not core.lost_term:
            world.count("repairs")
        self.repairing = core.lost_term > 0
        observed = (core.commit_index, core.term, core.role)
        if observed != self._observed:
            before, self._observed = self._observed, observed
            self._news(driver, before, observed)
            if driver.wants_compaction:
                self.guarded(self._compact, driver)

    def _release_proposals(self, incarnation: int) -> None:
        """What the leader held back has waited long enough."""
        driver = self.driver
        if driver is None or self.incarnation != incarnation:
            return
        world = self.world
        ready = max(self.paused_until, self.busy_until)
        if ready > world.now:
            world.at(ready, self._release_proposals, incarnation)
            return
        self._releasing = False
        if driver.holds_proposals:
            world.count("proposals held back")
            driver.release_proposals()
            self.pump()

    def _restore_slice(self, incarnation: int) -> None:
        """One slice of a restore, when this member gets to it; then the next."""
        driver = self.driver
        if driver is None or self.incarnation != incarnation:
            return
        world = self.world
        ready = max(self.paused_until, self.busy_until)
        if ready > world.now:
            world.at(ready, self._restore_slice, incarnation)
            return
        self._slicing = False
        world.count("restore slices")
        self.guarded(_one_slice, driver)
        self.pump()

    def peer_gone(self, peer: NodeId) -> None:
        """The connection from another member ended; if it led, stand after a little while."""
        driver = self.driver
        if driver is None or self.paused_until > self.world.now:
            return
        if driver.core.leader_gone(peer):
            self.world.count("leaders gone")
            self.world.trace.note(self.world.now, "gone", peer, self.name)
            pause = self.world.faults.soon(EARLY_SPREAD_S)
            self.world.at(self.world.now + pause, self._stand, (self.incarnation, driver.core.term))

    def _stand(self, asked: tuple[int, int]) -> None:
        driver = self.driver
        if driver is None or asked != (self.incarnation, driver.core.term):
            return
        if driver.core.leader is None and self.paused_until <= self.world.now:
            driver.core.campaign()
            self.pump()

    def guarded(self, work: Callable[[Driver], None], driver: Driver) -> None:
        """Do something that may end this process: a failing disk, or a crash in the middle."""
        try:
            work(driver)
        except (SimulatedCrash, StorageError) as end:
            self._ended(end)

    def _ended(self, end: SimulatedCrash | StorageError) -> None:
        """The process is gone. What was under way is neither promised nor not."""
        if isinstance(end, SimulatedCrash):
            self._crash_inside(self.world.faults.crash_mode())
        else:
            self.world.trace.note(self.world.now, "stop", self.name, str(end))
            self.world.count("stopped by its disk")
            self._crash_inside(CrashMode.LOSE_ALL)

    def _crash_inside(self, mode: CrashMode) -> None:
        self.driver = None
        self.crash(mode)
        self.base_index = audit.read_log(self.log_files).base_index
        self.restart_later()

    def _news(
        self,
        driver: Driver,
        before: tuple[int, int, Role] | None,
        observed: tuple[int, int, Role],
    ) -> None:
        world = self.world
        core = driver.core
        world.promises.observe_core(self.name, self.incarnation, core)
        if before is None or before[1:] != observed[1:]:
            world.trace.note(world.now, "role", self.name, observed[2].value, observed[1])
            if observed[2] is Role.LEADER:
                world.count("elections won")
        if observed[2] is Role.LEADER and before is not None and before[0] != observed[0]:
            self._audited += 1
            if self._audited % AUDIT_EVERY == 0:
                audit.check_committed(self.name, core, world.disks_before(core.commit_index))

    def _compact(self, driver: Driver) -> None:
        position = self.host.position()
        if position.index:
            driver.shorten_to_command(position.index)
        else:
            for _ in driver.take_snapshot():
                pass
        if driver.core.log.snapshot.index != self.base_index:
            self.base_index = driver.core.log.snapshot.index
            self.world.count("compactions")

    def _synced(self) -> None:
        """A sync takes time: whatever the member does after it happens later."""
        world = self.world
        if self.die_at_sync:
            world.count("crash inside")
            raise SimulatedCrash
        low, high = world.options.sync_us
        cost = low + int(world.disk_prng.random() * (high - low))
        if world.now < self.slow_until:
            cost += world.options.slow_sync_us
            world.count("slow sync")
        self.busy_until = max(self.busy_until, world.now) + cost

    # -- messages -----------------------------------------------------------------------------

    def send(self, message: AnyMessage) -> None:
        """Called by the driver: a message leaves once what was synced before it is done."""
        if self.fuse:
            self.burn()
        world = self.world
        kind = type(message)
        if kind is AppendEntriesResponse or kind is RequestVoteResponse or kind is RequestVote:
            self._check_promise(message)
        elif isinstance(message, InstallSnapshot):
            self.streams.send(message)
            return
        now = world.now
        world.network.send(message, self.busy_until if self.busy_until > now else now)

    def _check_promise(self, message: AnyMessage) -> None:
        if isinstance(message, AppendEntriesResponse):
            if message.success:
                self._audited += 1
                if self._audited % AUDIT_EVERY == 0 and self.driver is not None:
                    audit.check_acknowledged(
                        self.name, self.driver.core, self.log_files, message.match_index
                    )
            return
        if isinstance(message, RequestVote):
            candidate = self.name
        elif isinstance(message, RequestVoteResponse) and message.granted:
            candidate = message.receiver
        else:
            return
        self.world.promises.observe_vote(self.name, message.term, candidate)
        audit.check_vote_durable(self.name, self.log_files, message.term, candidate)

    # -- clients ------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether a client can reach a process that does something now."""
        now = self.world.now
        return self.driver is not None and self.paused_until <= now and self.busy_until <= now

    def propose(self, commands: Sequence[bytes]) -> None:
        """A client's call with some commands, each proposed under an identity of its own."""
        driver = self.driver
        if driver is None:
            return
        clock_ms = EPOCH_MS + self.world.now // 1000 + self.clock_offset_ms
        proposals = []
        for command in commands:
            self._sequence += 1
            self.pending[self._sequence] = command
            identity = ProposalId(self.number, self.incarnation, self._sequence)
            proposals.append(Proposal(identity, clock_ms, command))
        self.world.trace.note(self.world.now, "propose", self.name, len(commands))
        self.world.asked()
        driver.propose(proposals)
        self.pump()

    def read(self) -> None:
        """A client's linearizable read: it sees what was acknowledged before it began."""
        driver = self.driver
        if driver is None:
            return
        world = self.world
        needed = world.promises.highest_acknowledged
        incarnation = self.incarnation

        def done(index: int | None) -> None:
            if index is None or self.incarnation != incarnation:
                return
            world.count("reads")
            world.trace.note(world.now, "read", self.name, index, needed)
            world.promises.read_allowed(index, needed, self.name)

        driver.read_index(done)
        self.pump()

    # -- Observer of the host -----------------------------------------------------------------

    def applied(self, batch: Sequence[Committed]) -> None:
        """The machine applied a batch; callers of this life learn that theirs were in it."""
        world = self.world
        world.promises.applied(self.name, batch)
        world.trace.applied(world.now, self.name, batch)
        for item in batch:
            if item.member == self.number and item.incarnation == self.incarnation:
                for index, sequence in enumerate(item.sequences, item.index):
                    if self.pending.pop(sequence, None) is not None:
                        world.acknowledged(index)

    def restored(self, position: Position, commands: Sequence[bytes]) -> None:
        """The machine was replaced."""
        world = self.world
        world.trace.note(world.now, "restored", self.name, position.index, position.term)
        world.promises.restored(self.name, position, commands)

    def dropped(self, proposal: ProposalId, error: ConsensusError) -> None:
        """A caller was told that its proposal was dropped, or might have been."""
        command = self.pending.pop(proposal.sequence, None)
        if proposal.incarnation != self.incarnation or command is None:
            raise Violation(f"{self.name} gave a second outcome to {proposal}: {error!r}")
        if isinstance(error, ProposalDropped):
            self.world.promises.told_dropped(command)
            self.world.count("dropped")
        else:
            self.world.count("unknown")


def _one_slice(driver: Driver) -> None:
    driver.restore_slice()
