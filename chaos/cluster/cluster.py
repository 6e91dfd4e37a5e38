"""A cluster of real processes, every link through a proxy server, and the ways to break it.

All waits are bounded. Processes are ended by the pid of the child that this cluster started. Calls
that block (processes, the proxy server's API) run in threads, so that the workload's event loop
goes on.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import attrs

from chaos.cluster.links import (
    Cuts,
    LinkState,
    client_link,
    flows_between,
    peer_link,
    peer_links,
    states_of,
)
from chaos.cluster.process import ManagedProcess
from chaos.cluster.proxies import Proxies
from chaos.cluster.proxyserver import ProxyServer, free_ports
from chaos.cluster.rpc import CallFailed, MemberStatus
from chaos.cluster.targets.base import Control, Layout, MemberAddresses, Target
from chaos.lossyfs.disk import LossyDisk
from chaos.nemesis.vocabulary import Want
from consensus.clock import CLOCK_FILE, CLOCK_FILE_VARIABLE

START_TIMEOUT_S: Final = 60.0
CONTROL_TIMEOUT_S: Final = 1.0
POLL_S: Final = 0.05

_Found = TypeVar("_Found")


class ClusterFailed(Exception):
    """The cluster did not do in time what it had to; the text has the members' last log lines."""


@attrs.frozen(slots=True)
class ClusterOptions:
    """How a cluster is made.

    Args:
        nodes: number of members, n1, n2, ...
        heartbeat_ms: leader's heartbeat.
        election_ms: election timeout.
        snapshot_count: commands between snapshots: small, so that short runs meet some.
        seed: of the proxy server's random choices.
        proxy_program: a real ``toxiproxy-server`` to use; None for toxid.
    """

    nodes: int = 3
    heartbeat_ms: int = 50
    election_ms: int = 500
    snapshot_count: int = 500
    seed: int = 0
    proxy_program: str | None = None


