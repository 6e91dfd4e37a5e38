"""What a workload is: clients that work on a cluster while it is broken, and what must then hold.

Rules that make a history worth checking (etcd's robustness tests and Jepsen keep the same): every
written value is unique; a process has one request outstanding; a request whose outcome is unknown
ends its process, and a new one takes its place; nothing is sent twice.

The life of a workload, in order::

    fields = await Workload.prepare(direct)   # before the history: what its header must say
    workload = Workload(setting)
    await workload.setup()                    # without faults: accounts, sessions ...
    await workload.run()                      # under faults, until stop()
    await workload.final_reads()              # after everything was mended
    await workload.collect()                  # what each member itself says, on unfaulted links
    await workload.close()                    # always
    Workload.checks()                         # what applies to the history, also years later
"""

from __future__ import annotations

import abc
import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, ClassVar, Final, Generic, TypeVar

import attrs

from chaos.checkers.assumptions import LoadFloor
from chaos.cluster.targets.base import Api
from chaos.history.format import READS, History, Operation, Outcome
from chaos.history.recorder import Recorder
from chaos.nemesis.vocabulary import Want
from chaos.verdict import CheckResult

FAILURE_PAUSE_S: Final = 0.05
"""A client that was refused waits this long, so that a dead member is not hammered."""

FINAL_TIMEOUT_S: Final = 10.0
"""Deadline of a request after everything was mended."""


class NotApplied(Exception):
    """Raised by a ``send`` to say that the system refused: certainly nothing was done."""


C = TypeVar("C")
"""The client library's class: a connection to one member."""

Check = Callable[[History], CheckResult]
"""A checker: reads a whole history and says what it found."""


@attrs.frozen(slots=True)
class WorkloadOptions:
    """How hard a workload works.

    Args:
        clients: processes at any time.
        keys: registers, accounts, lists ...; few, so that operations meet.
        rate: operations a second over all clients, at most.
        timeout_s: deadline of one request.
        hop: chance that a client goes on at another member after an operation.
    """

    clients: int = 6
    keys: int = 3
    rate: float = 300.0
    timeout_s: float = 1.0
    hop: float = 0.1


@attrs.frozen(slots=True)
class Setting:
    """Where a workload works.

    Args:
        addresses: the members' "host:port" for clients, by name: their client links, with faults.
            It changes where members come and go.
        direct: the same without any proxy, for evidence.
        recorder: where the history goes.
        rng: source of every choice.
        options: how hard it works.
        header: what ``prepare`` returned.
    """

    addresses: Mapping[str, str]
    direct: Mapping[str, str]
    recorder: Recorder
    rng: Random
    options: WorkloadOptions
    header: Mapping[str, Any] = attrs.field(factory=dict)


class Process(Generic[C]):
    """One client process: it has one operation at a time, and ends with an unknown one.

    Args:
        workload: whose process it is.
        slot: which of the workload's clients it is, from 0; stays when the number changes.
        rng: source of its choices.
        member: where it works first.
        timeout_s: deadline of one request.
    """

    def __init__(
        self, workload: Workload[C], slot: int, rng: Random, member: str, timeout_s: float
    ) -> None:
        self.slot = slot
        self.rng = rng
        self.member = member
        self.timeout_s = timeout_s
        self.memory: dict[str, Any] = {}
        """What the workload wants to remember from one operation to the next."""
        self.failed = False
        """Whether the last operation did not end well."""
        self._workload = workload
        self._clients: dict[str, C] = {}
        self.number = workload.new_process()
        self._written = itertools.count(1)

    @property
    def client(self) -> C:
        """The connection to the present member; to another one, if it left the group."""
        self.stay()
        found = self._clients.get(self.member)
        if found is None:
            address = self._workload.setting.addresses[self.member]
            found = self._workload.connect(address, self.timeout_s)
            self._clients[self.member] = found
        return found

    def unique(self) -> str:
        """A value that no other operation of the run writes."""
        return f"{self.number}-{next(self._written)}"

    def stay(self) -> None:
        """Go on at the present member, unless it left the group."""
        if self.member not in self._workload.setting.addresses:
            self.hop()

    def hop(self) -> None:
        """Go on at any member."""
        self.member = self.rng.choice(sorted(self._workload.setting.addresses))

    async def attempt(
        self,
        f: str,
        key: str,
        send: Callable[[Operation], Awaitable[None]],
        *,
        value: str | None = None,
        expected: int | None = None,
        input: Any = None,
    ) -> Operation:
        """Make one operation and record it.

        Args:
            f, key, value, expected, input: what is asked; see ``Operation``.
            send: makes the request, and puts what came back into the operation. It raises what the
                client library raises, or ``NotApplied``.

        Returns:
            The operation with its outcome. After an unknown one this is a new process.
        """
        recorder = self._workload.setting.recorder
        self.stay()
        operation = recorder.invoke(self.number, f, key, value, expected, input)
        operation.node = self.member
        try:
            await send(operation)
        except asyncio.CancelledError:
            operation.error = "the run was interrupted"
            recorder.complete(operation, Outcome.UNKNOWN)
            raise
        except Exception as error:
            refused = isinstance(error, NotApplied)
            outcome = Outcome.FAIL if refused else self._workload.outcome_of(error)
            if outcome is None:
                operation.error = f"{type(error).__name__}: {error}"
                recorder.complete(operation, Outcome.UNKNOWN)
                raise
            operation.error = str(error)
            recorder.complete(operation, Outcome.FAIL if f in READS else outcome)
        else:
            recorder.complete(operation, Outcome.OK)
        self.failed = operation.outcome is not Outcome.OK
        if operation.outcome is Outcome.UNKNOWN:
            self.number, self._written = self._workload.new_process(), itertools.count(1)
        return operation

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await self._workload.disconnect(client)
        self._clients.clear()


