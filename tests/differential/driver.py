"""Runs one sequence against two systems and collects where their answers differ.

The oracle answers a step first; the other system follows a few steps behind (``AHEAD_MAX``), so
that both work at once although each sees one ordered sequence. A member that answers from its own
state is first asked for a linearizable read, so that it has applied what came before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, TextIO

import attrs
import grpc

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.differential.compare import Difference, answer_differences, message_differences
from tests.differential.coverage import Coverage
from tests.differential.expected_differences import explain_answer, explain_watcher
from tests.differential.generator import Generator
from tests.differential.operations import (
    CHOSEN_LEASE,
    CLOSE,
    KEEPALIVE,
    METHODS,
    WATCH,
    Answer,
    Operation,
    show,
)
from tests.differential.watching import EventLog, Watcher, WatchStream

AHEAD_MAX: Final = 64
"""The oracle is at most this many steps ahead."""

CALL_TIMEOUT_S: Final = 20.0
MISMATCHES_MAX: Final = 10
"""After so many the rest only repeats them."""

CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)


class ChosenLeases:
    """Leases whose id the server chose: each system's own, so both sides get the same stand-in."""

    def __init__(self) -> None:
        self._actual: list[int] = []

    def outgoing(self, operation: Operation) -> Any:
        """The request with stand-ins replaced by this system's ids."""
        request = operation.request
        lease = getattr(request, "ID", 0)
        if lease < CHOSEN_LEASE:
            return request
        copy = type(request).FromString(request.SerializeToString())
        copy.ID = self._actual[lease - CHOSEN_LEASE]
        return copy

    def incoming(self, operation: Operation, message: Any) -> None:
        """Put stand-ins into the answer, in place."""
        match operation.method:
            case "Lease.LeaseGrant":
                if operation.request.ID == 0 and message.ID > 0:
                    self._actual.append(message.ID)
                    message.ID = CHOSEN_LEASE + len(self._actual) - 1
            case "Lease.LeaseTimeToLive" | "Lease.LeaseKeepAlive":
                message.ID = self._stand_in(message.ID)
            case "Lease.LeaseLeases":
                for status in message.leases:
                    status.ID = self._stand_in(status.ID)

    def _stand_in(self, lease: int) -> int:
        if lease in self._actual:
            return CHOSEN_LEASE + self._actual.index(lease)
        return lease


