"""Writes the sequence of operations: seeded, weighted, in swarms.

A swarm ("Swarm Testing", Groce et al., 2012) is a stretch of the sequence in which some kinds of
operation are frequent and some never happen; the mix is drawn anew for each. That reaches states
that one even mix never does. The generator learns from the oracle's answers only what is the same
in every run of a seed (revisions, which leases exist, watch ids), so a seed is the whole story.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.differential.operations import (
    CHOSEN_LEASE,
    CLOSE,
    KEEPALIVE,
    WATCH,
    Answer,
    Operation,
    Order,
)
from tests.differential.requests import LEASE_ID_MAX, TTL_SAFE_S, Requests, Shadow

MEMBERS: Final = 3
SWARM_OPERATIONS: Final = 400
TOGETHER_MAX: Final = 12
"""No more operations than this are in flight at once."""

STREAMS_MAX: Final = 5
WATCHERS_PER_STREAM_MAX: Final = 12
REQUEST_BYTES_MAX: Final = 1_572_864
"""etcd's default for --max-request-bytes; gRPC refuses what is 512 KiB larger than that."""

CATCH_UP_OPERATIONS: Final = 400
"""Nothing shows when a watcher of the past with no event to get has caught up (etcd: within 0.1 s).
For so many operations no compaction overtakes it: whether it would be canceled is a matter of luck.
"""

FRAGMENT_VALUE_BYTES: Final = 900_000

WEIGHTS: Final[dict[str, float]] = {
    "range": 30,
    "put": 21,
    "delete": 5,
    "txn": 17,
    "read_txn": 5,
    "crowded_txn": 0.5,
    "compact": 1,
    "grant": 2.5,
    "grant_any_id": 0.5,
    "revoke": 1.5,
    "keepalive": 2,
    "time_to_live": 3,
    "leases": 1,
    "watch": 3.5,
    "cancel": 2,
    "progress": 1.2,
    "close": 0.35,
    "status": 0.4,
    "hash_kv": 0.8,
    "hash": 0.2,
    "member_list": 0.4,
    "alarm_get": 0.4,
}
RARE: Final = ("too_large", "beyond_grpc", "no_space", "corrupt", "fragments", "defragment")
"""Each of these comes once in every swarm, whatever the mix is."""


def only_reads(txn: Any) -> bool:
    """Whether no operation of ``txn`` can write: etcd may then answer from the member's own state.

    A nested txn counts as a write, whatever is in it.
    """
    return all(op.WhichOneof("request") == "request_range" for op in (*txn.success, *txn.failure))


@attrs.define(slots=True)
class StreamShadow:
    """A watch stream that is open: at which member, and which watchers live on it."""

    member: int
    watchers: set[int] = attrs.field(factory=set)


