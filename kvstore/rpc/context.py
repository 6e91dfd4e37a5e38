"""What every service stands on: the node, the machine, and who this member is.

Life of a write: check, wrap into a ``Command``, propose, and return the response that applying it
here made, with the header filled in. Life of a read: agree with the leader on an index (unless the
client takes what this member has), then read this member's store, in slices if it is long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Final

from google.protobuf.message import Message

from consensus.errors import ConsensusError
from consensus.node import Node
from consensus.types import Consistency, EngineStatus
from kvstore.errors import REQUEST_TOO_LARGE, EtcdError, Status
from kvstore.identity import Identity
from kvstore.machine import KVStateMachine
from kvstore.members import MemberInfo, current_members
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command

RAFT_ENVELOPE_BYTES: Final = 14
"""What etcd's own request header adds to a request before it compares it with the limit."""


class ServerContext:
    """One member, as its services see it.

    Args:
        node: replicates and applies.
        machine: the node's machine, for what only this member answers.
        identity: IDs of the cluster and of this member.
        request_timeout_s: how long a request may wait for the cluster, in seconds.
        max_request_bytes: greatest command, in bytes.
        max_txn_ops: most operations in one transaction.
    """

    def __init__(
        self,
        node: Node,
        machine: KVStateMachine,
        identity: Identity,
        *,
        request_timeout_s: float,
        max_request_bytes: int,
        max_txn_ops: int,
    ) -> None:
        self.node = node
        self.machine = machine
        self.identity = identity
        self.request_timeout_s = request_timeout_s
        self.max_request_bytes = max_request_bytes
        self.max_txn_ops = max_txn_ops
        self.term = 0
        self.is_learner = False
        """Whether this member only listens; see ``observe``."""
        self.proposals_failed = 0
        """Proposals that were dropped, or whose outcome is unknown."""
        self.learners_promoted = 0
        """Learners that became voters on request of this member's clients."""

    def observe(self, status: EngineStatus) -> None:
        """Take note of a new status. Call it for each that ``Node.watch_status`` yields."""
        self.saw_term(status.term)
        self.is_learner = any(
            member.learner and member.id == status.node_id for member in status.members
        )

    def saw_term(self, term: int) -> None:
        """Note the newest term: headers must never show an older one again."""
        self.term = max(self.term, term)

    def fill(self, header: pb.ResponseHeader) -> None:
        """Complete a header whose revision is set."""
        header.cluster_id = self.identity.cluster_id
        header.member_id = self.identity.member_id
        header.raft_term = self.term

    def header(self, revision: int | None = None) -> pb.ResponseHeader:
        """Return a header at ``revision``, by default the store's current one."""
        return pb.ResponseHeader(
            cluster_id=self.identity.cluster_id,
            member_id=self.identity.member_id,
            revision=self.machine.store.current_revision if revision is None else revision,
            raft_term=self.term,
        )

    def members(self) -> dict[int, MemberInfo]:
        """Return the cluster's members by ID, as this member knows them now."""
        status = self.node.status().engine
        return current_members(status, self.machine, self.identity.founders)

    async def propose(self, command: Command) -> Any:
        """Replicate a command; return what applying it here returned, its header filled in.

        Raises:
            EtcdError: it is too large, or was refused when it was applied.
            ConsensusError: see ``Node.propose``.
        """
        data = command.SerializeToString()
        if len(data) + RAFT_ENVELOPE_BYTES > self.max_request_bytes:
            raise EtcdError(REQUEST_TOO_LARGE)
        try:
            applied = await self.node.propose(data, self.request_timeout_s)
        except ConsensusError:
            self.proposals_failed += 1
            raise
        self.saw_term(applied.term)
        result = applied.result
        if isinstance(result, Status):
            raise EtcdError(result)
        header = getattr(result, "header", None)
        if header is not None:
            self.fill(header)
        return result

    async def read(self, request: Message, consistency: Consistency) -> Any:
        """Answer a read from this member's store, its header filled in.

        Raises:
            EtcdError: the read was refused.
            ConsensusError: see ``Node.query``.
        """
        if isinstance(request, pb.RangeRequest) and request.range_end:
            await self.settle(consistency)
            result = await run_steps(self.machine.query_steps(request))
        else:
            result = await self.node.query(request, consistency, self.request_timeout_s)
        if isinstance(result, Status):
            raise EtcdError(result)
        self.fill(result.header)
        return result

    async def settle(self, consistency: Consistency) -> None:
        """Wait until this member's store may be read with this consistency.

        Raises:
            ReadFailed: no quorum confirmed it in time.
        """
        if consistency is Consistency.LINEARIZABLE:
            await self.node.read_index(self.request_timeout_s)


async def run_steps(steps: Generator[None, None, Any]) -> Any:
    """Run work that comes in slices, with a turn of the event loop for others after each."""
    try:
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value
            await asyncio.sleep(0)
    finally:
        steps.close()
