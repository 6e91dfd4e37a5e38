"""Leases, and locks that stand on them: bugs of etcd and PySyncObj, on a real machine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from consensus.types import Applied, EngineStatus, Role
from kvstore.client import rpcs
from kvstore.client.errors import LeaseLost
from kvstore.client.recipes import RecipeCalls
from kvstore.errors import LEADER_CHANGED
from kvstore.lease.expiry import LeaseExpiry
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command
from tests.mutation import Mutant
from tests.replayed.basics import a_store_works
from tests.replayed.bug import Table, issue
from tests.replayed.machines import Stage, StoreMember

TABLE = Table(a_store_works)

ELECTION_S = 1.0


class Leader:
    """The clock of leases on a member that leads, in a time that the story tells."""

    def __init__(self, member: StoreMember) -> None:
        self.member = member
        self.now_s = 0.0
        self.expiry = LeaseExpiry(
            member.machine,
            propose=self._propose,
            confirm=self._confirm,
            election_timeout_s=ELECTION_S,
            clock=lambda: self.now_s,
        )
        member.machine.lease_listener = self.expiry

    async def _propose(self, command: bytes) -> object:
        result = self.member.apply(Command.FromString(command))
        return Applied(self.member.term, len(self.member.log), result)

    async def _confirm(self) -> int:
        return len(self.member.log)

    def leads(self, term: int) -> None:
        """Begin to lead in a term; 0: no longer."""
        self.member.term = term or self.member.term
        role = Role.LEADER if term else Role.FOLLOWER
        self.expiry.observe(EngineStatus("a", role, self.member.term, "a", 0, 0, (), True))

    async def until(self, now_s: float) -> None:
        """Let time pass."""
        while self.now_s < now_s:
            self.now_s = min(self.now_s + 0.5, now_s)
            await self.expiry.tick()


@TABLE.replays(
    *issue("bakwc/PySyncObj", 108),
    promise="time in which nobody could renew a lease does not count",
    mutant=Mutant(
        "a new leader takes every lease for overdue",
        "kvstore.lease.expiry:LeaseExpiry._take_over",
        "ttl_s + self._election_timeout_s",
        "0.0",
    ),
)
def a_lock_is_granted_twice_after_a_time_without_a_leader(stage: Stage) -> None:
    """While there was no leader a lock could not be renewed. Once there was one the lock counted
    as timed out, although its holder had been there all the time, and another got it as well.
    """

    async def story() -> None:
        member = stage.store()
        leader = Leader(member)
        leader.leads(term=1)
        member.grant(7, ttl_s=10)
        member.put(b"lock", b"held", lease=7)
        await leader.until(8)
        leader.leads(term=0)
        await leader.until(20)
        leader.leads(term=2)
        await leader.until(21)
        held = member.get(b"lock")
        assert held == b"held", "a lock was taken away for a time in which nobody could renew it"
        await leader.until(40)
        assert member.get(b"lock") is None, "a lease that nobody renews never ends"

    asyncio.run(story())


@TABLE.replays(
    *issue("etcd-io/etcd", 15247, 12528),
    promise="only the leader ends leases",
    mutant=Mutant(
        "an expiry counts whoever decided it",
        "kvstore.applier:Applier._lease_expire",
        "if request.term != entry.term:",
        "if False:",
    ),
)
def a_deposed_leader_ends_leases(stage: Stage) -> None:
    """A leader's disk hung. Another took over and renewed the leases; then the first one went on,
    found the leases overdue by its own clock, and had them all revoked.
    """
    member = stage.store()
    member.grant(7)
    member.put(b"a", b"held", lease=7)
    member.term = 2
    answer = member.expire(7, decided_in_term=1)
    assert member.get(b"a") == b"held", "a key is gone that was decided on in an earlier term"
    assert answer == LEADER_CHANGED
    member.expire(7, decided_in_term=2)
    assert member.get(b"a") is None


class Server:
    """Answers a client's calls from a member; nothing is sent anywhere."""

    def __init__(self, member: StoreMember) -> None:
        self.member = member
        self.lease = 0

    async def call(self, rpc: rpcs.Rpc[Any, Any], request: Any, **options: Any) -> Any:
        """Make one call."""
        if rpc is rpcs.RANGE:
            return self.member.machine.query(request)
        if rpc is rpcs.LEASE_GRANT:
            self.lease += 1
            request.ID = self.lease
            return self.member.apply(Command(lease_grant=request))
        if rpc is rpcs.TXN:
            return self.member.apply(Command(txn=request))
        if rpc is rpcs.DELETE_RANGE:
            return self.member.apply(Command(delete_range=request))
        assert rpc is rpcs.LEASE_REVOKE, rpc
        return self.member.apply(Command(lease_revoke=request)) and pb.LeaseRevokeResponse()


class Contender(RecipeCalls):
    """A client whose process stands still as soon as it waits for another's key to go."""

    def __init__(self, server: Server, meanwhile: Sequence[int]) -> None:
        self.connection = server  # type: ignore[assignment]
        self._meanwhile = meanwhile

    def watch(self, *arguments: Any, **options: Any) -> Any:
        """Everything in ``meanwhile`` runs out, and with it the key that is waited for."""
        member = self.connection.member  # type: ignore[attr-defined]
        for lease in self._meanwhile:
            member.expire(lease, decided_in_term=member.term)
        return Deleted()


class Deleted:
    """A watch that has seen its key go."""

    async def __aenter__(self) -> Deleted:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self) -> Deleted:
        return self

    async def __anext__(self) -> None:
        return None


@TABLE.replays(
    *issue("etcd-io/etcd", 11456, 11457),
    promise="a lock that is handed out is held",
    mutant=Mutant(
        "does not look whether its key is still there when its turn comes",
        "kvstore.client.recipes:Candidacy._queue_up",
        "if still is None or still.create_revision != token:",
        "if False:",
    ),
)
def a_lock_is_handed_out_after_its_lease_ran_out(stage: Stage) -> None:
    """Whoever waited for a lock was told that it has it once those before were gone, though its
    own lease had run out meanwhile and its key was gone with it: another had the lock too.
    """

    async def story() -> None:
        server = Server(stage.store())
        first = Contender(server, meanwhile=()).lock("l")
        await first.__aenter__()
        assert first.is_held
        second = Contender(server, meanwhile=(1, 2)).lock("l")
        try:
            await second.__aenter__()
        except LeaseLost:
            pass
        else:
            await second.__aexit__(None, None, None)
            raise AssertionError("a lock was handed out, and its key and its lease are gone")
        finally:
            await first.__aexit__(None, None, None)

    asyncio.run(story())
