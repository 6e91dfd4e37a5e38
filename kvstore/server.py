"""One kvstore member: everything put together, started and stopped in the right order.

Start: lock the data directory, bind the client ports (a taken one must be told before anything
runs), open the store, start the node, publish this member's name and client URLs through the log
(which proves that the store has everything acknowledged before this start), then serve.

Stop: hand leadership over, end the calls, stop listening, stop the node, commit and close the
store, unlock. In 2 s.
"""

from __future__ import annotations

import asyncio
import gc
import random
import socket
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import structlog

from consensus.certificates import Certificates
from consensus.errors import ConsensusError, DataDamaged, Halted, Removed, StorageError
from consensus.node import Node
from consensus.types import EngineStatus, Role
from kvstore.compactor import AutoCompactor
from kvstore.config import ServerConfig
from kvstore.datadir import DataDirectory
from kvstore.engines import build_engine
from kvstore.errors import Status
from kvstore.http2.acceptor import PROTOCOLS
from kvstore.identity import Identity
from kvstore.joining import identity_for
from kvstore.lastlife import LastLife
from kvstore.lease.expiry import LeaseExpiry
from kvstore.listeners import Listeners, bind_urls
from kvstore.loopmonitor import LoopMonitor
from kvstore.machine import KVStateMachine
from kvstore.metrics import ServerCollector, metrics_page
from kvstore.opening import open_machine
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command, MemberAttributes
from kvstore.rpc.absent import absent_methods
from kvstore.rpc.app import FrontApp
from kvstore.rpc.cluster import ClusterService
from kvstore.rpc.context import ServerContext
from kvstore.rpc.gateway import Gateway
from kvstore.rpc.grpc_asgi import GrpcApp
from kvstore.rpc.health import HealthService
from kvstore.rpc.http import HttpEndpoints
from kvstore.rpc.kv import KVService
from kvstore.rpc.learners import refusing_learners
from kvstore.rpc.lease import LeaseService
from kvstore.rpc.maintenance import MaintenanceService
from kvstore.rpc.outcomes import status_of
from kvstore.rpc.registry import Registry
from kvstore.rpc.require_leader import LeaderGuard
from kvstore.rpc.watch import WatchService
from kvstore.scrubber import Scrubber
from kvstore.urls import Url
from kvstore.watch import WatchHub

log = structlog.get_logger(__name__)

TICK_S: Final = 0.01
"""How often the store is asked whether a commit or a slice of compaction is due."""

PUBLISH_TIMEOUT_S: Final = 5.0
RETRY_S: Final = 0.05
HAND_OVER_S: Final = 0.3
"""How long a leader that stops waits for another to take over; after that there is an election."""

PATIENCE_S: Final = 3.0
"""After so many seconds of a start a person is told what it waits for."""

GC_THRESHOLDS: Final = (50_000, 50, 1_000)
"""Collections of young garbage stay short, and full ones rare: objects of a request die young."""


