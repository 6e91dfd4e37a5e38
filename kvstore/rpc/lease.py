"""The Lease service. Grants and revokes are replicated; renewals go to the leader alone.

A keepalive or a question for the time that is left is asked of whoever leads
(``Node.ask_leader``, answered by ``kvstore.lease.expiry``). Both may be asked again without harm,
so they are, until a leader answers or the request's time is over.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from consensus.errors import NotLeader, ReadFailed
from consensus.types import Consistency
from kvstore.errors import LEASE_TTL_TOO_LARGE, EtcdError
from kvstore.lease.lessor import LEASE_TTL_MAX_S
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command, LeaderRequest, LeaderResponse, LeaseRemaining
from kvstore.quota import LEASE_BYTES
from kvstore.rpc.context import ServerContext
from kvstore.rpc.kv import ensure_space
from kvstore.rpc.registry import Call, Kind, Method, Stream
from kvstore.rpc.require_leader import LeaderGuard

SERVICE: Final = "etcdserverpb.Lease"

ASK_AGAIN_S: Final = 0.05
"""Pause before the leader is asked again, in seconds."""


class LeaseService:
    """Lease on one member.

    Args:
        context: the member.
        leader: tells whether there is a leader.
    """

    def __init__(self, context: ServerContext, leader: LeaderGuard) -> None:
        self._context = context
        self._leader = leader

    def methods(self) -> list[Method]:
        """The service's methods, for a registry."""
        unary = Kind.UNARY
        return [
            Method(
                SERVICE,
                "LeaseGrant",
                pb.LeaseGrantRequest,
                pb.LeaseGrantResponse,
                unary,
                self.lease_grant,
            ),
            Method(
                SERVICE,
                "LeaseRevoke",
                pb.LeaseRevokeRequest,
                pb.LeaseRevokeResponse,
                unary,
                self.lease_revoke,
            ),
            Method(
                SERVICE,
                "LeaseKeepAlive",
                pb.LeaseKeepAliveRequest,
                pb.LeaseKeepAliveResponse,
                Kind.BIDI_STREAM,
                self.lease_keep_alive,
            ),
            Method(
                SERVICE,
                "LeaseTimeToLive",
                pb.LeaseTimeToLiveRequest,
                pb.LeaseTimeToLiveResponse,
                unary,
                self.lease_time_to_live,
            ),
            Method(
                SERVICE,
                "LeaseLeases",
                pb.LeaseLeasesRequest,
                pb.LeaseLeasesResponse,
                unary,
                self.lease_leases,
            ),
        ]

    async def lease_grant(self, request: pb.LeaseGrantRequest, _: Call) -> pb.LeaseGrantResponse:
        """Create a lease; without an ID one is chosen here, before it is replicated.

        Raises:
            EtcdError: the ID is taken, the TTL too large, or there is no space.
        """
        if request.TTL > LEASE_TTL_MAX_S:
            raise EtcdError(LEASE_TTL_TOO_LARGE)
        await ensure_space(self._context, LEASE_BYTES)
        grant = pb.LeaseGrantRequest(TTL=request.TTL, ID=request.ID or random_lease_id())
        response: pb.LeaseGrantResponse = await self._context.propose(Command(lease_grant=grant))
        return response

    async def lease_revoke(self, request: pb.LeaseRevokeRequest, _: Call) -> pb.LeaseRevokeResponse:
        """Delete a lease and its keys.

        Raises:
            EtcdError: there is no such lease.
        """
        response: pb.LeaseRevokeResponse = await self._context.propose(
            Command(lease_revoke=request)
        )
        return response

    async def lease_keep_alive(self, stream: Stream[pb.LeaseKeepAliveRequest]) -> None:
        """Renew leases as the client asks; a TTL of 0 tells it that a lease is gone.

        Raises:
            EtcdError: the client requires a leader and there is none.
            ConsensusError: no leader answered in time.
        """
        with self._leader.guard(stream.metadata):
            async for request in stream:
                # The revision is from before the renewal: what the client reads at it still has
                # the lease's keys.
                header = self._context.header()
                answer = await self._ask(LeaderRequest(keep_alive=request))
                ttl_s = answer.granted_ttl_s if answer.found else 0
                await stream.send(
                    pb.LeaseKeepAliveResponse(header=header, ID=request.ID, TTL=ttl_s)
                )

    async def lease_time_to_live(
        self, request: pb.LeaseTimeToLiveRequest, _: Call
    ) -> pb.LeaseTimeToLiveResponse:
        """Tell how much time a lease has left, and which keys hang on it; -1 where there is none.

        Raises:
            ConsensusError: no leader answered in time.
        """
        answer = await self._ask(LeaderRequest(lease_remaining=LeaseRemaining(id=request.ID)))
        response = pb.LeaseTimeToLiveResponse(ID=request.ID, TTL=-1)
        if answer.found:
            response.TTL = answer.remaining_ms // 1000
            response.grantedTTL = answer.granted_ttl_s
            if request.keys:
                await self._context.settle(Consistency.LINEARIZABLE)
                response.keys.extend(self._context.machine.lessor.keys(request.ID))
        response.header.CopyFrom(self._context.header())
        return response

    async def lease_leases(self, request: pb.LeaseLeasesRequest, _: Call) -> pb.LeaseLeasesResponse:
        """List all leases."""
        response: pb.LeaseLeasesResponse = await self._context.read(
            request, Consistency.LINEARIZABLE
        )
        return response

    async def _ask(self, question: LeaderRequest) -> LeaderResponse:
        """Ask the leader, again where none answers, until the request's time is over.

        Raises:
            NotLeader, ReadFailed: no leader answered.
        """
        data = question.SerializeToString()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._context.request_timeout_s
        while True:
            left_s = deadline_s - loop.time()
            try:
                answer = await self._context.node.ask_leader(data, left_s)
            except (NotLeader, ReadFailed):
                if left_s <= ASK_AGAIN_S:
                    raise
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                return LeaderResponse.FromString(answer)


def random_lease_id() -> int:
    """Return a lease ID that nobody has: positive, 63 bits, never 0."""
    return secrets.randbelow(2**63 - 1) + 1