class System:
    """One system under comparison: its members and the watch streams that are open on it."""

    def __init__(self, endpoints: Sequence[str], log: EventLog) -> None:
        self.log = log
        self.streams: dict[int, WatchStream] = {}
        self.closed: dict[int, WatchStream] = {}
        """Streams that are closed but not compared yet."""
        self.compacted = 0
        self.identity_faults: list[str] = []
        self._channels = [
            grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS) for endpoint in endpoints
        ]
        self._calls = [self._stubs(channel) for channel in self._channels]
        self._leases = ChosenLeases()
        self._clusters: set[int] = set()
        self._terms = [0] * len(endpoints)

    @staticmethod
    def _stubs(channel: Any) -> dict[str, Any]:
        stubs: dict[str, Any] = {}
        for name, method in METHODS.items():
            streams = name in (WATCH, KEEPALIVE)
            make = channel.stream_stream if streams else channel.unary_unary
            stubs[name] = make(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return stubs

    async def run(self, operation: Operation) -> Answer:
        """Carry one operation out and return how it ended."""
        member = operation.member % len(self._channels)
        if operation.local and len(self._channels) > 1:
            await self._catch_up(member)
        if operation.drains:
            await self._drain(operation)
        try:
            answer = await self._call(operation, member)
        except grpc.aio.AioRpcError as error:
            return Answer(error.code().name, error.details() or "")
        if answer.message is not None:
            self._check_identity(operation, member, answer.message)
        return answer

    async def _call(self, operation: Operation, member: int) -> Answer:
        if operation.method == CLOSE:
            stream = self.closed[operation.stream] = self.streams.pop(operation.stream)
            await stream.settle(operation.revision)
            await stream.close()
            return Answer("OK")
        if operation.method == WATCH:
            return await self._watch(operation, member)
        call = self._calls[member][operation.method]
        if operation.method == KEEPALIVE:
            keepalive = call(iter([self._leases.outgoing(operation)]), timeout=CALL_TIMEOUT_S)
            message = await keepalive.read()
            if message is grpc.aio.EOF:
                return Answer("STREAM ENDED", "no answer to a keepalive")
            self._leases.incoming(operation, message)
            return Answer("OK", "", message)
        request = self._leases.outgoing(operation)
        message = await call(request, timeout=CALL_TIMEOUT_S)
        if operation.method == "KV.Compact":
            self.compacted = operation.request.revision
        self._leases.incoming(operation, message)
        return Answer("OK", "", message)

    async def _watch(self, operation: Operation, member: int) -> Answer:
        stream = self.streams.get(operation.stream)
        if stream is None:
            stream = WatchStream(self._calls[member][WATCH](), self.log)
            self.streams[operation.stream] = stream
        request = operation.request
        if request.HasField("create_request"):
            return await stream.create(request, self.compacted)
        if request.HasField("progress_request"):
            return await stream.progress(request)
        return await stream.cancel(request)

    async def _catch_up(self, member: int) -> None:
        """A linearizable read (of nothing) at this member."""
        request = pb.RangeRequest(key=b"\x00", count_only=True, limit=1)
        try:
            await self._calls[member]["KV.Range"](request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DATA_LOSS:
                raise

    async def _drain(self, operation: Operation) -> None:
        await self.log.reach(operation.revision)
        if operation.drains == "all":
            for stream in self.streams.values():
                await stream.drain(operation.revision)
        elif operation.stream in self.streams:
            await self.streams[operation.stream].drain(operation.revision)

    def _check_identity(self, operation: Operation, member: int, message: Any) -> None:
        """cluster_id is one, raft_term never goes back at a member: no comparison sees this."""
        if message.DESCRIPTOR.fields_by_name.get("header") is None or not message.HasField(
            "header"
        ):
            return
        header = message.header
        self._clusters.add(header.cluster_id)
        if len(self._clusters) > 1:
            self.identity_faults.append(f"another cluster_id at {operation.text()}")
            self._clusters = {header.cluster_id}
        if header.raft_term and header.raft_term < self._terms[member]:
            self.identity_faults.append(f"raft_term went back at {operation.text()}")
        self._terms[member] = max(self._terms[member], header.raft_term)

    async def follow(self) -> None:
        """Make this system's events the log that all watchers are measured by."""
        await self.log.follow(WatchStream(self._calls[0][WATCH](), self.log))

    async def settle(self, revision: int) -> None:
        """Wait until every watcher has everything."""
        await self.log.reach(revision)
        for stream in self.streams.values():
            await stream.settle(revision)

    async def close(self) -> None:
        """Close every stream and channel."""
        for stream in self.streams.values():
            await stream.close()
        for channel in self._channels:
            await channel.close()


@attrs.frozen(slots=True)
class Mismatch:
    """One operation, or one watcher, on which the systems do not agree."""

    what: str
    expected: str
    actual: str
    differences: tuple[Difference, ...]

    def text(self) -> str:
        """Several lines for a report."""
        lines = [self.what, f"  oracle  {self.expected}", f"  subject {self.actual}"]
        return "\n".join(lines + [f"  - {difference.text()}" for difference in self.differences])


@attrs.define(slots=True)
class Report:
    """What a run found."""

    seed: int
    operations: int = 0
    events: int = 0
    watchers: int = 0
    fragments: int = 0
    mismatches: list[Mismatch] = attrs.field(factory=list)
    explained: Counter[str] = attrs.field(factory=Counter)
    coverage: Coverage = attrs.field(factory=Coverage)

    def text(self) -> str:
        """The mismatches with the command that shows them again; empty when there are none."""
        if not self.mismatches:
            return ""
        command = f"python -m tests.differential --seed {self.seed} --operations {self.operations}"
        parts = [mismatch.text() for mismatch in self.mismatches]
        return "\n\n".join([*parts, f"replay: {command}"])


class Comparison:
    """One run: the sequence of ``generator`` against oracle and subject.

    With ``trace`` every operation and both answers are written there as well.
    """

    def __init__(
        self,
        oracle: Sequence[str],
        subject: Sequence[str],
        generator: Generator,
        trace: TextIO | None = None,
    ) -> None:
        self._trace = trace
        self._log = EventLog()
        self.oracle = System(oracle, self._log)
        self.subject = System(subject, self._log)
        self._generator = generator
        self._queue: asyncio.Queue[tuple[list[Operation], list[Answer]] | None] = asyncio.Queue(
            AHEAD_MAX
        )
        self.report = Report(generator.seed)

    async def run(self, operations: int) -> Report:
        """Send ``operations`` operations to both and return what differed."""
        await self.oracle.follow()
        lead = asyncio.create_task(self._lead(operations))
        try:
            await self._follow()
        finally:
            lead.cancel()
            await asyncio.wait([lead])
        if not lead.cancelled() and lead.exception() is not None:
            raise RuntimeError("the oracle failed") from lead.exception()
        if not self.report.mismatches:
            await self._finish()
        self._faults()
        return self.report

    async def close(self) -> None:
        """Close both systems' channels."""
        await self._log.close()
        await self.oracle.close()
        await self.subject.close()

    async def _lead(self, operations: int) -> None:
        try:
            while self._generator.number < operations:
                step = self._generator.next_step()
                answers = await asyncio.gather(*map(self.oracle.run, step))
                for operation, answer in zip(step, answers, strict=True):
                    self._generator.observe(operation, answer)
                    self.report.coverage.count(operation, answer)
                await self._queue.put((step, list(answers)))
        finally:
            await self._queue.put(None)

    async def _follow(self) -> None:
        while (item := await self._queue.get()) is not None:
            step, expected = item
            actual = await asyncio.gather(*map(self.subject.run, step))
            for operation, left, right in zip(step, expected, actual, strict=True):
                self._judge(operation, left, right)
            self.report.operations = step[-1].number + 1
            if len(self.report.mismatches) >= MISMATCHES_MAX:
                return

    def _judge(self, operation: Operation, expected: Answer, actual: Answer) -> None:
        if self._trace is not None:
            lines = [operation.text(), f"  oracle  {expected.text()}", f"  subject {actual.text()}"]
            print(*lines, sep="\n", file=self._trace)
        differences = answer_differences(expected, actual)
        if differences:
            name = explain_answer(operation, expected, actual, differences)
            if name:
                self.report.explained[name] += 1
            else:
                self.report.mismatches.append(
                    Mismatch(operation.text(), expected.text(), actual.text(), tuple(differences))
                )
        if operation.method == CLOSE:
            self._judge_stream(operation.stream)

    def _judge_stream(self, number: int) -> None:
        """Compare all that the watchers of one stream were sent, and forget them."""
        oracle, subject = self.oracle.closed.pop(number), self.subject.closed.pop(number)
        pairs = zip(oracle.watchers, subject.watchers, strict=False)
        for index, (expected, actual) in enumerate(pairs):
            self._judge_watcher(f"stream {number}, watcher {index}", expected, actual)

    def _judge_watcher(self, where: str, expected: Watcher, actual: Watcher) -> None:
        self.report.watchers += 1
        self.report.events += len(expected.events)
        self.report.fragments += actual.fragments
        differences = watcher_differences(expected, actual)
        if not differences:
            return
        name = explain_watcher(expected, actual)
        if name:
            self.report.explained[name] += 1
            return
        self.report.mismatches.append(
            Mismatch(
                f"{where}: {show(expected.request)}",
                f"{len(expected.events)} events",
                f"{len(actual.events)} events",
                tuple(differences[:MISMATCHES_MAX]),
            )
        )

    async def _finish(self) -> None:
        revision = self._generator.shadow.revision
        await asyncio.gather(self.oracle.settle(revision), self.subject.settle(revision))
        for system in (self.oracle, self.subject):
            system.closed.update(system.streams)
        for number in sorted(self.oracle.streams):
            self._judge_stream(number)

    def _faults(self) -> None:
        for name, system in (("oracle", self.oracle), ("subject", self.subject)):
            for fault in system.identity_faults:
                self.report.mismatches.append(Mismatch(f"{name}: {fault}", "", "", ()))


def watcher_differences(expected: Watcher, actual: Watcher) -> list[Difference]:
    """Where two watchers' whole sequences differ, and which rules either broke."""
    found = [Difference("rule", "kept", fault) for fault in expected.faults + actual.faults]
    if len(expected.events) != len(actual.events):
        found.append(Difference("len(events)", len(expected.events), len(actual.events)))
    for number, (one, other) in enumerate(zip(expected.events, actual.events, strict=False)):
        found += [
            attrs.evolve(difference, path=f"events[{number}].{difference.path}")
            for difference in message_differences(one, other)
        ]
    if (expected.closing is None) != (actual.closing is None):
        found.append(Difference("closing answer", show(expected.closing), show(actual.closing)))
    elif expected.closing is not None:
        found += [
            attrs.evolve(difference, path=f"closing.{difference.path}")
            for difference in message_differences(expected.closing, actual.closing)
        ]
    return found