class Server:
    """One member of a kvstore cluster, in the running event loop.

    Args:
        config: its settings.
        notes_crashes: whether what ends the whole process by a fault is noted in the data
            directory, and looked for there; for a process that runs nothing else.
    """

    def __init__(self, config: ServerConfig, *, notes_crashes: bool = False) -> None:
        self.config = config
        self._notes_crashes = notes_crashes
        self._last_life: LastLife | None = None
        self.identity: Identity
        self.monitor = LoopMonitor()
        self.leader_guard = LeaderGuard(config.election_timeout_ms / 1000)
        self.node: Node
        self.machine: KVStateMachine
        self.context: ServerContext
        self.leases: LeaseExpiry
        self.grpc: GrpcApp
        self._collector: ServerCollector
        self.compactor: AutoCompactor | None = None
        self._gateway: Gateway | None = None
        self._directory: DataDirectory | None = None
        self._sockets: list[socket.socket] = []
        self._listeners: list[Listeners] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._tick_timer: asyncio.TimerHandle | None = None
        self._node_started = False

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start, and return when this member serves clients.

        Raises:
            StorageError: the data directory cannot be used.
            ConfigError: an address or a certificate cannot be used.
        """
        config = self.config
        certificates = Certificates(
            peers=config.peer_tls, clients=config.client_tls, client_protocols=PROTOCOLS
        )
        self.identity = await identity_for(config)
        self._directory = DataDirectory(config.data_dir, self.identity, engine=config.engine)
        client_sockets = self._bind(config.client_urls, "listen-client-urls")
        metrics_sockets = self._bind(config.metrics_urls, "listen-metrics-urls")
        if self._notes_crashes:
            self._last_life = LastLife(self._directory.last_life)
        self.machine = await open_machine(config, self._directory.db, self._last_life)
        engine = build_engine(config, self.identity, self._directory.engine, certificates)
        self.node = Node(self.machine, engine, answer=self._answer)
        self.leases = LeaseExpiry(
            self.machine,
            propose=self.node.propose,
            confirm=self.node.read_index,
            election_timeout_s=config.election_timeout_ms / 1000,
        )
        self.machine.lease_listener = self.leases
        self.context = ServerContext(
            self.node,
            self.machine,
            self.identity,
            request_timeout_s=config.request_timeout_s,
            max_request_bytes=config.max_request_bytes,
            max_txn_ops=config.max_txn_ops,
        )
        client_app, metrics_app = self._build_apps()
        self._node_started = True
        await self.node.start()
        self._spawn(self._follow_status(), "status")
        self._spawn(self.leases.run(), "lease expiry")
        self._spawn(certificates.run(), "certificates")
        self._tick()
        await self._publish()
        for app, sockets in ((client_app, client_sockets), (metrics_app, metrics_sockets)):
            if sockets:
                listeners = Listeners(
                    app,
                    [bound for url, bound in sockets if url.scheme != "https"],
                    [bound for url, bound in sockets if url.scheme == "https"],
                    certificates.clients,
                    max_concurrent_streams=config.max_concurrent_streams,
                    keepalive_interval_s=config.keepalive_interval_s,
                    keepalive_timeout_s=config.keepalive_timeout_s,
                )
                self._listeners.append(listeners)
                await listeners.start()
        self._start_compactor()
        self._spawn(Scrubber(self.machine.scrub_steps, self.node.rebuild).run(), "scrub")
        self._settle_memory()
        self.monitor.start()
        log.info(
            "ready to serve client requests",
            name=config.name,
            member_id=f"{self.identity.member_id:x}",
            cluster_id=f"{self.identity.cluster_id:x}",
            client_urls=[url.text for url in config.client_urls],
            revision=self.machine.store.current_revision,
        )

    async def stop(self) -> None:
        """Stop in order. Safe after a failed start, and twice."""
        if self._node_started:
            await self._hand_over()
        self.monitor.stop()
        self.leader_guard.close()
        if self._gateway is not None:
            self._gateway.close()
        if hasattr(self, "grpc"):
            self.grpc.close()
        await asyncio.gather(*(listeners.stop() for listeners in self._listeners))
        self._listeners.clear()
        for bound in self._sockets:
            bound.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
            self._tick_timer = None
        if self._node_started:
            await self.node.stop()
        elif hasattr(self, "machine"):
            self.machine.close()
        self._node_started = False
        if self._last_life is not None:
            self._last_life.close()
            self._last_life = None
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    async def wait_halted(self) -> str:
        """Wait until the node stops by itself; return why, for a person."""
        return await self.node.wait_halted()

    # -- inside ----------------------------------------------------------------------------------

    def _status_of(self, error: BaseException) -> Status | None:
        """Map a failure to a status; damage that a request has met ends this member's service."""
        if isinstance(error, DataDamaged):
            self.node.rebuild(str(error))
        return status_of(error)

    def _bind(self, urls: Sequence[Url], flag: str) -> list[tuple[Url, socket.socket]]:
        sockets = bind_urls(urls, flag)
        self._sockets.extend(sockets)
        return list(zip(urls, sockets, strict=True))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def _build_apps(self) -> tuple[FrontApp, FrontApp]:
        """Return the applications of the client ports and of the metrics ports."""
        config, context = self.config, self.context
        assert self._directory is not None
        hub = WatchHub(
            self.machine.store, context.header, max_request_bytes=config.max_request_bytes
        )
        self.machine.watch_sink = hub
        watch = WatchService(
            hub, self.leader_guard, progress_interval_s=config.progress_notify_interval_s
        )
        methods = (
            *KVService(context).methods(),
            *watch.methods(),
            *LeaseService(context, self.leader_guard).methods(),
            *ClusterService(context).methods(),
            *MaintenanceService(context, self._directory.db).methods(),
            *HealthService().methods(),
            *absent_methods(),
        )
        registry = Registry(refusing_learners(methods, lambda: context.is_learner))
        self.grpc = GrpcApp(registry, config.max_request_bytes, self._status_of)
        if config.gateway:
            self._gateway = Gateway(registry, config.max_request_bytes, self._status_of)
        self._collector = ServerCollector(context, registry, self.grpc.traffic, self.monitor, hub)
        http = HttpEndpoints(context, metrics_page(self._collector))
        front = FrontApp(
            self.grpc, self._gateway, http, cors=config.cors, hosts=config.host_whitelist
        )
        return front, FrontApp(None, None, http, cors=config.cors, hosts=config.host_whitelist)

    async def _follow_status(self) -> None:
        """Keep the term of response headers, and say who leads."""
        try:
            await self._observe_all()
        except DataDamaged as damage:  # the leases, which a new leader reads
            self.node.rebuild(str(damage))

    async def _observe_all(self) -> None:
        leader: str | None = None
        async for status in self.node.watch_status():
            self.context.observe(status)
            self.leader_guard.observe(status)
            self.leases.observe(status)
            if status.leader != leader:
                leader = status.leader
                self._log_leader(status)

    async def _answer(self, request: bytes) -> bytes:
        """Answer another member's question to the leader."""
        return await self.leases.answer(request)

    def _log_leader(self, status: EngineStatus) -> None:
        if status.leader is None:
            log.warning("lost the leader", term=status.term)
            return
        self._collector.leader_changes += 1
        log.info(
            "leader elected",
            leader=status.leader,
            term=status.term,
            this_member_leads=status.role is Role.LEADER,
        )

    async def _hand_over(self) -> None:
        """Let another member lead, so that the cluster need not notice that this one is gone."""
        try:
            status = self.node.status()
            voters = [each.id for each in status.engine.members if not each.learner]
            if status.halted or status.engine.role is not Role.LEADER or len(voters) < 2:
                return
            voters.remove(status.engine.node_id)
            await self.node.transfer_leadership(random.choice(voters), HAND_OVER_S)
        except ConsensusError as error:
            # Or the engine never started: there was nothing to hand over.
            log.info("leadership was not handed over", reason=str(error))

    def _tick(self) -> None:
        """Let the store commit and compact, and come again."""
        try:
            self.machine.tick()
        except DataDamaged as damage:
            self.node.rebuild(str(damage))
            return
        except StorageError as error:
            self.node.halt(str(error))
            return
        self._tick_timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    async def _publish(self) -> None:
        """Tell all members this one's name and client URLs; return once that is applied here.

        Applying it proves that the store has everything that was acknowledged before this start.
        """
        attributes = MemberAttributes(
            id=self.identity.member_id,
            name=self.config.name,
            client_urls=self.config.advertise_client_urls,
        )
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + PATIENCE_S
        while True:
            try:
                if attributes in self.machine.members():
                    await self.node.read_index(PUBLISH_TIMEOUT_S)
                    if attributes in self.machine.members():
                        return
                await self.node.propose(
                    Command(member_attributes=attributes).SerializeToString(), PUBLISH_TIMEOUT_S
                )
                return
            except ConsensusError as error:
                status = self.node.status()
                if status.halted:
                    raise (Removed if status.removed else Halted)(status.halted) from error
                if loop.time() > patience_ends:
                    patience_ends = float("inf")
                    log.warning(
                        "waiting for a majority of the members",
                        members=[founder.name for founder in self.identity.founders.values()],
                        reason=str(error),
                    )
            await asyncio.sleep(RETRY_S)

    def _start_compactor(self) -> None:
        if not self.config.auto_compaction.enabled:
            return

        async def compact(revision: int) -> None:
            await self.context.propose(Command(compaction=pb.CompactionRequest(revision=revision)))

        self.compactor = AutoCompactor(
            self.config.auto_compaction,
            revision=lambda: self.machine.store.current_revision,
            leads=lambda: self.node.status().engine.role is Role.LEADER,
            compact=compact,
        )
        self._spawn(self.compactor.run(), "auto compaction")

    def _settle_memory(self) -> None:
        """What start-up made lives until the end: keep the collector from walking it again."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
