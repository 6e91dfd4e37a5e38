"""One simulated cluster: a heap of events, three to five members, one seed.

A run has two phases. In the safety phase faults come as the seed says while clients propose and
read; nothing promised may be broken. Then everything is healed, and in the liveness phase the
cluster must elect, commit, and bring every member to the same state.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from typing import Final

import attrs

from chaos.sim.disk import CrashMode, SimDisk
from chaos.sim.invariants import Promises, Violation, require
from chaos.sim.machine import ModelHost
from consensus.engines.native.driver import Driver
from consensus.errors import ConsensusError, ProposalDropped, StorageError
from consensus.raft.config import CoreConfig
from consensus.raft.configuration import Configuration
from consensus.raft.messages import AnyMessage, InstallSnapshot
from consensus.storage.snapshots import StoredMeta
from consensus.types import Committed, Proposal, ProposalId

TICK_US: Final = 50_000
SEGMENT_BYTES: Final = 16 * 1024
SECOND_US: Final = 1_000_000


@attrs.frozen(slots=True, kw_only=True)
class Options:
    """What a seed turned on, and how much of it. Probabilities are per event of their kind."""

    nodes: int
    durable_machine: bool
    flush_every: int
    snapshot_entries: int
    delay_us: tuple[int, int]
    loss: float
    duplication: float
    reordering: bool
    crash_every_s: float
    crash_modes: tuple[CrashMode, ...]
    crash_all: float
    pause_every_s: float
    cut_every_s: float
    one_way_cuts: bool
    sync_us: tuple[int, int]
    slow_disk_every_s: float
    sync_failure_every_s: float
    transfer_every_s: float
    proposals_per_s: float
    reads_per_s: float

    @classmethod
    def draw(cls, prng: random.Random) -> Options:
        """Draw options as a swarm does: each fault class is on or off for a whole seed."""

        def sometimes(chance: float, low: float, high: float) -> float:
            return prng.uniform(low, high) if prng.random() < chance else 0.0

        slowest = prng.choice((2_000, 20_000, 200_000))
        return cls(
            nodes=prng.choice((1, 3, 3, 3, 5)),
            durable_machine=prng.random() < 0.5,
            flush_every=prng.choice((1, 10, 200)),
            snapshot_entries=prng.choice((20, 200, 100_000)),
            delay_us=(100, slowest),
            loss=sometimes(0.5, 0.0, 0.3),
            duplication=sometimes(0.4, 0.0, 0.2),
            reordering=prng.random() < 0.6,
            crash_every_s=sometimes(0.7, 0.5, 8),
            crash_modes=tuple(mode for mode in CrashMode if prng.random() < 0.6)
            or (CrashMode.LOSE_ALL,),
            crash_all=sometimes(0.4, 0.0, 0.3),
            pause_every_s=sometimes(0.4, 1, 8),
            cut_every_s=sometimes(0.6, 1, 8),
            one_way_cuts=prng.random() < 0.5,
            sync_us=(50, prng.choice((200, 5_000))),
            slow_disk_every_s=sometimes(0.3, 2, 8),
            sync_failure_every_s=sometimes(0.3, 2, 10),
            transfer_every_s=sometimes(0.3, 2, 8),
            proposals_per_s=prng.choice((20.0, 100.0)),
            reads_per_s=prng.choice((5.0, 40.0)),
        )


class _Member:
    """One simulated machine: its disk, its process when it runs, and its own sense of time."""

    def __init__(self, world: World, name: str) -> None:
        options = world.options
        self.name = name
        self.disk = SimDisk(world.stream(f"disk {name}"), self._synced)
        self.log_files = self.disk.directory()
        self.snapshot_files = self.disk.directory()
        self.host = ModelHost(
            name, world, durable=options.durable_machine, flush_every=options.flush_every
        )
        self.driver: Driver | None = None
        self.incarnation = 0
        self.sequence = 0
        self.paused_until = 0
        self.busy_until = 0
        self.slow_until = 0
        self._world = world

    def _synced(self) -> None:
        """A sync takes time: whatever the member does after it happens later."""
        low, high = self._world.options.sync_us
        cost = self._world.disk_prng.randrange(low, high + 1)
        if self._world.now < self.slow_until:
            cost += 300_000
        self.busy_until = max(self.busy_until, self._world.now) + cost


class World:
    """A run of one seed.

    Args:
        seed: decides everything.
        options: what to do, where it is not to be drawn from the seed.
    """

    def __init__(self, seed: int, options: Options | None = None) -> None:
        self.seed = seed
        self.options = options or Options.draw(self.stream("options"))
        self.now = 0
        self.promises = Promises()
        self.events = 0
        self.counts: dict[str, int] = {}
        self.disk_prng = self.stream("disk time")
        self._network_prng = self.stream("network")
        self._fault_prng = self.stream("faults")
        self._client_prng = self.stream("clients")
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._trace = hashlib.sha256()
        self._cuts: set[tuple[str, str]] = set()
        self._faults_on = True
        self._commands = 0
        self._names = [f"n{number}" for number in range(1, self.options.nodes + 1)]
        self.members = {name: _Member(self, name) for name in self._names}
        self._last_delivery: dict[tuple[str, str], int] = {}

    def stream(self, purpose: str) -> random.Random:
        """Return a source of randomness of its own for one purpose, the same in any process."""
        digest = hashlib.sha256(f"{self.seed} {purpose}".encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "big"))

    @property
    def trace_hash(self) -> str:
        """A digest of everything that happened."""
        return self._trace.hexdigest()

    def run(self, seconds: float = 30.0) -> None:
        """Run both phases.

        Raises:
            Violation: a promise was broken; the text says which.
        """
        for name in self._names:
            self._start(name)
        self._schedule_faults()
        self._every(self.options.proposals_per_s, self._client_proposes)
        self._every(self.options.reads_per_s, self._client_reads)
        self._advance(int(seconds * 0.7 * SECOND_US))
        self._heal()
        before = len(self.promises.canonical)
        self._advance(int(seconds * 0.3 * SECOND_US))
        self._check_liveness(before)

    # -- time ---------------------------------------------------------------------------------

    def _at(self, time_us: int, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._heap, (max(time_us, self.now), self._number, event))

    def _every(self, per_second: float, event: Callable[[], None]) -> None:
        """Repeat an event at random moments, this many times a second on average."""
        prng = self._client_prng

        def again() -> None:
            event()
            self._at(self.now + 1 + int(prng.expovariate(per_second) * SECOND_US), again)

        self._at(self.now, again)

    def _advance(self, duration_us: int) -> None:
        end = self.now + duration_us
        while self._heap and self._heap[0][0] <= end:
            self.now, _, event = heapq.heappop(self._heap)
            self.events += 1
            event()
        self.now = end

    def _note(self, *what: object) -> None:
        self._trace.update(repr((self.now, *what)).encode())

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # -- members ------------------------------------------------------------------------------

    def _start(self, name: str) -> None:
        member = self.members[name]
        if member.driver is not None:
            return
        member.incarnation += 1
        member.busy_until = self.now
        config = CoreConfig(
            node_id=name,
            message_bytes_max=2_000,
            inflight_messages_max=8,
            inflight_bytes_max=16_000,
        )
        try:
            member.driver = Driver(
                config,
                member.log_files,
                member.snapshot_files,
                member.host,
                Configuration.of(self._names),
                self.stream(f"core {name} {member.incarnation}"),
                lambda message: self._send(member, message),
                snapshot_entries=self.options.snapshot_entries,
                segment_bytes=SEGMENT_BYTES,
                incarnation=member.incarnation,
                catch_up_entries=min(50, self.options.snapshot_entries),
            )
        except StorageError as error:
            raise Violation(f"{name} refuses to start after a crash: {error}") from error
        self._note("start", name)
        self._count("starts")
        incarnation = member.incarnation
        self._at(self.now + TICK_US, lambda: self._tick(member, incarnation))
        self._pump(member)

    def _crash(self, name: str, mode: CrashMode) -> None:
        member = self.members[name]
        if member.driver is None:
            return
        self._note("crash", name, mode.value)
        self._count(f"crash {mode.value}")
        member.driver = None
        member.disk.crash(mode)
        member.host.crash()
        member.paused_until = 0

    def _tick(self, member: _Member, incarnation: int) -> None:
        if member.driver is None or member.incarnation != incarnation:
            return
        if self._wait_its_turn(member, lambda: self._tick(member, incarnation)):
            return
        member.driver.tick()
        self._pump(member)
        self._at(self.now + TICK_US, lambda: self._tick(member, incarnation))

    def _wait_its_turn(self, member: _Member, event: Callable[[], None]) -> bool:
        """A paused or busy member does things later."""
        ready = max(member.paused_until, member.busy_until)
        if ready <= self.now:
            return False
        self._at(ready, event)
        return True

    def _pump(self, member: _Member) -> None:
        driver = member.driver
        if driver is None:
            return
        try:
            driver.pump()
            if driver.wants_compaction:
                self._compact(member, driver)
        except StorageError:
            self._crash(member.name, CrashMode.LOSE_ALL)
            self._restart_later(member.name)
            return
        require(not member.host.halted, f"{member.name} halted: {member.host.halted}")
        self.promises.observe_core(member.name, member.incarnation, driver.core)

    def _compact(self, member: _Member, driver: Driver) -> None:
        self._count("compactions")
        position = member.host.position()
        if position.index:
            driver.shorten_to_command(position.index)
            return
        for _ in driver.take_snapshot():
            pass

    # -- network ------------------------------------------------------------------------------

    def _send(self, member: _Member, message: AnyMessage) -> None:
        self.promises.observe_sent(message)
        if isinstance(message, InstallSnapshot):
            self._stream_snapshot(member, message)
            return
        prng = self._network_prng
        copies = 1 if prng.random() >= self.options.duplication else 2
        for _ in range(copies):
            if prng.random() >= self.options.loss or not self._faults_on:
                self._deliver_later(member, message)

    def _deliver_later(self, member: _Member, message: AnyMessage) -> None:
        at = max(self.now, member.busy_until) + self._network_prng.randrange(*self.options.delay_us)
        link = (message.sender, message.receiver)
        if not self.options.reordering:
            at = max(at, self._last_delivery.get(link, 0))
            self._last_delivery[link] = at
        self._at(at, lambda: self._receive(message))

    def _receive(self, message: AnyMessage) -> None:
        member = self.members[message.receiver]
        if member.driver is None or (message.sender, message.receiver) in self._cuts:
            return
        if self._wait_its_turn(member, lambda: self._receive(message)):
            return
        self._note(type(message).__name__, message.sender, message.receiver, message.term)
        member.driver.receive(message)
        self._pump(member)

    def _stream_snapshot(self, member: _Member, message: InstallSnapshot) -> None:
        driver = member.driver
        if driver is None:
            return
        self._count("snapshots sent")
        meta, chunks, release = driver.outgoing_snapshot()
        data = list(chunks)
        release()
        at = max(self.now, member.busy_until) + self._network_prng.randrange(*self.options.delay_us)
        incarnation = member.incarnation
        lost = self._network_prng.random() < self.options.loss and self._faults_on

        def arrive() -> None:
            arrived = not lost and self._install(message, meta, data)
            if member.driver is not None and member.incarnation == incarnation:
                member.driver.core.snapshot_reported(message.receiver, arrived=arrived)
                self._pump(member)

        self._at(at, arrive)

    def _install(self, message: InstallSnapshot, meta: StoredMeta, data: list[bytes]) -> bool:
        target = self.members[message.receiver]
        if target.driver is None or (message.sender, message.receiver) in self._cuts:
            return False
        if meta.raft.index <= target.driver.core.commit_index:
            return False
        self._note("snapshot", message.receiver, meta.raft.index)
        try:
            writer = target.driver.snapshots.writer(meta)
            for chunk in data:
                writer.write(chunk)
            writer.finish()
        except OSError:
            self._crash(target.name, CrashMode.LOSE_ALL)
            self._restart_later(target.name)
            return False
        target.driver.receive_snapshot(
            InstallSnapshot(
                sender=message.sender,
                receiver=message.receiver,
                term=message.term,
                snapshot=meta.raft,
            ),
            meta,
        )
        self._pump(target)
        return True

    # -- clients ------------------------------------------------------------------------------

    def _client_proposes(self) -> None:
        member = self.members[self._client_prng.choice(self._names)]
        batch = self._client_prng.choice((1, 1, 1, 5, 20))
        if member.driver is None or max(member.paused_until, member.busy_until) > self.now:
            return
        proposals = []
        for _ in range(batch):
            self._commands += 1
            member.sequence += 1
            identity = ProposalId(
                self._names.index(member.name), member.incarnation, member.sequence
            )
            proposals.append(Proposal(identity, self.now // 1000, f"c{self._commands}".encode()))
        self._note("propose", member.name, batch)
        member.driver.propose(proposals)
        self._pump(member)

    def _client_reads(self) -> None:
        member = self.members[self._client_prng.choice(self._names)]
        if member.driver is None or max(member.paused_until, member.busy_until) > self.now:
            return
        needed = self.promises.highest_acknowledged
        incarnation = member.incarnation

        def done(index: int | None) -> None:
            if index is None or member.incarnation != incarnation:
                return
            self._count("reads")
            self.promises.read_allowed(index, needed, member.name)

        member.driver.read_index(done)
        self._pump(member)

    def applied(self, node: str, item: Committed) -> None:
        """A member applied an entry; if it proposed it in this life, its caller knows now."""
        self.promises.applied(node, item)
        identity = item.proposal.id
        member = self.members[node]
        if self._names[identity.member] == node and identity.incarnation == member.incarnation:
            self.promises.told_applied(identity, item.index)
            self._count("acknowledged")

    def dropped(self, node: str, proposal: ProposalId, error: ConsensusError) -> None:
        """A caller was told that its proposal was dropped, or might have been."""
        if isinstance(error, ProposalDropped):
            self.promises.told_dropped(proposal)
            self._count("dropped")

    # -- faults -------------------------------------------------------------------------------

    def _schedule_faults(self) -> None:
        options = self.options
        self._fault(options.crash_every_s, self._fault_crash)
        self._fault(options.pause_every_s, self._fault_pause)
        self._fault(options.cut_every_s, self._fault_cut)
        self._fault(options.slow_disk_every_s, self._fault_slow_disk)
        self._fault(options.sync_failure_every_s, self._fault_sync_failure)
        self._fault(options.transfer_every_s, self._transfer)

    def _fault(self, every_s: float, inject: Callable[[], None]) -> None:
        if every_s == 0:
            return

        def again() -> None:
            if self._faults_on:
                inject()
                self._at(self.now + self._soon(every_s), again)

        self._at(self.now + self._soon(every_s), again)

    def _soon(self, mean_s: float) -> int:
        return 1 + int(self._fault_prng.expovariate(1 / mean_s) * SECOND_US)

    def _fault_crash(self) -> None:
        prng = self._fault_prng
        names = (
            list(self._names)
            if prng.random() < self.options.crash_all
            else [prng.choice(self._names)]
        )
        mode = prng.choice(self.options.crash_modes)
        for name in names:
            self._crash(name, mode)
            self._restart_later(name)

    def _restart_later(self, name: str) -> None:
        self._at(self.now + self._soon(1.0), lambda: self._start(name))

    def _fault_pause(self) -> None:
        member = self.members[self._fault_prng.choice(self._names)]
        member.paused_until = self.now + self._soon(1.5)
        self._note("pause", member.name)
        self._count("pauses")

    def _fault_cut(self) -> None:
        prng = self._fault_prng
        side = {name for name in self._names if prng.random() < 0.5}
        cuts = set()
        for one in sorted(side):
            for other in self._names:
                if other in side:
                    continue
                if not self.options.one_way_cuts or prng.random() < 0.7:
                    cuts.add((one, other))
                if not self.options.one_way_cuts or prng.random() < 0.7:
                    cuts.add((other, one))
        self._note("cut", sorted(cuts))
        self._count("cuts")
        self._cuts |= cuts

        def heal() -> None:
            self._cuts -= cuts

        self._at(self.now + self._soon(2.0), heal)

    def _fault_slow_disk(self) -> None:
        member = self.members[self._fault_prng.choice(self._names)]
        member.slow_until = self.now + self._soon(1.0)
        self._count("slow disks")

    def _fault_sync_failure(self) -> None:
        self.members[self._fault_prng.choice(self._names)].disk.fail_next_sync = True
        self._count("sync failures")

    def _transfer(self) -> None:
        for member in self.members.values():
            driver = member.driver
            if driver is not None and driver.core.is_leader:
                target = self._fault_prng.choice(self._names)
                if target != member.name:
                    driver.core.transfer_leadership(target)
                    self._count("transfers")
                    self._pump(member)
                return

    def _heal(self) -> None:
        """End every fault; whatever is down comes up."""
        self._faults_on = False
        self._cuts.clear()
        for name in self._names:
            member = self.members[name]
            member.paused_until = 0
            member.slow_until = 0
            member.disk.fail_next_sync = False
            self._start(name)
        self._note("heal")

    def _check_liveness(self, before: int) -> None:
        progress = len(self.promises.canonical) - before
        require(progress > 0, "liveness: nothing was committed after everything was healed")
        self._client_prng = self.stream("quiet")
        newest = max(self.promises.canonical)
        behind = {
            name: member.host.applied.index
            for name, member in self.members.items()
            if member.host.applied.index < newest - 500
        }
        require(not behind, f"liveness: far behind index {newest} after healing: {behind}")
        kept = {self.promises.canonical_of[identity] for identity in self.promises.acknowledged}
        require(
            kept == set(self.promises.acknowledged.values()),
            "an acknowledged command is not where it was acknowledged",
        )
        expected = [
            self.promises.canonical[index][1].decode() for index in sorted(self.promises.canonical)
        ]
        for name, member in self.members.items():
            commands = member.host.commands
            require(
                commands == expected[: len(commands)],
                f"{name} does not hold what was committed",
            )
