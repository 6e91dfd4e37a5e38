"""NativeEngine: the asyncio shell around the driver.

It owns what the driver must not: the clock that ticks, the sockets, the tasks that stream
snapshots. Each event (a tick, a message, a proposal) is given to the driver; one ``pump`` at the
end of the turn of the loop does the work of all of them, so that they share a write and a sync.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import structlog

from consensus.engine import Capabilities, Engine, EngineHost
from consensus.engines.native.bootstrap import GROUP_ID, LOG_FILES, directory_identity
from consensus.engines.native.capabilities import CAPABILITIES, FEATURE_LEVEL
from consensus.engines.native.driver import CATCH_UP_ENTRIES, Driver
from consensus.engines.native.early import stand_soon
from consensus.engines.native.gathering import GATHER_S
from consensus.engines.native.membership import MemberChanges
from consensus.engines.native.peers import Peers, removal_of
from consensus.engines.native.questions import Questions
from consensus.engines.native.reads import Reads
from consensus.engines.native.repair import remedy_for
from consensus.engines.native.streams import SnapshotStreams
from consensus.engines.native.upkeep import Upkeep
from consensus.errors import (
    ConfigError,
    DataDamaged,
    NotLeader,
    ProposalDropped,
    ReadFailed,
    Removed,
    Stopped,
    StorageError,
    Unsupported,
)
from consensus.raft.config import CoreConfig
from consensus.raft.configuration import Configuration, InvalidConfiguration
from consensus.raft.invariants import InvariantViolated
from consensus.raft.messages import AnyMessage, InstallSnapshot
from consensus.stats import Durations, EngineStats
from consensus.storage.directory import DataDirectory
from consensus.storage.files import RealFileSystem
from consensus.storage.segments import numbers_in
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import EntryPacker, from_wire, to_wire
from consensus.transport.streams import SnapshotSink
from consensus.transport.tcp import TcpTransport, TransportConfig
from consensus.types import EngineStatus, MemberChange, NodeId, Proposal, Role

log = structlog.get_logger(__name__)

ELECTION_HEARTBEATS_MIN: Final = 5
"""An election timeout lasts at least so many heartbeats, as in etcd: one lost costs no leader."""

LATE_TICKS_MAX: Final = 3
"""Ticks made up for after the loop was held: more would depose a leader for our own pause."""


class NativeEngine(Engine):
    """One member of a group on our own Raft.

    Args:
        node_id: this member's id, one of ``members``.
        members: id to "host:port" of each founding member, the same on all of them; with ``join``,
            of whoever is known. They count at the first start only: then the log has the members.
        directory: where the log and the snapshots are kept.
        cluster: the cluster's name; peers of another one are refused.
        election_timeout_ms: a follower campaigns after this to twice this without a leader.
        heartbeat_interval_ms: the length of a tick, and between a leader's heartbeats.
        snapshot_entries: applied commands after which the log is shortened to as many or fewer.
        dial: where to reach a peer, by its own address, where that is elsewhere (at a proxy).
        listen: where to listen, "host:port", where that is not this member's own address.
        join: begin in no configuration; learn everything from the leader of the group it joins.
        contexts: what the program on top keeps with the founding members, the same on all of them.
        pre_vote: ask before an election whether it can be won.
        strict_reconfig_check: refuse changes that make the group depend on members not seen.
        learners_max: learners that the group may have at once; a setting of whoever leads.
        force_new_cluster: go on as the only member, with everything in this member's log,
            committed or not. For the one that is left of a group which lost its majority for good.
        feature_level: what this member's program knows (see ``Node.propose``).
        tls_server: TLS for what the other members dial; None: plain TCP.
        tls_client: TLS for what this member dials; all members have both, or none has.

    Raises:
        ConfigError: ``node_id`` is not among the members, or a number makes no sense.
    """

    def __init__(
        self,
        node_id: NodeId,
        members: Mapping[NodeId, str],
        directory: Path,
        *,
        cluster: str = "raftyard",
        election_timeout_ms: int = 1000,
        heartbeat_interval_ms: int = 100,
        snapshot_entries: int = 10_000,
        dial: Mapping[str, str] | None = None,
        listen: str | None = None,
        join: bool = False,
        contexts: Mapping[NodeId, bytes] | None = None,
        pre_vote: bool = True,
        strict_reconfig_check: bool = True,
        learners_max: int = 1,
        force_new_cluster: bool = False,
        feature_level: int = FEATURE_LEVEL,
        tls_server: ssl.SSLContext | None = None,
        tls_client: ssl.SSLContext | None = None,
    ) -> None:
        if node_id not in members:
            raise ConfigError(f"{node_id!r} is not among the members: {', '.join(members)}")
        if heartbeat_interval_ms < 1:
            raise ConfigError(f"heartbeat interval {heartbeat_interval_ms} ms must be at least 1")
        if election_timeout_ms < ELECTION_HEARTBEATS_MIN * heartbeat_interval_ms:
            raise ConfigError(
                f"election timeout {election_timeout_ms} ms must be at least "
                f"{ELECTION_HEARTBEATS_MIN} times the heartbeat interval "
                f"({heartbeat_interval_ms} ms)"
            )
        if snapshot_entries < 1:
            raise ConfigError(f"snapshot_entries is {snapshot_entries}; it must be at least 1")
        self._node_id = node_id
        self._addresses = dict(members)
        self._dial = dict(dial or {})
        self._directory = directory
        self._data: DataDirectory | None = None
        self._cluster = cluster
        self._tick_s = heartbeat_interval_ms / 1000
        self._config = CoreConfig(
            node_id=node_id,
            election_timeout_ticks=election_timeout_ms // heartbeat_interval_ms,
            heartbeat_ticks=1,
            pre_vote=pre_vote,
            learners_max=learners_max,
            strict_reconfig_check=strict_reconfig_check,
            early_elections=True,
        )
        self._bootstrap = Configuration() if join else Configuration.founded(members, contexts)
        self._force_new_cluster = force_new_cluster
        self._feature_level = feature_level
        self._snapshot_entries = snapshot_entries
        self._transport = TcpTransport(
            TransportConfig(
                node_id=node_id,
                cluster=cluster,
                listen=listen or members[node_id],
                address=members[node_id],
                feature_level=feature_level,
                tls_server=tls_server,
                tls_client=tls_client,
            ),
            self,
        )
        self._packer = EntryPacker()
        self._host: EngineHost | None = None
        self._driver: Driver | None = None
        self._syncs = Durations()
        self._tasks: set[asyncio.Task[None]] = set()
        self._questions = Questions(self._transport, self._answer)
        self._reads = Reads(self._running, self._wake, self._tick_s)
        self._peers: Peers
        self._changes: MemberChanges
        self._streams: SnapshotStreams
        self._upkeep: Upkeep
        self._pump_handle: asyncio.Handle | None = None
        self._release_handle: asyncio.TimerHandle | None = None
        self._tick_handle: asyncio.TimerHandle | None = None
        self._tick_due = 0.0
        self._status_changed = asyncio.Event()
        self._last_status: tuple[object, ...] = ()
        self._last_view: EngineStatus | None = None
        self._repairing = False

    @property
    def capabilities(self) -> Capabilities:
        """What the native engine promises."""
        return CAPABILITIES

    @property
    def node_id(self) -> NodeId:
        """This member's name."""
        return self._node_id

    # -- life ---------------------------------------------------------------------------------

    async def start(self, host: EngineHost) -> None:
        """Take the data directory, open the log, settle the machine, listen, begin to tick."""
        self._host = host
        try:
            self._data = DataDirectory(
                self._directory,
                directory_identity(self._cluster, self._node_id),
                data=LOG_FILES,
            )
            driver = self._open_driver(host, self._data)
            self._peers = Peers(
                driver.core,
                self._transport,
                self._addresses,
                self._dial,
                self._feature_level,
                self._wake,
                self._removed,
            )
            self._changes = MemberChanges(driver, self._transport, self._tick_s / 4, self._wake)
            self._streams = SnapshotStreams(
                driver, self._transport, self._spawn, self._wake, self._halt
            )
            self._upkeep = Upkeep(driver, host, self._spawn, self._wake, self._halt)
            self._driver = driver
            await self._transport.start(self._peers)
        except BaseException:
            await self.stop()
            raise
        if self._driver.torn_bytes:
            log.info("cut an unfinished record off the log", bytes=self._driver.torn_bytes)
        if self._driver.damage:
            log.error(
                "this member's disk is damaged: the other members bring it up to date, and it does "
                "not vote until then",
                damage=self._driver.damage,
            )
        loop = asyncio.get_running_loop()
        self._tick_due = loop.time() + self._tick_s
        self._tick_handle = loop.call_at(self._tick_due, self._tick)
        if self._driver.core.configuration.voters == (self._node_id,):
            self._driver.core.campaign()
        self._wake()

    def _open_driver(self, host: EngineHost, data: DataDirectory) -> Driver:
        """Open what is on disk, or tell a person what to do about it."""
        try:
            log_files = RealFileSystem(self._directory / "wal", self._syncs)
            if data.incarnation and not numbers_in(log_files):
                raise DataDamaged(f"the log of this member is gone from {log_files.directory}")
            driver = Driver(
                self._config,
                log_files,
                RealFileSystem(self._directory / "snap"),
                host,
                self._bootstrap,
                random.Random(),
                self._send,
                flush=self._transport.flush,
                group_id=GROUP_ID,
                snapshot_entries=self._snapshot_entries,
                catch_up_entries=min(CATCH_UP_ENTRIES, self._snapshot_entries),
                incarnation=data.begin(at_least=int(time.time())),
                distrust=data.distrust,
                alone=self._force_new_cluster,
            )
            data.note_distrust("")
        except DataDamaged as error:
            remedy = remedy_for(self._directory, alone=self._bootstrap.voters == (self._node_id,))
            raise DataDamaged(f"{error}. {remedy}") from error
        except OSError as error:
            raise StorageError(
                f"data directory {self._directory} cannot be used: {error}"
            ) from error
        return driver

    async def stop(self) -> None:
        """Stop, close, and give the data directory back."""
        self._host = None
        for handle in (self._tick_handle, self._pump_handle, self._release_handle):
            if handle is not None:
                handle.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._transport.stop()
        self._questions.stop()
        if self._driver is not None:
            self._peers.stop()
            self._upkeep.stop()
            self._changes.fail(Stopped("the engine was stopped"))
            self._driver.close()
            self._driver = None
        if self._data is not None:
            self._data.close()
            self._data = None

    # -- what the node calls ------------------------------------------------------------------

    def propose(self, proposals: Sequence[Proposal]) -> None:
        """Give proposals to the driver; they share this turn's write."""
        if self._driver is None:
            return
        self._driver.propose(proposals)
        self._wake()

    async def read_index(self, timeout_s: float) -> int:
        """Confirm a read with a round of heartbeats; try again while leadership moves."""
        return await self._reads.index(timeout_s)

    async def ask_leader(self, request: bytes, timeout_s: float) -> bytes:
        """Ask the leader, which confirms with a round of heartbeats before it answers."""
        driver = self._running()
        leader = driver.core.leader
        if leader is None:
            raise NotLeader(None)
        try:
            async with asyncio.timeout(timeout_s):
                if leader == self._node_id:
                    return await self._answer(request, timeout_s)
                return await self._questions.ask(leader, request)
        except TimeoutError:
            raise ReadFailed(f"the leader did not answer in {timeout_s:g} s") from None

    def status(self) -> EngineStatus:
        """Return this member's view; once it has left after a failure, the last one it had."""
        if self._driver is None and self._last_view is not None:
            return self._last_view
        driver = self._running()
        core = driver.core
        return EngineStatus(
            node_id=self._node_id,
            role=core.role,
            term=core.term,
            leader=core.leader,
            commit_index=driver.commit_index,
            log_index=driver.log_index,
            members=self._peers.members,
            has_quorum=core.leader is not None,
            feature_level=self._peers.feature_level,
        )

    async def watch_status(self) -> AsyncIterator[EngineStatus]:
        """Yield the status at each change."""
        while self._driver is not None:
            changed = self._status_changed
            yield self.status()
            await changed.wait()

    def distrust(self, reason: str) -> None:
        """Note that the machine is damaged, if others have what it lost."""
        if len(self._running().core.configuration.all_voters) == 1:
            raise Unsupported(remedy_for(self._directory, alone=True))
        if self._data is not None:
            self._data.note_distrust(reason)

    def stats(self) -> EngineStats:
        """Return how long syncs took, and the traffic with each peer."""
        return EngineStats(self._syncs, self._transport.traffic)

    def compact(self) -> None:
        """Shorten the log soon."""
        if self._driver is not None:
            self._upkeep.compact()

    async def change_membership(self, changes: Sequence[MemberChange], timeout_s: float) -> None:
        """Have the leader change the members; see ``Engine``."""
        self._running()
        await self._changes.change(changes, timeout_s)

    async def transfer_leadership(self, target: NodeId, timeout_s: float) -> None:
        """Hand leadership over and wait until ``target`` leads, or it is clear that it will not."""
        driver = self._running()
        driver.transfer_leadership(target)
        self._wake()
        failed = f"{target} did not take over leadership"
        try:
            async with asyncio.timeout(timeout_s):
                async for status in self.watch_status():
                    if status.leader == target:
                        return
                    if status.role is Role.LEADER:
                        if driver.core.transfer_target != target:
                            raise ProposalDropped(f"{failed}: it was not elected in time")
                    elif status.leader is not None:
                        raise ProposalDropped(f"{failed}: {status.leader} was elected instead")
        except TimeoutError:
            raise ProposalDropped(f"{failed} in {timeout_s:g} s") from None
        raise Stopped("the engine was stopped")

    # -- what the transport calls -------------------------------------------------------------

    def received(self, sender: NodeId, envelope: wire.Envelope) -> None:
        """One message of a peer."""
        driver = self._driver
        if driver is None:
            return
        message = from_wire(envelope, sender, self._node_id)
        if message is not None:
            try:
                driver.receive(message)
            except (InvariantViolated, InvalidConfiguration) as error:
                self._halt(f"a message of {sender} cannot be: {error}")
                return
            self._wake()
            return
        match envelope.WhichOneof("body"):
            case "ask":
                self._spawn(self._questions.asked(sender, envelope.ask, 5 * self._tick_s))
            case "answer":
                self._questions.answered(envelope.answer)
            case "change_members":
                self._changes.received(sender, envelope.term, envelope.change_members)
            case "change_members_response":
                self._changes.answered(envelope.change_members_response)
                self._wake()
            case _:
                pass  # from a newer version: what we do not know we do not need

    def peer_gone(self, peer: NodeId) -> None:
        """A peer's connection ended: if it was the leader's, it probably died."""
        stand_soon(lambda: self._driver, peer, self._tick_s, self._wake)

    def snapshot_incoming(self, sender: NodeId, term: int, header: wire.Snapshot) -> SnapshotSink:
        """A peer begins to send a snapshot."""
        self._running()
        return self._streams.receive(sender, term, header)

    # -- inside -------------------------------------------------------------------------------

    def _running(self) -> Driver:
        if self._driver is None:
            raise Stopped("the engine was stopped")
        return self._driver

    def _wake(self) -> None:
        if self._pump_handle is None and self._driver is not None:
            self._pump_handle = asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        if self._pump_handle is not None:
            self._pump_handle.cancel()
            self._pump_handle = None
        if self._driver is None:
            return
        try:
            self._driver.pump()
            self._peers.pumped()
            self._changes.pumped()
            if self._host is not None and self._host.is_halted():
                self._leave()
                return
            self._upkeep.pumped()
            if self._driver.holds_proposals and self._release_handle is None:
                loop = asyncio.get_running_loop()
                self._release_handle = loop.call_later(GATHER_S, self._release)
        except (StorageError, InvariantViolated) as error:
            self._halt(str(error))
            return
        self._announce()

    def _release(self) -> None:
        self._release_handle = None
        if self._driver is not None and self._driver.holds_proposals:
            self._driver.release_proposals()
            self._wake()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = min(int((now - self._tick_due) / self._tick_s), LATE_TICKS_MAX)
        self._tick_due = max(self._tick_due + self._tick_s, now)
        self._tick_handle = loop.call_at(self._tick_due, self._tick)
        if self._driver is None:
            return
        for _ in range(1 + late):
            self._driver.tick()
        self._wake()

    def _send(self, message: AnyMessage) -> None:
        if isinstance(message, InstallSnapshot):
            self._streams.send(message.receiver)
            return
        self._transport.send(message.receiver, to_wire(message, self._packer))

    async def _answer(self, request: bytes, timeout_s: float) -> bytes:
        if self._host is None:
            raise Stopped("the engine was stopped")
        if not self._running().core.is_leader:
            raise NotLeader(self._running().core.leader)
        if await self._reads.once(timeout_s) is None:
            raise NotLeader(None)
        return await self._host.answer(request)

    def _announce(self) -> None:
        driver = self._driver
        if driver is None:
            return
        core = driver.core
        if self._repairing and not core.repairing:
            log.info("repaired: this member has everything that is committed, and votes again")
        self._repairing = core.repairing
        now = (core.role, core.term, core.leader, core.configuration, core.transfer_target)
        if now != self._last_status:
            if core.role is Role.LEADER and self._last_status[:1] != (Role.LEADER,):
                log.info("became leader", term=core.term)
            self._last_status = now
            self._questions.leads(core.leader)
            self._status_changed.set()
            self._status_changed = asyncio.Event()

    def _halt(self, reason: str) -> None:
        if self._host is not None:
            self._host.halt(reason)
        self._leave()

    def _removed(self) -> None:
        if self._host is None or self._driver is None:
            return
        reason = removal_of(self._node_id, self._directory)
        self._host.removed(reason)
        self._changes.fail(Removed(reason))
        self._leave()

    def _leave(self) -> None:
        """Take no further part: the others must be able to go on without this member."""
        if self._driver is not None:
            self._last_view = attrs.evolve(
                self.status(), role=Role.FOLLOWER, leader=None, has_quorum=False
            )
            self._changes.fail(Stopped("this member takes no part any more"))
            self._peers.stop()
            self._upkeep.stop()
            self._driver.close()
            self._driver = None
        self._status_changed.set()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