class Workload(abc.ABC, Generic[C]):
    """Clients that run until told to stop. A subclass says what one client does in one step."""

    name: ClassVar[str]
    """As ``chaos run --workload`` takes it."""

    api: ClassVar[Api]
    """What it can be run against."""

    machine: ClassVar[str] = ""
    """For ``Api.MACHINE``: the machine to serve, "module:Machine"."""

    defaults: ClassVar[WorkloadOptions] = WorkloadOptions()
    """How hard it works unless told otherwise."""

    floor: ClassVar[LoadFloor] = LoadFloor()
    """Load below which a run proves nothing."""

    wants: ClassVar[frozenset[Want]] = frozenset()
    """What it must find in a cluster beside the API."""

    unsafe: ClassVar[str] = ""
    """Why it must be expected to break its promise, if it must: it then proves the checkers."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.options = setting.options
        self.stopping = asyncio.Event()
        self._processes = itertools.count()
        self._seeds = [setting.rng.randrange(2**63) for _ in range(setting.options.clients)]

    # What a kind of system says.

    @abc.abstractmethod
    def connect(self, address: str, timeout_s: float) -> C:
        """A client of the member at ``address``; it does not connect yet."""

    @abc.abstractmethod
    async def disconnect(self, client: C) -> None:
        """Close what ``connect`` returned."""

    @abc.abstractmethod
    def outcome_of(self, error: Exception) -> Outcome | None:
        """What a failed write means: FAIL if certainly not applied; None if it is a bug here."""

    @classmethod
    async def prepare(cls, direct: Mapping[str, str]) -> dict[str, Any]:
        """See that the cluster is fresh; return what the history's header must know.

        Raises:
            WorkloadFailed: the cluster is not one that this can begin on.
        """
        return {}

    async def collect(self) -> None:
        """After the final reads: write down what each member itself says of its state."""

    # What a workload says.

    @classmethod
    @abc.abstractmethod
    def checks(cls) -> Sequence[Check]:
        """What must hold of every history of this workload."""

    @abc.abstractmethod
    async def step(self, process: Process[C]) -> None:
        """Let one client make one operation (or a few that belong together)."""

    async def setup(self) -> None:
        """Prepare the system, before any fault."""

    def helpers(self) -> Sequence[Callable[[Process[C]], Awaitable[None]]]:
        """Loops that run beside the clients, such as watchers; each ends after ``stop``."""
        return ()

    async def final_read(self, process: Process[C]) -> None:
        """Read all there is at ``process.member``; called once for each member, mended."""

    # The life of the clients.

    def new_process(self) -> int:
        """The number of a process that did not exist before."""
        return next(self._processes)

    def stop(self) -> None:
        """Let each client finish its operation and end."""
        self.stopping.set()

    async def run(self) -> None:
        """Run all clients and helpers until ``stop``."""
        members = sorted(self.setting.addresses)
        async with asyncio.TaskGroup() as group:
            for slot, seed in enumerate(self._seeds):
                rng = Random(seed)
                process = Process(self, slot, rng, rng.choice(members), self.options.timeout_s)
                group.create_task(self._client(process))
            for number, helper in enumerate(self.helpers()):
                rng = Random(f"{self._seeds}/{number}")
                process = Process(
                    self, number, rng, members[number % len(members)], self.options.timeout_s
                )
                group.create_task(self._help(helper, process))

    async def final_reads(self) -> None:
        """Let a new process read at every member. Call it after ``run``."""
        for slot, member in enumerate(sorted(self.setting.addresses)):
            process = Process(self, slot, Random(slot), member, FINAL_TIMEOUT_S)
            try:
                await self.final_read(process)
            finally:
                await process.close()

    async def close(self) -> None:
        """End what still runs and close every connection. Safe to call at any time."""

    async def wait_until(self, due: float) -> None:
        """Wait until the loop's time ``due``, or until the workload is stopped."""
        delay = due - asyncio.get_running_loop().time()
        if delay <= 0:
            return
        try:
            async with asyncio.timeout(delay):
                await self.stopping.wait()
        except TimeoutError:
            return

    async def _client(self, process: Process[C]) -> None:
        pause_s = self.options.clients / self.options.rate
        loop = asyncio.get_running_loop()
        try:
            while not self.stopping.is_set():
                due = loop.time() + process.rng.uniform(0, 2 * pause_s)
                await self.step(process)
                if process.failed:
                    due = max(due, loop.time() + FAILURE_PAUSE_S)
                if process.failed or process.rng.random() < self.options.hop:
                    process.hop()
                await self.wait_until(due)
        finally:
            await process.close()

    async def _help(
        self, helper: Callable[[Process[C]], Awaitable[None]], process: Process[C]
    ) -> None:
        try:
            await helper(process)
        finally:
            await process.close()


class WorkloadFailed(Exception):
    """A workload cannot begin, or cannot be found; the text says why and what to do."""
