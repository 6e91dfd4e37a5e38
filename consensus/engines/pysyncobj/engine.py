"""PySyncObjEngine: replication by PySyncObj 0.3.17.

Theory of operation. PySyncObj is ticked from the event loop (``driver``): when one of its sockets
is ready, when something was proposed, and by a slow timer for elections and heartbeats. All
proposals of one turn travel as one frame, which is one PySyncObj command (``codec``). Commands are
counted to give each its index (``delivery``). A follower sends a frame once, to the leader, over
PySyncObj's own links. Reads commit a frame without proposals, a barrier: PySyncObj has no
ReadIndex.

What PySyncObj gets wrong and can be put right from outside is put right in ``transport`` (sending
and receiving), ``journal`` (the log on disk) and ``snapshots``. What is left is declared in
``capabilities``.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pysyncobj.encryptor import HAS_CRYPTO

from consensus.engine import Capabilities, Engine, EngineHost, Fault
from consensus.engines.pysyncobj.delivery import Delivery
from consensus.engines.pysyncobj.driver import Driver
from consensus.engines.pysyncobj.dump import DUMP_NAME, DumpReader
from consensus.engines.pysyncobj.journal import REMEDY, SegmentJournal
from consensus.engines.pysyncobj.raft import PeerNode, Timing
from consensus.engines.pysyncobj.settle import misplaced
from consensus.engines.pysyncobj.setup import GROUP_ID, Setup
from consensus.errors import (
    BadTransferTarget,
    ConfigError,
    NotLeader,
    OutcomeUnknown,
    ProposalDropped,
    ReadFailed,
    Stopped,
    StorageError,
)
from consensus.storage.directory import DataDirectory
from consensus.types import EngineStatus, Member, NodeId, Position, Proposal, Role

ELECTION_HEARTBEATS_MIN: Final = 4
"""An election timeout must be longer than this many heartbeats, or leaders change for nothing."""

FORMAT_VERSION: Final = 1
"""Of the files in a data directory."""

READ_RETRY_S: Final = 0.02

CAPABILITIES: Final = Capabilities(
    survives=(
        Fault.PROCESS_CRASH_MINORITY | Fault.PROCESS_CRASH_ALL | Fault.PARTITION | Fault.PAUSE
    ),
    leadership_transfer=True,
    notes=(
        "Nothing is synced to disk when it is acknowledged: a power loss of most members at once, "
        "or an operating system crash, can lose acknowledged commands and votes.",
        "PySyncObj has no pre-vote: a member that comes back from a partition deposes the leader.",
        "Its messages are pickles: whoever reaches the peer port without a password runs code.",
        "Every linearizable read commits an entry of its own to the log; PySyncObj has no "
        "ReadIndex.",
        "A member whose log was damaged or removed while others run may vote again in a term that "
        "it voted in before; let it join only while a leader is there.",
    ),
)


class PySyncObjEngine(Engine):
    """One member of a group replicated by PySyncObj.

    Args:
        node_id: this member's name, one of ``members``.
        members: every member's name and peer address, "host:port"; the same on every member.
        directory: this member's own data directory; made when missing.
        election_timeout_ms: a follower stands for election after one to two of these, in
            milliseconds, without a word from a leader.
        heartbeat_interval_ms: milliseconds between a leader's signs of life.
        password: encrypts and authenticates the links between members; needs `cryptography`.
        snapshot_entries: commands between two snapshots, at least; a machine whose state is larger
            than the log since the last one waits longer.
        dial: where to reach a peer, by its own address, when that is elsewhere (a proxy). Of two
            members the one with the greater address, as text, dials the other.
        listen: where to listen, "host:port", when that is not this member's own address.

    Raises:
        ConfigError: the settings contradict each other, or an address is not on this machine's
            loopback and there is no password.
    """

    def __init__(
        self,
        node_id: NodeId,
        members: Mapping[NodeId, str],
        directory: Path | str,
        *,
        election_timeout_ms: int = 1000,
        heartbeat_interval_ms: int = 100,
        password: str | None = None,
        snapshot_entries: int = 10_000,
        dial: Mapping[str, str] | None = None,
        listen: str | None = None,
    ) -> None:
        if node_id not in members:
            names = ", ".join(sorted(members))
            raise ConfigError(f"member {node_id!r} is not one of the cluster's members: {names}")
        if election_timeout_ms <= ELECTION_HEARTBEATS_MIN * heartbeat_interval_ms:
            raise ConfigError(
                f"election timeout {election_timeout_ms} ms must be more than "
                f"{ELECTION_HEARTBEATS_MIN} times the heartbeat interval "
                f"({heartbeat_interval_ms} ms)"
            )
        if snapshot_entries < 2:
            raise ConfigError(f"snapshot_entries is {snapshot_entries}; it must be at least 2")
        listen = listen or members[node_id]
        dialled = dict(dial or {})
        _check_addresses([listen, *members.values(), *dialled.values()], password)
        if len(set(members.values())) < len(members):
            raise ConfigError("two members have the same peer address")
        nodes = {
            name: PeerNode(name, address, dialled.get(address)) for name, address in members.items()
        }
        self._members = tuple(Member(name, address) for name, address in members.items())
        self._setup = Setup(
            me=nodes[node_id],
            others=tuple(node for name, node in nodes.items() if name != node_id),
            listen=listen,
            timing=Timing(election_timeout_ms / 1000, heartbeat_interval_ms / 1000),
            password=password,
            snapshot_entries=snapshot_entries,
        )
        self._path = Path(directory)
        self._host: EngineHost | None = None
        self._directory: DataDirectory | None = None
        self._journal: SegmentJournal | None = None
        self._driver: Driver | None = None
        self._stopped = False
        self._status_changed = asyncio.Event()

    @property
    def capabilities(self) -> Capabilities:
        """What this engine survives, and in plain sentences what it does not."""
        return CAPABILITIES

    @property
    def node_id(self) -> NodeId:
        """This member's name."""
        return self._setup.me.name

    # -- life ---------------------------------------------------------------------------------

    async def start(self, host: EngineHost) -> None:
        """Open the data directory, settle the machine's position, listen, begin to take part."""
        self._host = host
        try:
            identity = {
                "engine": "pysyncobj",
                "version": FORMAT_VERSION,
                "group_id": GROUP_ID,
                "member": self.node_id,
                "members": sorted(member.id for member in self._members),
            }
            self._directory = DataDirectory(self._path, identity, data="log-*.seg")
            self._journal = SegmentJournal(self._path)
            delivery = await self._settle(host, self._directory, self._journal)
            self._driver = Driver(
                self._setup, host, self._directory, self._journal, delivery, self._announce
            )
            self._driver.begin()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Leave the group, close every file and socket, give the directory back."""
        self._stopped = True
        if self._driver is not None:
            await self._driver.stop()
        elif self._journal is not None:
            self._journal._destroy()
        if self._directory is not None:
            self._directory.close()
        self._announce()

    async def _settle(
        self, host: EngineHost, directory: DataDirectory, journal: SegmentJournal
    ) -> Delivery:
        """Bring the machine to a position in this log (see ``Engine.start``)."""
        reader: DumpReader | None = None
        base = Position(group_id=GROUP_ID)
        dump = directory.path / DUMP_NAME
        if dump.exists():
            reader = DumpReader(dump)
        elif journal.first_index > 1:
            raise StorageError(
                f"{dump} is missing, and the log beside it begins at entry "
                f"{journal.first_index}. {REMEDY}"
            )
        try:
            if reader is not None:
                for _ in reader.verify_steps():
                    await asyncio.sleep(0)
                base = reader.head.position
                journal.head_is(reader.head.previous, reader.head.last)
            position = host.position()
            reason = misplaced(position, base, journal) if position.index else ""
            if reason:
                host.discard(reason)
                position = Position()
            if not position.index and reader is not None:
                for _ in host.restore_steps(base, reader.chunks()):
                    await asyncio.sleep(0)
        finally:
            if reader is not None:
                reader.close()
        return Delivery(host, base, position if position.index > base.index else None)

    # -- proposals and reads ------------------------------------------------------------------

    def propose(self, proposals: Sequence[Proposal]) -> None:
        """Send proposals to the leader as one frame (more when they are large)."""
        driver = self._driver
        if driver is not None and driver.running:
            driver.propose(proposals)
        elif self._host is not None:
            for proposal in proposals:
                self._host.dropped(proposal.id, ProposalDropped("the engine is not running"))

    async def read_index(self, timeout_s: float) -> int:
        """Commit a barrier and wait until it has been delivered here; retried over elections."""
        driver = self._running()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._barrier(driver)
        except TimeoutError:
            raise ReadFailed(f"no quorum confirmed the read in {timeout_s:g} s") from None

    async def _barrier(self, driver: Driver) -> int:
        loop = asyncio.get_running_loop()
        while driver.running:
            changed = self._status_changed
            future: asyncio.Future[int] = loop.create_future()
            driver.send_frame((), future)
            try:
                # A frame that was lost with its link may stay silent until the next term: a
                # barrier can be repeated freely, so another is sent after a while.
                async with asyncio.timeout(self._setup.timing.election_s):
                    return await future
            except TimeoutError:
                continue
            except (ProposalDropped, OutcomeUnknown):
                try:
                    async with asyncio.timeout(READ_RETRY_S):
                        await changed.wait()
                except TimeoutError:
                    continue
        raise Stopped("the engine was stopped")

    async def ask_leader(self, request: bytes, timeout_s: float) -> bytes:
        """Have the leader's host answer; the leader commits a barrier first."""
        return await self._running().questions.ask(request, timeout_s)

    def compact(self) -> None:
        """Make a snapshot as soon as nothing waits to be applied."""
        if self._driver is not None and self._driver.running:
            self._driver.compact()

    async def transfer_leadership(self, target: NodeId, timeout_s: float) -> None:
        """Hand leadership to ``target``, and return when it leads.

        Raises:
            NotLeader: this member does not lead, or did not in the end hand over.
            BadTransferTarget: ``target`` is no other member.
        """
        driver = self._running()
        node = next((node for node in self._setup.others if node.name == target), None)
        if target == self.node_id and driver.leads():
            return
        if node is None:
            raise BadTransferTarget(f"{target!r} is no other member of this cluster")
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    changed = self._status_changed
                    if driver.leader() == node:
                        return
                    if driver.leads():
                        driver.raft.transferLeadership(node)
                    elif driver.leader() is not None:
                        raise NotLeader(self.status().leader)
                    with_wait = asyncio.timeout(self._setup.timing.heartbeat_s)
                    try:
                        async with with_wait:
                            await changed.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            raise NotLeader(
                self.status().leader, f"{target} did not take over in {timeout_s:g} s"
            ) from None

    # -- status -------------------------------------------------------------------------------

    def status(self) -> EngineStatus:
        """Return what this member knows now."""
        driver = self._driver
        if driver is None or not driver.running:
            term = driver.term() if driver is not None else 0
            index = driver.committed_index if driver is not None else 0
            return EngineStatus(
                self.node_id, Role.FOLLOWER, term, None, index, index, self._members, False
            )
        role = Role.FOLLOWER
        if driver.leads():
            role = Role.LEADER
        elif driver.raft.is_candidate:
            role = Role.CANDIDATE
        leader = driver.leader()
        return EngineStatus(
            node_id=self.node_id,
            role=role,
            term=driver.term(),
            leader=leader.name if leader is not None else None,
            commit_index=driver.committed_index,
            log_index=driver.committed_index,
            members=self._members,
            has_quorum=driver.view.has_quorum(),
            details=driver.details(),
        )

    async def watch_status(self) -> AsyncIterator[EngineStatus]:
        """Yield the status now, and after each change of term, role, leader or quorum."""
        while True:
            changed = self._status_changed
            yield self.status()
            if self._stopped:
                return
            await changed.wait()

    def _announce(self) -> None:
        self._status_changed.set()
        self._status_changed = asyncio.Event()

    def _running(self) -> Driver:
        if self._driver is None or not self._driver.running:
            raise Stopped("the engine is not running")
        return self._driver


def _check_addresses(addresses: Sequence[str], password: str | None) -> None:
    """Refuse addresses that cannot be used, or that only a password makes safe."""
    for address in addresses:
        host, colon, port = address.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"peer address {address!r} is not host:port")
        if password is None and not _is_loopback(host.strip("[]")):
            raise ConfigError(
                f"peer address {address} is not on the loopback interface, and there is no peer "
                "password. PySyncObj's messages are pickles: without a password, whoever reaches "
                "this port can run any code. Give every member the same password "
                "(--peer-password-file) and install the 'encryption' extra"
            )
    if password is not None and not HAS_CRYPTO:
        raise ConfigError(
            "a peer password needs the cryptography package: pip install 'raftyard[encryption]'"
        )
    if password == "":
        raise ConfigError("the peer password is empty")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
