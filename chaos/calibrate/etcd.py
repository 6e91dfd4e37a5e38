"""Known defects of etcd 3.4.23, as Debian ships it, each found by the rules of watches or leases.

That release lacks the fixes of later 3.4 ones; the change log of the 3.4 line names them. kvstore
speaks the same API and has none of these defects: it is the control on which nothing may be found.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from chaos.calibrate.scene import Scenario, Scene
from chaos.calibrate.watching import RecordedWatch
from chaos.checkers.leases import check_leases
from chaos.checkers.watches import check_watches
from chaos.cluster.rpc import MemberClient
from chaos.cluster.targets.etcd import EtcdTarget
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.history.format import REFERENCE, Operation, Outcome, WatchEvent
from chaos.verdict import Kind
from kvstore.client import AsyncClient, EtcdError, LeaseLost

CATCH_UP_ENTRIES: Final = 5000
"""Entries that this etcd keeps behind a snapshot: one that lacks more is sent the snapshot."""

FILLER_AT_ONCE: Final = 64
WRITERS: Final = 20
BACKLOG: Final = 2500
"""Events of which a new watch is told at most 1,000 at a time, every 100 ms."""

LEASES: Final = 30
LEASE_TTL_S: Final = 3
LEASE_ROUNDS: Final = 8
KEEPALIVE_EVERY_S: Final = 0.4
CALL_TIMEOUT_S: Final = 2.0
EVIDENCE_TIMEOUT_S: Final = 10.0
TOLD_WITHIN_S: Final = 6.0
"""How long a watch has to be told of what it should not be; where all is well it is waited for."""


class Store:
    """A client of one member, on no proxied link, whose writes are in the history."""

    def __init__(self, scene: Scene, member: str) -> None:
        self.member = member
        self.client = AsyncClient(
            scene.cluster.direct_addresses[member], timeout_s=CALL_TIMEOUT_S, dial_timeout_s=1.0
        )
        self._scene = scene
        self._written = 0
        scene.at_end(self.client.close)

    async def put(self, key: str, process: int = 0) -> int:
        """Put a value that no other put has; return its revision."""
        self._written += 1

        async def send(operation: Operation) -> None:
            operation.node = self.member
            answer = await self.client.put(key, operation.value or "")
            operation.revision = answer.header.revision

        value = f"{self.member}-{self._written}"
        operation = await self._scene.attempt(process, "put", key, send, value=value)
        return operation.revision

    async def delete(self, key: str) -> int:
        """Delete a key; return the revision."""

        async def send(operation: Operation) -> None:
            operation.node = self.member
            operation.revision = (await self.client.delete(key)).header.revision

        return (await self._scene.attempt(0, "delete", key, send)).revision

    async def compact(self, revision: int) -> None:
        """Compact the history of the store up to a revision, and wait until it is gone."""

        async def send(operation: Operation) -> None:
            operation.node = self.member
            await self.client.compact(revision, physical=True)

        await self._scene.attempt(0, "compact", "", send, input={"revision": revision})

    async def events(self, first: int = 2) -> list[WatchEvent]:
        """Every event from ``first`` to now, as this member tells them."""
        newest = (await self.client.range("\0", limit=1)).header.revision
        address = self._scene.cluster.direct_addresses[self.member]
        async with MemberClient(address, EVIDENCE_TIMEOUT_S) as client:
            return [event async for event in client.events(first, newest)]

    async def write_reference(self, first: int = 2) -> None:
        """Write down all that happened, as this member tells it."""
        recorder = self._scene.recorder
        recorder.watch(REFERENCE, await self.events(first))
        recorder.watched(REFERENCE)


async def progress_ahead(scene: Scene) -> None:
    """Ask a watch that begins in the past for its progress before it has caught up."""
    store = Store(scene, await scene.cluster.leader())
    scene.say(f"writing {BACKLOG} events")

    async def put(process: int) -> None:
        for _ in range(BACKLOG // WRITERS):
            await store.put(f"watched/{process % 5}", process)

    await asyncio.gather(*(put(process) for process in range(WRITERS)))
    watch = await RecordedWatch(scene, store.member, "watched/", 2).create(and_progress=True)
    await scene.until(lambda: watch.told >= BACKLOG, "all events were told")
    await store.write_reference()


async def deletion_at_compaction(scene: Scene) -> None:
    """Compact at the very revision of a deletion, and watch from there on."""
    store = Store(scene, await scene.cluster.leader())
    await store.put("watched/a")
    await store.put("watched/b")
    deleted = await store.delete("watched/a")
    await store.put("watched/b")
    # The reference is taken while all of it is still there.
    await store.write_reference()
    await store.compact(deleted)
    watch = await RecordedWatch(scene, store.member, "watched/", deleted).create()
    await scene.until(lambda: watch.newest > deleted, "the event behind the deletion")


async def _restore_from_snapshot(scene: Scene) -> RecordedWatch:
    """Cut a follower off until only a snapshot can bring it back.

    Two watches live through it there: one from now on, and one from a revision far ahead, which is
    returned.
    """
    cluster = scene.cluster
    leader = await cluster.leader()
    follower = next(member for member in cluster.members if member != leader)
    store = Store(scene, leader)
    first = await store.put("watched/first")
    seen = await RecordedWatch(scene, follower, "watched/").create()
    ahead = await RecordedWatch(scene, follower, "watched/", first + 1000).create()
    for number in range(5):
        newest = await store.put(f"watched/{number}")
    await scene.until(lambda: seen.newest >= newest, "the events before the partition")
    scene.recorder.fault("net.partition", "start", [follower])
    await cluster.partition([[follower], [m for m in cluster.members if m != follower]])
    for number in range(5):
        await store.put(f"watched/{number}")
    scene.say(f"{follower} is cut off while {CATCH_UP_ENTRIES} entries pass")
    slots = asyncio.Semaphore(FILLER_AT_ONCE)

    async def fill() -> None:
        async with slots:
            with contextlib.suppress(EtcdError):
                await store.client.delete("missing")  # an entry without a revision

    entries = CATCH_UP_ENTRIES + 3 * cluster.options.snapshot_count
    await asyncio.gather(*(fill() for _ in range(entries)))
    await cluster.mend()
    scene.recorder.fault("net.partition", "effect", [follower], "its log was left behind")
    scene.recorder.fault("net.partition", "end", [follower])
    await cluster.wait_serving(30.0)
    store = Store(scene, await cluster.leader())
    for number in range(5):
        newest = await store.put(f"watched/{number}")
    await scene.until(lambda: seen.newest >= newest, "the events after the partition")
    await store.write_reference()
    return ahead


async def back_in_time(scene: Scene) -> None:
    """A watch that had kept up is told again what it knows when its member gets a snapshot."""
    await _restore_from_snapshot(scene)


async def future_watch(scene: Scene) -> None:
    """A watch from a revision far ahead is told of older ones when its member gets a snapshot."""
    ahead = await _restore_from_snapshot(scene)
    await scene.until(lambda: ahead.told > 0, "an event for the watch far ahead", TOLD_WITHIN_S)


async def deposed_leader_revokes(scene: Scene) -> None:
    """Stop a leader for longer than its leases last, while another keeps them alive."""
    cluster = scene.cluster
    keepers = _Keepers(scene, await cluster.leader())
    watches = [await RecordedWatch(scene, m, "leased/").create() for m in cluster.members]
    leases = [await _grant(scene, keepers.store(number), number) for number in range(LEASES)]
    keeping = [asyncio.create_task(keepers.keep(number, id)) for number, id in enumerate(leases)]
    try:
        for round in range(LEASE_ROUNDS):
            keepers.stopped = await cluster.leader()
            break_for = LEASE_TTL_S + 1.5
            scene.say(f"{keepers.stopped} is stopped for {break_for:g} s, time {round + 1}")
            await _stop_for(scene, keepers.stopped, break_for)
            revoked = await scene.until(
                lambda: any(watch.told > LEASES for watch in watches), "a lease was revoked", 3.0
            )
            if revoked:
                break
    finally:
        keepers.stopping.set()
        await asyncio.gather(*keeping, return_exceptions=True)


class _Keepers:
    """Clients that keep leases alive, at members that are not stopped."""

    def __init__(self, scene: Scene, stopped: str) -> None:
        self.stopped = stopped
        self.stopping = asyncio.Event()
        self._scene = scene
        self._stores = [Store(scene, member) for member in scene.cluster.members]

    def store(self, number: int) -> Store:
        """A client for the lease of this number."""
        running = [store for store in self._stores if store.member != self.stopped]
        return running[number % len(running)]

    async def keep(self, number: int, lease: int) -> None:
        """Keep a lease alive until ``stopping``."""
        process = number
        while not self.stopping.is_set():
            done = await self._once(self.store(number), process, lease)
            if done.outcome is Outcome.UNKNOWN:
                process = self._scene.new_process()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEPALIVE_EVERY_S):
                    await self.stopping.wait()

    async def _once(self, store: Store, process: int, lease: int) -> Operation:
        async def send(operation: Operation) -> None:
            operation.node = store.member
            try:
                left = await store.client.lease_keepalive(lease, timeout_s=CALL_TIMEOUT_S)
            except LeaseLost:
                left = 0
            operation.output = {"ttl": left}

        about = {"lease": lease, "ttl": LEASE_TTL_S}
        return await self._scene.attempt(process, "keepalive", "", send, input=about)


async def _stop_for(scene: Scene, member: str, seconds: float) -> None:
    recorder = scene.recorder
    recorder.fault("proc.pause", "start", [member])
    await scene.cluster.pause([member])
    await asyncio.sleep(seconds)
    await scene.cluster.resume([member])
    recorder.fault("proc.pause", "effect", [member], f"stopped for {seconds:g} s")
    recorder.fault("proc.pause", "end", [member])


async def _grant(scene: Scene, store: Store, process: int) -> int:
    lease = 1000 + process

    async def send(operation: Operation) -> None:
        operation.node = store.member
        await store.client.lease_grant(LEASE_TTL_S, lease_id=lease)
        operation.output = {"ttl": LEASE_TTL_S}

    about = {"lease": lease, "ttl": LEASE_TTL_S}
    await scene.attempt(process, "grant", "", send, input=about)

    async def attach(operation: Operation) -> None:
        operation.node = store.member
        answer = await store.client.put(operation.key, operation.value or "", lease=lease)
        operation.revision = answer.header.revision

    key = f"leased/{process}"
    await scene.attempt(process, "put", key, attach, value=f"{process}-1", input={"lease": lease})
    return lease


_WATCH: Final = frozenset({Kind.WATCH_DUPLICATE, Kind.WATCH_ORDER})

SCENARIOS: Final = (
    Scenario(
        name="progress-ahead",
        system="etcd",
        defect="etcd #15220: a progress notification is ahead of events not yet sent",
        body=progress_ahead,
        checks=(check_watches,),
        workload="watch",
        finds=frozenset({Kind.WATCH_BOOKMARK}),
        target=EtcdTarget,
        control=KvstoreTarget,
        nodes=1,
    ),
    Scenario(
        name="deletion-at-compaction",
        system="etcd",
        defect="etcd #18089: a deletion is lost to watches from the revision compacted at",
        body=deletion_at_compaction,
        checks=(check_watches,),
        workload="watch",
        finds=frozenset({Kind.WATCH_GAP}),
        target=EtcdTarget,
        control=KvstoreTarget,
        nodes=1,
    ),
    Scenario(
        name="back-in-time",
        system="etcd",
        defect="etcd #15271: a watch travels back in time when its member is restored",
        body=back_in_time,
        checks=(check_watches,),
        workload="watch",
        finds=_WATCH,
        target=EtcdTarget,
        control=KvstoreTarget,
    ),
    Scenario(
        name="future-watch",
        system="etcd",
        defect="etcd #20221: a watch on a future revision is told of older ones",
        body=future_watch,
        checks=(check_watches,),
        workload="watch",
        finds=frozenset({Kind.WATCH_TOO_OLD}),
        target=EtcdTarget,
        control=KvstoreTarget,
    ),
    Scenario(
        name="deposed-leader",
        system="etcd",
        defect="etcd #15247: a deposed leader revokes leases that are kept alive",
        body=deposed_leader_revokes,
        checks=(check_leases,),
        workload="lease",
        finds=frozenset({Kind.LEASE_EARLY}),
        target=EtcdTarget,
        control=KvstoreTarget,
        rounds=2,
    ),
)
"""All of them, the quickest first."""
