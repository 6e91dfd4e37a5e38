"""Workloads on etcd's v3 API, through the Python client of kvstore.

Each client talks to one member at a time and so to one endpoint: what the client library promises
for a write (never sent twice, and an honest ``OutcomeUnknown``) is part of what is tested.

Evidence comes over links that no fault touches: a watch of everything from the first revision on,
kept during the whole run (the *reference*), and after it each member's own account of every
revision and its hash at one revision.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from chaos.cluster.rpc import CallFailed, MemberClient
from chaos.cluster.targets.base import Api
from chaos.history.format import REFERENCE, MemberState, Operation, Outcome, WatchEvent
from chaos.workloads.base import Process, Setting, Workload, WorkloadFailed
from kvstore.client import (
    AsyncClient,
    Compacted,
    EtcdError,
    EventType,
    KeyValue,
    OutcomeUnknown,
    RangeResult,
)

DIAL_TIMEOUT_S: Final = 0.5
EVIDENCE_TIMEOUT_S: Final = 30.0
"""How long the members together have to tell their histories after the run."""

EVIDENCE_CALL_S: Final = 5.0
POLL_S: Final = 0.05

KvProcess = Process[AsyncClient]


class KvWorkload(Workload[AsyncClient]):
    """The base of every workload on etcd's API."""

    api = Api.KV

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._base_revision = int(setting.header.get("base_revision", 1))
        self._reference: list[WatchEvent] = []
        self._watched = self._base_revision
        self._watching: asyncio.Task[None] | None = None

    def connect(self, address: str, timeout_s: float) -> AsyncClient:
        """See ``Workload``."""
        return AsyncClient(
            address, timeout_s=timeout_s, dial_timeout_s=min(DIAL_TIMEOUT_S, timeout_s)
        )

    async def disconnect(self, client: AsyncClient) -> None:
        """See ``Workload``."""
        await client.close()

    def outcome_of(self, error: Exception) -> Outcome | None:
        """See ``Workload``; the client says by its class whether a write may have been applied."""
        if isinstance(error, OutcomeUnknown):
            return Outcome.UNKNOWN
        return Outcome.FAIL if isinstance(error, EtcdError) else None

    def decode(self, value: bytes) -> str:
        """A stored value as the history has it."""
        return value.decode(errors="replace")

    @classmethod
    async def prepare(cls, direct: Mapping[str, str]) -> dict[str, Any]:
        """See that the store holds no keys; its revision is the header's ``base_revision``."""
        for member, address in direct.items():
            async with AsyncClient(address) as client:
                found = await client.range("", from_key=True, limit=1)
            if found.kvs:
                raise WorkloadFailed(
                    f"{member} already holds keys, such as {found.kvs[0].key!r}; "
                    "a run needs an empty cluster"
                )
        return {"base_revision": found.header.revision}

    async def setup(self) -> None:
        """Begin the reference watch. A subclass that overrides this calls it first."""
        self._watching = asyncio.create_task(self._watch_everything())

    async def close(self) -> None:
        """See ``Workload``."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None

    async def collect(self) -> None:
        """Write down the reference, every member's log, and every member's hash."""
        deadline = time.monotonic() + EVIDENCE_TIMEOUT_S
        newest = await self._newest()
        while self._watched < newest and time.monotonic() < deadline:
            if self._watching is None or self._watching.done():
                break
            await asyncio.sleep(POLL_S)
        recorder = self.setting.recorder
        if self._watched >= newest:
            recorder.watch(REFERENCE, [e for e in self._reference if e.revision <= newest])
            recorder.watched(REFERENCE)
        for member, address in self.setting.direct.items():
            await self._collect_member(member, address, newest, deadline)

    @property
    def watched(self) -> int:
        """The newest revision up to which the reference was told of everything."""
        return self._watched

    # inside

    async def at_members(self, work: Callable[[AsyncClient], Coroutine[Any, Any, None]]) -> None:
        """Do something at members of the group, over links that no fault touches, to its end.

        It is cancelled and begun anew when others are in the group: a client knows only the
        addresses that it was made with.
        """
        while True:
            addresses = [*self.setting.direct.values()]
            async with AsyncClient(addresses) as client:
                working = asyncio.create_task(work(client))
                try:
                    while not working.done() and addresses == [*self.setting.direct.values()]:
                        await asyncio.wait({working}, timeout=POLL_S)
                    if working.done():
                        return await working
                finally:
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)

    async def _watch_everything(self) -> None:
        """Keep the reference until cancelled."""
        try:
            await self.at_members(self._watch_all)
        except Compacted:
            return  # too late to be a reference: members whose logs are whole must do

    async def _watch_all(self, _: AsyncClient) -> None:
        """Watch at every member at once: what one is late for in a fault, another has told."""
        behind: set[str] = set()
        watching = [
            asyncio.create_task(self._watch_at(address, behind))
            for address in self.setting.direct.values()
        ]
        try:
            await asyncio.gather(*watching)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _watch_at(self, address: str, behind: set[str]) -> None:
        """Watch what no member has told yet, again and again.

        Raises:
            Compacted: every member has compacted what comes next.
        """
        async with AsyncClient(address) as client:
            while True:
                start = self._watched + 1
                watch = client.watch("", from_key=True, start_revision=start, progress_notify=True)
                try:
                    async for batch in watch.batches():
                        behind.clear()
                        self._take(batch.header.revision, batch.events)
                except Compacted:
                    behind.add(address)
                    if len(behind) == len(self.setting.direct):
                        raise
                    await asyncio.sleep(POLL_S)
                except EtcdError:
                    await asyncio.sleep(POLL_S)
                finally:
                    await watch.close()

    def _take(self, revision: int, events: Any) -> None:
        for event in [event for event in events if event.kv.mod_revision > self._watched]:
            deleted = event.type is EventType.DELETE
            value = None if deleted else self.decode(event.kv.value)
            key = event.kv.key.decode(errors="replace")
            self._reference.append(WatchEvent(event.kv.mod_revision, key, value))
        if events:
            revision = events[-1].kv.mod_revision
        self._watched = max(self._watched, revision)

    async def _newest(self) -> int:
        newest = 0
        for address in self.setting.direct.values():
            async with AsyncClient(address, timeout_s=EVIDENCE_CALL_S) as client:
                try:
                    found = await client.range("\0", limit=1)
                except EtcdError:
                    continue
                newest = max(newest, found.header.revision)
        return newest

    async def _collect_member(
        self, member: str, address: str, newest: int, deadline: float
    ) -> None:
        """A member's hash at ``newest``, and all that it tells of what is not compacted."""
        recorder = self.setting.recorder
        first = self._base_revision + 1
        async with AsyncClient(address, timeout_s=EVIDENCE_CALL_S) as client:
            while time.monotonic() < deadline:
                try:
                    found = await client.hash_kv(revision=newest)
                except EtcdError:  # it has not come so far yet, or does not serve
                    await asyncio.sleep(POLL_S)
                    continue
                first = max(first, found.compact_revision + 1)
                state = MemberState(member, newest, f"{found.hash:08x}", found.compact_revision)
                recorder.state(state)
                break
        events: list[WatchEvent] = []
        try:
            async with (
                asyncio.timeout(max(1.0, deadline - time.monotonic())),
                MemberClient(address, EVIDENCE_CALL_S) as raw,
            ):
                async for event in raw.events(first, newest, self.decode):
                    events.append(event)  # noqa: PERF401 - what came before a failure counts
        except (CallFailed, TimeoutError) as error:
            recorder.fault("evidence", "end", [member], f"its history ends early: {error}", False)
            if not events:
                return
        recorder.watch(member, events)
        recorder.watched(member)


def take_read(operation: Operation, found: RangeResult, decode: Any) -> None:
    """Put what a read of one key returned into its operation."""
    operation.revision = found.header.revision
    if found.kvs:
        kv: KeyValue = found.kvs[0]
        operation.seen = decode(kv.value)
        operation.seen_revision = kv.mod_revision
