"""The Maintenance service: Status, Alarm, Hash, HashKV, Snapshot, Defragment."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import Any, Final

from consensus.errors import BadTransferTarget, NotLeader, ProposalDropped, StorageError
from consensus.types import Consistency
from kvstore.errors import (
    BAD_LEADER_TRANSFEREE,
    NOT_LEADER,
    TIMEOUT_LEADER_TRANSFER,
    Code,
    EtcdError,
    Status,
)
from kvstore.identity import id_of, node_of
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command
from kvstore.quota import DEFAULT_QUOTA_BYTES
from kvstore.rpc.context import ServerContext, run_steps
from kvstore.rpc.registry import Call, Kind, Method, Stream, unimplemented
from kvstore.snapshot_file import tail
from kvstore.version import ETCD_VERSION, STORAGE_VERSION

SERVICE: Final = "etcdserverpb.Maintenance"
BLOB_BYTES: Final = 32 * 1024
"""etcd's size of a piece of a snapshot."""

SNAPSHOT_STREAMS_MAX: Final = 4
"""Snapshots that may be taken at once: each is spooled to disk."""

ALARM_NAMES: Final = {pb.NOSPACE: "NOSPACE", pb.CORRUPT: "CORRUPT"}


class MaintenanceService:
    """Maintenance on one member.

    Args:
        context: the member.
        spool: directory for snapshots under way.
    """

    def __init__(self, context: ServerContext, spool: Path) -> None:
        self._context = context
        self._spool = spool
        self._snapshots = 0

    def methods(self) -> list[Method]:
        """The service's methods, for a registry."""

        def unary(name: str, request: Any, response: Any, handler: Any) -> Method:
            return Method(SERVICE, name, request, response, Kind.UNARY, handler)

        return [
            unary("Status", pb.StatusRequest, pb.StatusResponse, self.status),
            unary("Alarm", pb.AlarmRequest, pb.AlarmResponse, self.alarm),
            unary("Hash", pb.HashRequest, pb.HashResponse, self.hash),
            unary("HashKV", pb.HashKVRequest, pb.HashKVResponse, self.hash_kv),
            unary("Defragment", pb.DefragmentRequest, pb.DefragmentResponse, self.defragment),
            Method(
                SERVICE,
                "Snapshot",
                pb.SnapshotRequest,
                pb.SnapshotResponse,
                Kind.SERVER_STREAM,
                self.snapshot,
            ),
            unary("MoveLeader", pb.MoveLeaderRequest, pb.MoveLeaderResponse, self.move_leader),
            unimplemented(
                SERVICE,
                "Downgrade",
                pb.DowngradeRequest,
                pb.DowngradeResponse,
                Kind.UNARY,
                "etcdserver: Downgrade is not implemented: there is one version of the format",
            ),
        ]

    async def status(self, _: pb.StatusRequest, __: Call) -> pb.StatusResponse:
        """Say how this member is."""
        context, machine = self._context, self._context.machine
        status = context.node.status()
        context.saw_term(status.engine.term)
        response = pb.StatusResponse(
            header=context.header(),
            version=ETCD_VERSION,
            dbSize=machine.db_size,
            leader=id_of(status.engine.leader),
            raftIndex=status.engine.commit_index,
            raftTerm=status.engine.term,
            raftAppliedIndex=status.applied_index,
            isLearner=context.is_learner,
            dbSizeInUse=machine.db_size_in_use,
            storageVersion=STORAGE_VERSION,
            dbSizeQuota=machine.quota_bytes or DEFAULT_QUOTA_BYTES,
            downgradeInfo=pb.DowngradeInfo(),
        )
        if status.engine.leader is None:
            response.errors.append("etcdserver: no leader")
        for alarm in machine.alarms.get():
            name = ALARM_NAMES.get(alarm.alarm, str(alarm.alarm))
            response.errors.append(f"memberID:{alarm.memberID} alarm:{name} ")
        return response

    async def alarm(self, request: pb.AlarmRequest, _: Call) -> pb.AlarmResponse:
        """List, raise or disarm alarms."""
        response: pb.AlarmResponse
        if request.action == pb.AlarmRequest.GET:
            response = await self._context.read(request, Consistency.LINEARIZABLE)
        else:
            response = await self._context.propose(Command(alarm=request))
        response.header.CopyFrom(self._context.header())
        return response

    async def hash(self, _: pb.HashRequest, __: Call) -> pb.HashResponse:
        """Return a checksum of everything that this member's history holds."""
        result = await self._hash_of(pb.HashKVRequest())
        return pb.HashResponse(header=self._context.header(), hash=result.hash)

    async def hash_kv(self, request: pb.HashKVRequest, _: Call) -> pb.HashKVResponse:
        """Return a checksum of this member's history up to a revision."""
        response = await self._hash_of(request)
        self._context.fill(response.header)
        return response

    async def _hash_of(self, request: pb.HashKVRequest) -> pb.HashKVResponse:
        result = await run_steps(self._context.machine.query_steps(request))
        if isinstance(result, Status):
            raise EtcdError(result)
        response: pb.HashKVResponse = result
        return response

    async def defragment(self, _: pb.DefragmentRequest, __: Call) -> pb.DefragmentResponse:
        """Rewrite the database without its free pages, while everything goes on."""
        try:
            await run_steps(self._context.machine.defragment_steps())
        except StorageError as error:
            raise EtcdError(Status(Code.UNKNOWN, f"etcdserver: {error}")) from error
        return pb.DefragmentResponse()

    async def move_leader(self, request: pb.MoveLeaderRequest, _: Call) -> pb.MoveLeaderResponse:
        """Hand leadership to another member; ask the leader for it."""
        context = self._context
        if id_of(context.node.status().engine.leader) != context.identity.member_id:
            raise EtcdError(NOT_LEADER)
        if request.targetID == context.identity.member_id:
            return pb.MoveLeaderResponse()
        target = context.members().get(request.targetID)
        if target is None or target.learner:
            raise EtcdError(BAD_LEADER_TRANSFEREE)
        try:
            await context.node.transfer_leadership(node_of(target.id), context.request_timeout_s)
        except BadTransferTarget as error:
            raise EtcdError(BAD_LEADER_TRANSFEREE) from error
        except NotLeader as error:
            raise EtcdError(NOT_LEADER) from error
        except ProposalDropped as error:
            raise EtcdError(TIMEOUT_LEADER_TRANSFER) from error
        return pb.MoveLeaderResponse()

    async def snapshot(self, stream: Stream[pb.SnapshotRequest]) -> None:
        """Stream the store as it is now; see ``kvstore.snapshot_file`` for the form."""
        async for _ in stream:
            if self._snapshots >= SNAPSHOT_STREAMS_MAX:
                raise EtcdError(
                    Status(
                        Code.RESOURCE_EXHAUSTED,
                        f"etcdserver: {SNAPSHOT_STREAMS_MAX} snapshots are under way; try later",
                    )
                )
            self._snapshots += 1
            try:
                await self._send_snapshot(stream)
            finally:
                self._snapshots -= 1
            return

    async def _send_snapshot(self, stream: Stream[pb.SnapshotRequest]) -> None:
        # Each piece carries the bytes that remain, so the length must be known first: spool.
        with tempfile.TemporaryFile(dir=self._spool) as spool:
            header = self._context.header()
            frozen = self._context.machine.snapshot()
            try:
                for chunk in frozen.chunks():
                    spool.write(chunk)
                    await asyncio.sleep(0)
            finally:
                frozen.release()
            spool.write(tail(spool.tell()))
            remaining = spool.tell()
            spool.seek(0)
            digest = hashlib.sha256()
            while blob := spool.read(BLOB_BYTES):
                digest.update(blob)
                remaining -= len(blob)
                await stream.send(
                    pb.SnapshotResponse(
                        header=header,
                        remaining_bytes=remaining,
                        blob=blob,
                        version=STORAGE_VERSION,
                    )
                )
            await stream.send(
                pb.SnapshotResponse(header=header, blob=digest.digest(), version=STORAGE_VERSION)
            )
