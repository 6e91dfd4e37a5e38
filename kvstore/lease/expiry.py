"""Leases, the living half: how much time is left, which only the leader knows.

Theory of operation. Grants and revokes are in the log, renewals are not: a keepalive reaches the
leader, which notes a new deadline on its own monotonic clock and answers. When deadlines pass, the
leader proposes ``LeaseExpire`` with its term, and ``apply`` refuses it where the entry was written
in another term. What follows from that:

* A new leader does not know of renewals. It gives every lease its full TTL, and an election timeout
  for the time in which nobody could renew: a lease may live longer than asked for, never shorter.
* A leader that was deposed and does not know it yet cannot expire anything: its proposal fails, or
  lands in another term (etcd issue 15247). Before each batch it also confirms through the cluster
  that it still leads, and looks at the deadlines again.
* Time in which this process did not run (SIGSTOP, a stalled disk) does not count, because nobody
  could renew meanwhile either: when a tick comes late, all deadlines move by as much.
* A lease whose time is up can no longer be renewed, even before its revoke is applied: the answer
  waits for the end. So nobody is told that a lease was renewed that then goes.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import attrs
import structlog

from consensus.errors import ConsensusError, NotLeader
from consensus.types import EngineStatus, Role
from kvstore.errors import Status
from kvstore.pb.command_pb2 import Command, LeaderRequest, LeaderResponse, LeaseExpire

log = structlog.get_logger(__name__)

TICK_S: Final = 0.5
"""How often deadlines are looked at, and so how late an expiry may be proposed."""

EXPIRE_BATCH_MAX: Final = 500
"""Leases that one proposal expires. With ``TICK_S``, at most 1,000 a second, as etcd does."""

WAIT_FOR_REVOKE_S: Final = 5.0
"""How long an answer about a lease that has run out waits for its revoke to be applied."""


class LeaseSource(Protocol):
    """Where the replicated part of leases is: the state machine."""

    def leases(self) -> Iterable[tuple[int, int]]:
        """Return (id, granted TTL in seconds) of every lease."""


@attrs.define(slots=True)
class _Lease:
    """One lease on the leader. ``deadline_s`` is on the monotonic clock."""

    ttl_s: int
    deadline_s: float


class LeaseExpiry:
    """Keeps the time of leases while this member leads, and expires those that run out.

    It is the machine's ``lease_listener``. Give ``observe`` every status of the node, ``answer``
    the node's ``ask_leader`` requests, and let ``run`` run as long as the node does.

    Args:
        source: the machine.
        propose: ``Node.propose``.
        confirm: ``Node.read_index``: returns when the cluster has confirmed a read.
        election_timeout_s: seconds of one election timeout.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        source: LeaseSource,
        *,
        propose: Callable[[bytes], Awaitable[object]],
        confirm: Callable[[], Awaitable[object]],
        election_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._propose = propose
        self._confirm = confirm
        self._election_timeout_s = election_timeout_s
        self._clock = clock
        self._term = 0
        self._leases: dict[int, _Lease] = {}
        self._heap: list[tuple[float, int]] = []
        self._gone: dict[int, asyncio.Event] = {}
        self._ticked_s = clock()

    @property
    def leading_term(self) -> int:
        """The term in which this member leads, 0 when it does not."""
        return self._term

    # -- who leads ----------------------------------------------------------------------------

    def observe(self, status: EngineStatus) -> None:
        """Take note of the node's role and term."""
        term = status.term if status.role is Role.LEADER else 0
        if term == self._term:
            return
        self._term = term
        self._forget()
        if term:
            self._take_over()

    def _take_over(self) -> None:
        """Begin to lead: full time for every lease, and what an election may have taken."""
        self._ticked_s = self._clock()
        for lease_id, ttl_s in self._source.leases():
            self._set(lease_id, ttl_s, ttl_s + self._election_timeout_s)
        log.info("keeping the time of leases", term=self._term, leases=len(self._leases))

    def _forget(self) -> None:
        self._leases.clear()
        self._heap.clear()
        for gone in self._gone.values():
            gone.set()
        self._gone.clear()

    # -- LeaseListener ------------------------------------------------------------------------

    def granted(self, id: int, ttl_s: int) -> None:
        """A lease exists now; its time begins."""
        if self._term:
            self._set(id, ttl_s, ttl_s)

    def revoked(self, id: int) -> None:
        """A lease is gone."""
        self._leases.pop(id, None)
        gone = self._gone.pop(id, None)
        if gone is not None:
            gone.set()

    def reset(self) -> None:
        """All state was replaced. What leases there are now get their full time."""
        self._forget()
        if self._term:
            self._take_over()

    # -- questions to the leader --------------------------------------------------------------

    async def answer(self, request: bytes) -> bytes:
        """Answer a member's ``LeaderRequest``: renew a lease, or tell what is left of it.

        Raises:
            NotLeader: this member does not lead (any more).
            ReadFailed: the cluster did not confirm a read in time.
            ValueError: the request is of a kind that this release does not know.
        """
        question = LeaderRequest.FromString(request)
        kind = question.WhichOneof("request")
        if kind == "keep_alive":
            response = await self._renew(question.keep_alive.ID)
        elif kind == "lease_remaining":
            response = await self._remaining(question.lease_remaining.id)
        else:
            raise ValueError("a leader request of an unknown kind; run one release on all members")
        return response.SerializeToString()

    async def _renew(self, lease_id: int) -> LeaderResponse:
        lease = await self._find(lease_id)
        if lease is not None and lease.deadline_s <= self._clock():
            await self._wait_until_gone(lease_id)
            lease = None
        if lease is None:
            return LeaderResponse()
        self._set(lease_id, lease.ttl_s, lease.ttl_s)
        return LeaderResponse(
            found=True, granted_ttl_s=lease.ttl_s, remaining_ms=lease.ttl_s * 1000
        )

    async def _remaining(self, lease_id: int) -> LeaderResponse:
        lease = await self._find(lease_id)
        if lease is None:
            return LeaderResponse()
        left_s = max(lease.deadline_s - self._clock(), 0.0)
        return LeaderResponse(
            found=True, granted_ttl_s=lease.ttl_s, remaining_ms=math.floor(left_s * 1000)
        )

    async def _find(self, lease_id: int) -> _Lease | None:
        """Return a lease, after making sure that one that is missing here is missing everywhere.

        Another member may have applied, and acknowledged, a grant that is still to come here.
        """
        self._check_leading()
        lease = self._leases.get(lease_id)
        if lease is None:
            await self._confirm()
            self._check_leading()
            lease = self._leases.get(lease_id)
        return lease

    async def _wait_until_gone(self, lease_id: int) -> None:
        """Wait for a lease that has run out to be revoked.

        Raises:
            NotLeader: leadership was lost first, or the revoke took too long; nobody knows now.
        """
        gone = self._gone.setdefault(lease_id, asyncio.Event())
        try:
            async with asyncio.timeout(WAIT_FOR_REVOKE_S):
                await gone.wait()
        except TimeoutError:
            raise NotLeader(None, "a lease has run out, and its revoke is not applied") from None
        self._check_leading()

    def _check_leading(self) -> None:
        if not self._term:
            raise NotLeader(None, "this member does not keep the time of leases")

    # -- time ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at the deadlines for ever. Cancel it to stop."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except ConsensusError as error:
                log.warning("leases could not be expired yet", error=str(error))

    async def tick(self) -> None:
        """Notice time that did not count, and expire what has run out.

        Raises:
            ConsensusError: the cluster did not take the expiry; it is due again at the next tick.
        """
        self._discount_stall()
        try:
            await self._expire()
        finally:
            self._ticked_s = self._clock()

    async def _expire(self) -> None:
        term = self._term
        if not term or not self._due():
            return
        await self._confirm()
        ids = self._due()
        if term != self._term or not ids:
            return
        command = Command(lease_expire=LeaseExpire(ids=ids, term=term))
        applied = await self._propose(command.SerializeToString())
        if isinstance(refusal := getattr(applied, "result", None), Status):
            log.warning("expiry of leases was refused", term=term, reason=refusal.message)
        else:
            log.info("leases ran out", term=term, leases=len(ids))

    def _discount_stall(self) -> None:
        stalled_s = self._clock() - self._ticked_s - TICK_S
        if stalled_s < self._election_timeout_s or not self._term:
            return
        log.warning("this process stood still; leases get that time back", seconds=stalled_s)
        for lease in self._leases.values():
            lease.deadline_s += stalled_s
        self._heap = [(lease.deadline_s, lease_id) for lease_id, lease in self._leases.items()]
        heapq.heapify(self._heap)

    def _due(self) -> list[int]:
        """Return up to ``EXPIRE_BATCH_MAX`` leases that have run out, longest overdue first.

        They stay in the heap: only ``revoked`` takes a lease away.
        """
        now_s = self._clock()
        due: list[tuple[float, int]] = []
        heap = self._heap
        while heap and heap[0][0] <= now_s and len(due) < EXPIRE_BATCH_MAX:
            entry = heapq.heappop(heap)
            lease = self._leases.get(entry[1])
            if lease is not None and lease.deadline_s == entry[0]:
                due.append(entry)
        for entry in due:
            heapq.heappush(heap, entry)
        return [lease_id for _, lease_id in due]

    def _set(self, lease_id: int, ttl_s: int, remaining_s: float) -> None:
        deadline_s = self._clock() + remaining_s
        known = self._leases.get(lease_id)
        if known is None:
            self._leases[lease_id] = _Lease(ttl_s, deadline_s)
        elif deadline_s > known.deadline_s:
            known.deadline_s = deadline_s
        else:
            return
        heapq.heappush(self._heap, (deadline_s, lease_id))
        if len(self._heap) > 2 * len(self._leases) + EXPIRE_BATCH_MAX:
            self._heap = [(lease.deadline_s, key) for key, lease in self._leases.items()]
            heapq.heapify(self._heap)
