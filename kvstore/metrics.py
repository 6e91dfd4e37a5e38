"""The metrics page, under etcd's names for what exists here, so that its dashboards work.

Everything is read when the page is asked for, from plain counters that the parts keep for
themselves: nothing on a request's way pays for labels or locks.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from consensus.stats import DURATION_BOUNDS_S, Durations
from kvstore.errors import Code
from kvstore.loopmonitor import LoopMonitor
from kvstore.quota import DEFAULT_QUOTA_BYTES
from kvstore.rpc.context import ServerContext
from kvstore.rpc.grpc_asgi import Traffic
from kvstore.rpc.registry import Registry
from kvstore.version import CLUSTER_VERSION, ETCD_VERSION
from kvstore.watch import WatchHub

CODE_NAMES: Final = {code: code.name.title().replace("_", "") for code in Code} | {Code.OK: "OK"}
FD_DIRECTORY: Final = Path("/proc/self/fd")


class ServerCollector(Collector):
    """Reads a running member.

    Args:
        context: the member.
        registry: its methods, with their counters.
        traffic: bytes of gRPC.
        monitor: the event loop's gaps.
        hub: its watchers.
    """

    def __init__(
        self,
        context: ServerContext,
        registry: Registry,
        traffic: Traffic,
        monitor: LoopMonitor,
        hub: WatchHub,
    ) -> None:
        self._context = context
        self._registry = registry
        self._traffic = traffic
        self._monitor = monitor
        self._hub = hub
        self.leader_changes = 0
        """Elections whose leader this member came to know."""

    def collect(self) -> Iterable[Metric]:
        """Yield everything as it is now."""
        yield from self._raft()
        yield from self._disk()
        yield from self._peers()
        yield from self._store()
        yield from self._watch()
        yield from self._grpc()
        yield from self._process()

    def _raft(self) -> Iterator[Metric]:
        status = self._context.node.status()
        engine, identity = status.engine, self._context.identity
        leads = engine.leader == engine.node_id
        yield gauge(
            "etcd_server_has_leader",
            "Whether or not a leader exists. 1 is existence, 0 is not.",
            engine.leader is not None,
        )
        yield gauge("etcd_server_is_leader", "Whether or not this member is a leader.", leads)
        yield gauge(
            "etcd_server_is_learner",
            "Whether or not this member is a learner.",
            self._context.is_learner,
        )
        yield gauge(
            "etcd_server_learner_promote_successes",
            "The total number of successful learner promotions while this member is leader.",
            self._context.learners_promoted,
        )
        yield counter(
            "etcd_server_leader_changes_seen",
            "The number of leader changes seen.",
            self.leader_changes,
        )
        # etcd has these three as gauges or counters without the suffix that OpenMetrics asks for.
        yield gauge(
            "etcd_server_proposals_committed_total",
            "The total number of consensus proposals committed.",
            engine.commit_index,
        )
        yield gauge(
            "etcd_server_proposals_applied_total",
            "The total number of consensus proposals applied.",
            status.applied_index,
        )
        yield gauge(
            "etcd_server_proposals_pending",
            "The current number of pending proposals to commit.",
            status.pending_proposals,
        )
        yield counter(
            "etcd_server_proposals_failed",
            "The total number of failed proposals seen.",
            self._context.proposals_failed,
        )
        yield labelled(
            "etcd_server_id",
            "Server or member ID in hexadecimal format. 1 for 'server_id'.",
            {"server_id": f"{identity.member_id:x}"},
        )
        yield labelled(
            "etcd_server_version",
            "Which version is running. 1 for 'server_version' label with current version.",
            {"server_version": ETCD_VERSION},
        )
        yield labelled(
            "etcd_cluster_version",
            "Which version is running. 1 for 'cluster_version' label with current cluster version",
            {"cluster_version": CLUSTER_VERSION},
        )

    def _disk(self) -> Iterator[Metric]:
        syncs = self._context.node.engine.stats().log_syncs
        if syncs is not None:
            yield histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL.",
                syncs,
            )
        yield histogram(
            "etcd_disk_backend_commit_duration_seconds",
            "The latency distributions of commit called by backend.",
            self._context.machine.commits,
        )

    def _peers(self) -> Iterator[Metric]:
        sent = CounterMetricFamily(
            "etcd_network_peer_sent_bytes",
            "The total number of bytes sent to peers.",
            labels=["To"],
        )
        failed = CounterMetricFamily(
            "etcd_network_peer_sent_failures",
            "The total number of send failures to peers.",
            labels=["To"],
        )
        received = CounterMetricFamily(
            "etcd_network_peer_received_bytes",
            "The total number of bytes received from peers.",
            labels=["From"],
        )
        for node, traffic in self._context.node.engine.stats().peers.items():
            sent.add_metric([node], traffic.sent_bytes)
            failed.add_metric([node], traffic.send_failures)
            received.add_metric([node], traffic.received_bytes)
        yield from (sent, failed, received)

    def _store(self) -> Iterator[Metric]:
        machine = self._context.machine
        yield gauge(
            "etcd_server_quota_backend_bytes",
            "Current backend storage quota size in bytes.",
            machine.quota_bytes or DEFAULT_QUOTA_BYTES,
        )
        yield gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Total size of the underlying database physically allocated in bytes.",
            machine.db_size,
        )
        yield gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Total size of the underlying database logically in use in bytes.",
            machine.db_size_in_use,
        )
        yield gauge(
            "etcd_debugging_mvcc_current_revision",
            "The current revision of store.",
            machine.store.current_revision,
        )
        yield gauge(
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction in store.",
            machine.store.compact_revision,
        )

    def _watch(self) -> Iterator[Metric]:
        stats = self._hub.stats
        yield gauge(
            "etcd_debugging_mvcc_watch_stream_total",
            "Total number of watch streams.",
            stats.streams,
        )
        yield gauge(
            "etcd_debugging_mvcc_watcher_total", "Total number of watchers.", stats.watchers
        )
        yield counter(
            "etcd_debugging_mvcc_events",
            "Total number of events sent by this member.",
            stats.events_sent,
        )
        yield counter(
            "raftyard_watchers_fell_behind",
            "How often a watcher was too slow and went over to reading history.",
            stats.fell_behind,
        )

    def _grpc(self) -> Iterator[Metric]:
        names = ["grpc_type", "grpc_service", "grpc_method"]
        started = CounterMetricFamily(
            "grpc_server_started", "Total number of RPCs started on the server.", labels=names
        )
        received = CounterMetricFamily(
            "grpc_server_msg_received",
            "Total number of RPC stream messages received on the server.",
            labels=names,
        )
        sent = CounterMetricFamily(
            "grpc_server_msg_sent",
            "Total number of gRPC stream messages sent by the server.",
            labels=names,
        )
        handled = CounterMetricFamily(
            "grpc_server_handled",
            "Total number of RPCs completed on the server, regardless of success or failure.",
            labels=[*names, "grpc_code"],
        )
        for method in self._registry.methods.values():
            labels = [method.kind.value, method.service, method.name]
            started.add_metric(labels, method.stats.started)
            received.add_metric(labels, method.stats.received)
            sent.add_metric(labels, method.stats.sent)
            for code, count in method.stats.handled.items():
                handled.add_metric([*labels, CODE_NAMES[code]], count)
        yield from (started, received, sent, handled)
        yield counter(
            "etcd_network_client_grpc_received_bytes",
            "The total number of bytes received from grpc clients.",
            self._traffic.received_bytes,
        )
        yield counter(
            "etcd_network_client_grpc_sent_bytes",
            "The total number of bytes sent to grpc clients.",
            self._traffic.sent_bytes,
        )

    def _process(self) -> Iterator[Metric]:
        yield gauge(
            "os_fd_used", "The number of used file descriptors.", len(os.listdir(FD_DIRECTORY))
        )
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield gauge("os_fd_limit", "The file descriptor limit.", limit)
        yield gauge(
            "raftyard_event_loop_gap_seconds",
            "Longest time in the last 30 to 60 s that the event loop was away from its timers.",
            self._monitor.gap_s,
        )
        yield gauge(
            "raftyard_event_loop_gap_max_seconds",
            "Longest time since start that the event loop was away from its timers.",
            self._monitor.gap_max_s,
        )


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return GaugeMetricFamily(name, text, value=float(value))


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter; its sample is named ``name`` + "_total"."""
    return CounterMetricFamily(name, text, value=float(value))


def histogram(name: str, text: str, durations: Durations) -> Metric:
    """Return a histogram of seconds."""
    total, buckets = 0, []
    for bound, count in zip((*DURATION_BOUNDS_S, math.inf), durations.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == math.inf else f"{bound:g}", float(total)))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=durations.sum_s)


def labelled(name: str, text: str, labels: dict[str, str]) -> Metric:
    """Return a gauge of 1 that carries its meaning in a label."""
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), 1.0)
    return family


def metrics_page(collector: Collector) -> Callable[[], tuple[bytes, bytes]]:
    """Return a function that renders the page: (body, content type)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)

    def render() -> tuple[bytes, bytes]:
        return generate_latest(registry), CONTENT_TYPE_LATEST.encode()

    return render
