"""The calls of the etcd v3 API that the client makes: path, messages, what may be repeated.

A call is ``repeatable`` when making it twice changes nothing that making it once does not: only
such calls may be sent to another endpoint after they were sent to one.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import attrs
from google.protobuf.message import Message

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import health_pb2 as health

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@attrs.frozen(slots=True)
class Rpc(Generic[Request, Response]):
    """One call of the API. ``streaming`` calls are streams both ways."""

    path: str
    request: type[Request]
    response: type[Response]
    repeatable: bool = False
    streaming: bool = False


RANGE: Final = Rpc("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse, repeatable=True)
PUT: Final = Rpc("/etcdserverpb.KV/Put", pb.PutRequest, pb.PutResponse)
DELETE_RANGE: Final = Rpc(
    "/etcdserverpb.KV/DeleteRange", pb.DeleteRangeRequest, pb.DeleteRangeResponse
)
TXN: Final = Rpc("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
COMPACT: Final = Rpc("/etcdserverpb.KV/Compact", pb.CompactionRequest, pb.CompactionResponse)

WATCH: Final = Rpc(
    "/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse, repeatable=True, streaming=True
)

LEASE_GRANT: Final = Rpc(
    "/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse
)
LEASE_REVOKE: Final = Rpc(
    "/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse
)
LEASE_KEEP_ALIVE: Final = Rpc(
    "/etcdserverpb.Lease/LeaseKeepAlive",
    pb.LeaseKeepAliveRequest,
    pb.LeaseKeepAliveResponse,
    repeatable=True,
    streaming=True,
)
LEASE_TIME_TO_LIVE: Final = Rpc(
    "/etcdserverpb.Lease/LeaseTimeToLive",
    pb.LeaseTimeToLiveRequest,
    pb.LeaseTimeToLiveResponse,
    repeatable=True,
)
LEASE_LEASES: Final = Rpc(
    "/etcdserverpb.Lease/LeaseLeases",
    pb.LeaseLeasesRequest,
    pb.LeaseLeasesResponse,
    repeatable=True,
)

MEMBER_LIST: Final = Rpc(
    "/etcdserverpb.Cluster/MemberList",
    pb.MemberListRequest,
    pb.MemberListResponse,
    repeatable=True,
)

MEMBER_ADD: Final = Rpc(
    "/etcdserverpb.Cluster/MemberAdd", pb.MemberAddRequest, pb.MemberAddResponse
)
MEMBER_REMOVE: Final = Rpc(
    "/etcdserverpb.Cluster/MemberRemove", pb.MemberRemoveRequest, pb.MemberRemoveResponse
)
MEMBER_UPDATE: Final = Rpc(
    "/etcdserverpb.Cluster/MemberUpdate", pb.MemberUpdateRequest, pb.MemberUpdateResponse
)
MEMBER_PROMOTE: Final = Rpc(
    "/etcdserverpb.Cluster/MemberPromote", pb.MemberPromoteRequest, pb.MemberPromoteResponse
)
MOVE_LEADER: Final = Rpc(
    "/etcdserverpb.Maintenance/MoveLeader", pb.MoveLeaderRequest, pb.MoveLeaderResponse
)

ALARM: Final = Rpc(
    "/etcdserverpb.Maintenance/Alarm", pb.AlarmRequest, pb.AlarmResponse, repeatable=True
)
STATUS: Final = Rpc(
    "/etcdserverpb.Maintenance/Status", pb.StatusRequest, pb.StatusResponse, repeatable=True
)
DEFRAGMENT: Final = Rpc(
    "/etcdserverpb.Maintenance/Defragment", pb.DefragmentRequest, pb.DefragmentResponse
)
HASH_KV: Final = Rpc(
    "/etcdserverpb.Maintenance/HashKV", pb.HashKVRequest, pb.HashKVResponse, repeatable=True
)
SNAPSHOT: Final = Rpc(
    "/etcdserverpb.Maintenance/Snapshot", pb.SnapshotRequest, pb.SnapshotResponse, repeatable=True
)

AUTHENTICATE: Final = Rpc(
    "/etcdserverpb.Auth/Authenticate",
    pb.AuthenticateRequest,
    pb.AuthenticateResponse,
    repeatable=True,
)
HEALTH: Final = Rpc(
    "/grpc.health.v1.Health/Check",
    health.HealthCheckRequest,
    health.HealthCheckResponse,
    repeatable=True,
)