class Cluster:
    """A cluster of one target.

    Args:
        target: what to start.
        directory: of this run: data, logs, hosts files.
        options: how it is made.
        wants: what the faults to come ask for: lossy disks and clocks are made only then.
        newcomers: how many members there is room for beside the first ones.

    ``members`` are those that vote, and ``client_addresses`` and ``direct_addresses`` have these
    alone: all three change when members come and go (``chaos.cluster.membership``).
    """

    def __init__(
        self,
        target: Target,
        directory: Path,
        options: ClusterOptions,
        wants: frozenset[Want] = frozenset(),
        newcomers: int = 0,
    ) -> None:
        self.target = target
        self.directory = directory
        self.options = options
        self._names = tuple(f"n{number}" for number in range(1, options.nodes + newcomers + 1))
        self.members = self._names[: options.nodes]
        self.removed: tuple[str, ...] = ()
        self.changing = asyncio.Lock()
        """Held while the group changes: one change after the other."""
        self.client_addresses: dict[str, str] = {}
        self.direct_addresses: dict[str, str] = {}
        self.link_addresses: dict[str, str] = {}
        self.processes: dict[str, ManagedProcess] = {}
        self.disks: dict[str, LossyDisk] = {}
        self.clocks: dict[str, Path] = {}
        self._wants = wants
        self._server = ProxyServer(
            directory / "logs" / "proxies.log", options.seed, options.proxy_program
        )
        self.proxies = Proxies(self._server.address)
        self.is_toxid = options.proxy_program is None
        self._control: dict[str, Control] = {}
        self._cuts = Cuts()
        self._held_down: defaultdict[str, set[object]] = defaultdict(set)
        self._held_still: defaultdict[str, set[object]] = defaultdict(set)

    async def start(self) -> None:
        """Start the proxy server and all members, and wait until each serves.

        Raises:
            ProcessFailed, ProxyServerError, ClusterFailed: something did not start.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._server.start)
        self._layout = await asyncio.to_thread(self._lay_out)
        for member in self.members:
            await self._launch(member, self._layout)
            self.admit(member)
        await self.wait_serving(START_TIMEOUT_S)

    async def _launch(self, member: str, layout: Layout) -> None:
        """Start a member for the first time."""
        if Want.LOSSY_DISK in self._wants:
            await asyncio.to_thread(self._mount_disk, member)
        if Want.CLOCK in self._wants:
            self._make_clock(member)
        launch = self.target.launch(member, layout)
        process = ManagedProcess(
            member,
            launch.command,
            self.directory / "logs" / f"{member}.log",
            {**launch.environment, **self._clock_environment(member)},
        )
        self.processes[member] = process
        self._control[member] = self.target.control(
            layout.members[member].client, CONTROL_TIMEOUT_S
        )
        process.start()

    def _lay_out(self) -> Layout:
        ports = iter(free_ports(2 * len(self._names)))
        addresses = {
            member: MemberAddresses(f"127.0.0.1:{next(ports)}", f"127.0.0.1:{next(ports)}")
            for member in self._names
        }
        dial = {}
        for source, target in peer_links(self._names):
            peer = addresses[target].peer
            listen = self.target.link_address(source, target, self._names.index(source) + 1, peer)
            link = peer_link(source, target)
            dial[source, target] = self.proxies.create(link, peer, listen)
            self.link_addresses[link] = dial[source, target]
        for member in self._names:
            link = client_link(member)
            self.link_addresses[link] = self.proxies.create(link, addresses[member].client)
        return Layout(
            members=addresses,
            dial=dial,
            directory=self.directory,
            heartbeat_ms=self.options.heartbeat_ms,
            election_ms=self.options.election_ms,
            snapshot_count=self.options.snapshot_count,
            group=self.members,
        )

    # Who is in the group. What makes it so is in ``chaos.cluster.membership``.

    def newcomer(self) -> str:
        """A name that was not used yet.

        Raises:
            ClusterFailed: there is no room for one more.
        """
        for name in self._names:
            if name not in self.members and name not in self.processes:
                return name
        raise ClusterFailed(f"there is room for {len(self._names)} members, and all were there")

    def peer_url(self, member: str) -> str:
        """The URL of which the group knows a member."""
        return self.target.peer_url(member, self._layout)

    @property
    def peer_urls(self) -> dict[str, str]:
        """The URL of everyone there may ever be."""
        return {name: self.peer_url(name) for name in self._names}

    async def join(self, member: str) -> None:
        """Start a member that was just added to the group."""
        group = (*self.members, member)
        await self._launch(member, attrs.evolve(self._layout, group=group, joins=True))

    def admit(self, member: str) -> None:
        """From now on this member votes, and serves clients."""
        if member not in self.members:
            self.members = (*self.members, member)
        self.direct_addresses[member] = self._layout.members[member].client
        self.client_addresses[member] = self.link_addresses[client_link(member)]

    def expel(self, member: str) -> None:
        """From now on this member is in the group no more; its process runs on, if it does."""
        self.members = tuple(one for one in self.members if one != member)
        self.removed = (*self.removed, member)
        self.direct_addresses.pop(member, None)
        self.client_addresses.pop(member, None)

    async def try_again(self, member: str) -> None:
        """Start a removed member on the data that it had, whoever held it down."""
        process = self.processes[member]
        await asyncio.to_thread(process.kill)
        await asyncio.to_thread(process.start)

    async def stop(self) -> None:
        """End every process that this cluster started, and its proxy server."""
        for client in self._control.values():
            await client.close()
        self._control.clear()
        await asyncio.gather(
            *(asyncio.to_thread(process.kill) for process in self.processes.values())
        )
        await asyncio.to_thread(self._server.stop)
        await asyncio.gather(*(asyncio.to_thread(disk.unmount) for disk in self.disks.values()))

    def data_directory(self, member: str) -> Path:
        """Where a member keeps its data."""
        return self.directory / "data" / member

    def _mount_disk(self, member: str) -> None:
        self.disks[member] = LossyDisk(
            member,
            self.directory / "disks" / member,
            self.data_directory(member),
            self.directory / "logs" / f"disk-{member}.log",
            self.options.seed + self._names.index(member),
        )
        self.disks[member].mount()

    def _make_clock(self, member: str) -> None:
        self.clocks[member] = self.directory / "clocks" / member
        self.clocks[member].parent.mkdir(exist_ok=True)
        self.clocks[member].write_bytes(CLOCK_FILE.pack(0, 0))

    def _clock_environment(self, member: str) -> dict[str, str]:
        clock = self.clocks.get(member)
        return {} if clock is None else {CLOCK_FILE_VARIABLE: str(clock)}

    def remove_data(self) -> None:
        """Delete the members' data directories; logs stay."""
        for name in ("data", "disks", "clocks"):
            shutil.rmtree(self.directory / name, ignore_errors=True)

    async def __aenter__(self) -> Cluster:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # What the members say.

    def control(self, member: str) -> Control:
        """A client straight to a member, on no proxied link."""
        return self._control[member]

    async def status(self, member: str) -> MemberStatus | None:
        """A member's status, None if it does not answer."""
        try:
            return await self._control[member].status()
        except CallFailed:
            return None

    async def leader(self, timeout_s: float = 10.0, among: Sequence[str] | None = None) -> str:
        """Find the leader: the member with the highest term that takes itself for it.

        Raises:
            ClusterFailed: there is none in ``timeout_s`` seconds.
        """
        members = among or self.members

        async def find() -> str | None:
            statuses = await asyncio.gather(*(self.status(member) for member in members))
            leading = [
                (status.term, member)
                for member, status in zip(members, statuses, strict=True)
                if status is not None and status.leads
            ]
            return max(leading)[1] if leading else None

        found = await self._poll(find, timeout_s)
        if found is None:
            raise ClusterFailed(f"no leader in {timeout_s:g} s\n{self._logs()}")
        return found

    async def serves(self, member: str, timeout_s: float = CONTROL_TIMEOUT_S) -> bool:
        """Try a linearizable read at a member."""
        try:
            await self._control[member].probe(timeout_s)
        except CallFailed:
            return False
        return True

    async def wait_serving(self, timeout_s: float, members: Sequence[str] | None = None) -> None:
        """Wait until every member (or each of these) answers a linearizable read.

        Raises:
            ClusterFailed: one does not in ``timeout_s`` seconds, or its process ended.
        """
        deadline = time.monotonic() + timeout_s
        for member in members or self.members:
            process = self.processes[member]

            async def ready(member: str = member, process: ManagedProcess = process) -> bool:
                if member in self.removed:
                    return True
                if not process.running:
                    raise ClusterFailed(
                        f"{member} ended with exit code {process.exit_code}:\n{process.log_tail()}"
                    )
                return await self.serves(member)

            if not await self._poll(ready, deadline - time.monotonic()):
                raise ClusterFailed(
                    f"{member} did not answer a linearizable read in {timeout_s:g} s:\n"
                    f"{process.log_tail()}"
                )

    # Breaking and mending.

    async def kill(self, members: Iterable[str], owner: object = None) -> None:
        """SIGKILL these members; they stay down until the same owner restarts them.

        Where several faults hold a member down it starts when the last of them ends.
        """
        members = list(members)
        for member in members:
            self._held_down[member].add(owner)
        await asyncio.gather(
            *(asyncio.to_thread(self.processes[member].kill) for member in members)
        )

    async def end(self, member: str) -> None:
        """SIGTERM to a member, SIGKILL if it does not end soon; ``restart`` starts it again."""
        await asyncio.to_thread(self.processes[member].stop)

    async def restart(
        self,
        members: Iterable[str],
        owner: object = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start these members again on their data, if they do not run and nobody holds them down.

        One that was removed from the group stays down.

        ``environment`` is added for this one start.

        Raises:
            ProcessFailed: the program cannot be executed.
        """
        for member in members:
            self._held_down[member].discard(owner)
            process = self.processes[member]
            stays_down = self._held_down[member] or member in self.removed
            if not process.running and not stays_down:
                await asyncio.to_thread(process.start, environment)

    async def pause(self, members: Iterable[str], owner: object = None) -> None:
        """SIGSTOP these members, if they run; until the same owner resumes them."""
        for member in members:
            self._held_still[member].add(owner)
            process = self.processes[member]
            if process.running and not process.paused:
                await asyncio.to_thread(process.pause)

    async def resume(self, members: Iterable[str], owner: object = None) -> None:
        """SIGCONT these members, unless another fault holds them still."""
        for member in members:
            self._held_still[member].discard(owner)
            process = self.processes[member]
            if process.paused and not self._held_still[member]:
                await asyncio.to_thread(process.resume)

    async def cut(self, states: Mapping[str, LinkState], owner: object = None) -> None:
        """Give links a state at one instant; where several owners cut a link it has the sum."""
        await asyncio.to_thread(self.proxies.set_links, self._cuts.cut(owner, states))

    async def partition(self, groups: Iterable[Sequence[str]], mode: str = "close") -> None:
        """Cut all that members of different groups send to each other."""
        await self.cut(states_of(flows_between(groups), mode))

    async def heal(self, owner: object = None) -> None:
        """Take an owner's cuts away."""
        healed = self._cuts.heal(owner)
        if healed:
            await asyncio.to_thread(self.proxies.set_links, healed)

    async def mend(self) -> None:
        """Heal every link and disk, resume and restart every member: the end of all faults."""
        healed = self._cuts.heal_all()
        if healed:
            await asyncio.to_thread(self.proxies.set_links, healed)
        await asyncio.to_thread(self.proxies.reset)
        for disk in self.disks.values():
            await asyncio.to_thread(disk.heal)
        self._held_down.clear()
        self._held_still.clear()
        await self.resume(self.processes)
        await self.restart(self.processes)

    async def _poll(self, find: Callable[[], Awaitable[_Found]], timeout_s: float) -> _Found | None:
        deadline = time.monotonic() + timeout_s
        while True:
            found = await find()
            if found:
                return found
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(POLL_S)

    def _logs(self) -> str:
        return "\n".join(
            f"--- {member}\n{process.log_tail()}" for member, process in self.processes.items()
        )