class Generator:
    """An endless sequence of steps; a step is a list of operations that may run together."""

    def __init__(self, seed: int, failing_txn_reads: bool = True) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.shadow = Shadow()
        self.requests = Requests(self.rng, self.shadow, failing_txn_reads)
        self.streams: dict[int, StreamShadow] = {}
        self._chosen_leases = 0
        self.number = 0
        self._streams_opened = 0
        self._kinds: dict[str, float] = {}
        self._catching_up: deque[tuple[int, int]] = deque()
        self._steps = self._sequence()

    def next_step(self) -> list[Operation]:
        """The next operations; the caller answers them and calls ``observe`` for each."""
        return next(self._steps)

    def observe(self, operation: Operation, answer: Answer) -> None:
        """Learn from the oracle's answer what later requests refer to."""
        message = answer.message
        if message is None:
            return
        if operation.method == WATCH:
            self._observe_watch(operation, message)
            return
        shadow = self.shadow
        if message.DESCRIPTOR.fields_by_name.get("header"):
            shadow.revision = max(shadow.revision, message.header.revision)
        match operation.method:
            case "KV.Compact":
                shadow.compacted = max(shadow.compacted, operation.request.revision)
            case "Lease.LeaseGrant":
                if operation.request.ID:
                    shadow.leases.add(operation.request.ID)
                else:
                    self._chosen_leases += 1
            case "Lease.LeaseRevoke":
                shadow.leases.discard(operation.request.ID)

    def _observe_watch(self, operation: Operation, message: Any) -> None:
        stream = self.streams[operation.stream]
        request = operation.request
        if request.HasField("create_request"):
            doomed = 0 < request.create_request.start_revision < self.shadow.compacted
            if not message.canceled and not doomed:
                stream.watchers.add(message.watch_id)
                start = request.create_request.start_revision
                if 0 < start <= message.header.revision:
                    self._catching_up.append((operation.number, start))
        elif request.HasField("cancel_request"):
            stream.watchers.discard(request.cancel_request.watch_id)

    # The sequence

    def _sequence(self) -> Iterator[list[Operation]]:
        while True:
            self._new_swarm()
            rare = {
                self.rng.randrange(1, SWARM_OPERATIONS - 60): name
                for name in self.rng.sample(RARE, len(RARE))
            }
            end = self.number + SWARM_OPERATIONS
            start = self.number
            together: list[Operation] = []
            while self.number < end:
                due = [at for at in rare if at <= self.number - start]
                for at in due:
                    yield from self._flush(together)
                    yield from getattr(self, f"_{rare.pop(at)}")()
                operation = self._draw()
                if operation is None:
                    continue
                if operation.order is Order.ALONE:
                    yield from self._flush(together)
                    yield [operation]
                else:
                    together.append(operation)
                    if len(together) >= TOGETHER_MAX:
                        yield from self._flush(together)
            yield from self._flush(together)

    @staticmethod
    def _flush(together: list[Operation]) -> Iterator[list[Operation]]:
        if together:
            yield list(together)
            together.clear()

    def _new_swarm(self) -> None:
        self.requests.swarm()
        self._kinds = {
            kind: weight * self.rng.choice((0, 0.5, 1, 1, 2)) for kind, weight in WEIGHTS.items()
        }
        for kind in ("range", "put"):
            self._kinds[kind] = max(self._kinds[kind], WEIGHTS[kind])

    def _draw(self) -> Operation | None:
        kind = self.rng.choices(list(self._kinds), list(self._kinds.values()))[0]
        draw: Callable[[], Operation | None] = getattr(self, f"_draw_{kind}")
        return draw()

    def _operation(
        self,
        method: str,
        request: Any,
        order: Order = Order.ALONE,
        local: bool = False,
        member: int | None = None,
        stream: int = -1,
        drains: str = "",
    ) -> Operation:
        operation = Operation(
            number=self.number,
            method=method,
            request=request,
            member=self.rng.randrange(MEMBERS) if member is None else member,
            order=order,
            local=local,
            revision=self.shadow.revision,
            stream=stream,
            drains=drains,
        )
        self.number += 1
        return operation

    # KV

    def _draw_range(self) -> Operation:
        request = self.requests.range()
        if self.requests.rarely():  # not sort_target as well: that crashes etcd 3.4.23
            request.sort_order = self.rng.choice((3, 7))
        return self._operation("KV.Range", request, Order.TOGETHER, local=request.serializable)

    def _draw_put(self) -> Operation:
        return self._operation("KV.Put", self.requests.put())

    def _draw_delete(self) -> Operation:
        return self._operation("KV.DeleteRange", self.requests.delete())

    def _draw_txn(self) -> Operation:
        request = self.requests.txn()
        return self._operation("KV.Txn", request, local=only_reads(request))

    def _draw_read_txn(self) -> Operation:
        request = self.requests.read_txn()
        return self._operation(
            "KV.Txn", request, Order.TOGETHER, local=request.success[0].request_range.serializable
        )

    def _draw_crowded_txn(self) -> Operation:
        return self._operation("KV.Txn", self.requests.crowded_txn())

    def _draw_compact(self) -> Operation:
        request = self.requests.compact()
        while self._catching_up and self._catching_up[0][0] < self.number - CATCH_UP_OPERATIONS:
            self._catching_up.popleft()
        if request.revision <= self.shadow.revision:
            starts = [start for _, start in self._catching_up]
            request.revision = min([request.revision, *starts])
        return self._operation("KV.Compact", request, drains="all")

    # Lease

    def _draw_grant(self) -> Operation:
        return self._operation("Lease.LeaseGrant", self.requests.grant())

    def _draw_grant_any_id(self) -> Operation:
        return self._operation("Lease.LeaseGrant", pb.LeaseGrantRequest(TTL=TTL_SAFE_S))

    def _draw_revoke(self) -> Operation:
        return self._operation("Lease.LeaseRevoke", pb.LeaseRevokeRequest(ID=self._some_lease()))

    def _draw_keepalive(self) -> Operation:
        lease = self._some_lease()
        request = pb.LeaseKeepAliveRequest(ID=lease)
        return self._operation(KEEPALIVE, request, Order.TOGETHER, local=True)

    def _draw_time_to_live(self) -> Operation:
        request = pb.LeaseTimeToLiveRequest(ID=self._some_lease(), keys=self.rng.random() < 0.5)
        return self._operation("Lease.LeaseTimeToLive", request, Order.TOGETHER, local=True)

    def _some_lease(self) -> int:
        kind = self.rng.random()
        if kind < 0.15:
            return self.rng.randint(1, LEASE_ID_MAX)
        if kind < 0.3 and self._chosen_leases:
            return CHOSEN_LEASE + self.rng.randrange(self._chosen_leases)
        return self.requests.lease()

    def _draw_leases(self) -> Operation:
        return self._operation(
            "Lease.LeaseLeases", pb.LeaseLeasesRequest(), Order.TOGETHER, local=True
        )

    # Watch

    def _draw_watch(self) -> Operation | None:
        stream = self._stream_with_room()
        if stream is None:
            return None
        return self._watch_operation(stream, self.requests.watch())

    def _stream_with_room(self) -> int | None:
        room = [
            number
            for number, stream in self.streams.items()
            if len(stream.watchers) < WATCHERS_PER_STREAM_MAX
        ]
        if len(self.streams) < STREAMS_MAX and self.rng.random() < 0.5:
            self.streams[self._streams_opened] = StreamShadow(self.rng.randrange(MEMBERS))
            self._streams_opened += 1
            return self._streams_opened - 1
        return self.rng.choice(room) if room else None

    def _watch_operation(self, stream: int, request: Any, drains: str = "") -> Operation:
        return self._operation(
            WATCH,
            request,
            local=True,
            member=self.streams[stream].member,
            stream=stream,
            drains=drains,
        )

    def _draw_cancel(self) -> Operation | None:
        if not self.streams:
            return None
        stream = self.rng.choice(sorted(self.streams))
        watchers = self.streams[stream].watchers
        watch_id = self.rng.choice(sorted(watchers)) if watchers else 77
        if self.rng.random() < 0.1:
            watch_id = 77
        cancel = pb.WatchCancelRequest(watch_id=watch_id)
        return self._watch_operation(stream, pb.WatchRequest(cancel_request=cancel), "stream")

    def _draw_progress(self) -> Operation | None:
        if not self.streams:
            return None
        stream = self.rng.choice(sorted(self.streams))
        request = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
        return self._watch_operation(stream, request, "stream")

    def _draw_close(self) -> Operation | None:
        if not self.streams:
            return None
        stream = self.rng.choice(sorted(self.streams))
        member = self.streams.pop(stream).member
        return self._operation(CLOSE, None, member=member, stream=stream, drains="stream")

    # Maintenance and Cluster

    def _draw_status(self) -> Operation:
        return self._local("Maintenance.Status", pb.StatusRequest())

    def _draw_hash(self) -> Operation:
        return self._local("Maintenance.Hash", pb.HashRequest())

    def _draw_hash_kv(self) -> Operation:
        revision = 0 if self.rng.random() < 0.4 else self.requests.near_revision()
        return self._local("Maintenance.HashKV", pb.HashKVRequest(revision=max(0, revision)))

    def _draw_member_list(self) -> Operation:
        linearizable = self.rng.random() < 0.5
        return self._local("Cluster.MemberList", pb.MemberListRequest(linearizable=linearizable))

    def _draw_alarm_get(self) -> Operation:
        return self._alarm(pb.AlarmRequest.GET, 0, self.rng.randint(0, 2))

    def _local(self, method: str, request: Any) -> Operation:
        return self._operation(method, request, Order.TOGETHER, local=True)

    def _alarm(self, action: int, member: int, alarm: int) -> Operation:
        request = pb.AlarmRequest(action=action, memberID=member, alarm=alarm)
        return self._operation("Maintenance.Alarm", request)

    # What comes once in every swarm

    def _too_large(self) -> Iterator[list[Operation]]:
        value = b"x" * (REQUEST_BYTES_MAX + self.rng.randint(1, 1000))
        key = self.requests.space.key(self.rng)
        yield [self._operation("KV.Put", pb.PutRequest(key=key, value=value))]

    def _beyond_grpc(self) -> Iterator[list[Operation]]:
        value = b"x" * (REQUEST_BYTES_MAX + 512 * 1024)
        yield [self._operation("KV.Put", pb.PutRequest(key=b"k", value=value))]

    def _no_space(self) -> Iterator[list[Operation]]:
        yield from self._under_alarm(pb.NOSPACE)

    def _corrupt(self) -> Iterator[list[Operation]]:
        yield from self._under_alarm(pb.CORRUPT)

    def _under_alarm(self, alarm: int) -> Iterator[list[Operation]]:
        member = self.rng.randint(1, 9)
        yield [self._alarm(pb.AlarmRequest.ACTIVATE, member, alarm)]
        draws = [
            self._draw_put,
            self._draw_txn,
            self._draw_delete,
            self._draw_grant,
            self._draw_range,
            self._draw_read_txn,
        ]
        for draw in self.rng.sample(draws, 4):
            yield [draw()]
        yield [self._alarm(pb.AlarmRequest.GET, 0, self.rng.choice((0, alarm)))]
        yield [self._alarm(pb.AlarmRequest.DEACTIVATE, member, alarm)]

    def _fragments(self) -> Iterator[list[Operation]]:
        """Changes so large that a watch with ``fragment`` set gets them in pieces."""
        stream = self._stream_with_room()
        if stream is None:
            return
        create = pb.WatchCreateRequest(key=b"big", range_end=b"bih", fragment=True, prev_kv=True)
        yield [self._watch_operation(stream, pb.WatchRequest(create_request=create))]
        for number in range(3):
            value = bytes([self.rng.randrange(256)]) * FRAGMENT_VALUE_BYTES
            yield [self._operation("KV.Put", pb.PutRequest(key=b"big%d" % number, value=value))]
        yield [
            self._operation("KV.DeleteRange", pb.DeleteRangeRequest(key=b"big", range_end=b"bih"))
        ]

    def _defragment(self) -> Iterator[list[Operation]]:
        yield [self._operation("Maintenance.Defragment", pb.DefragmentRequest())]
