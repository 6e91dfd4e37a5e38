"""Every error that an etcd v3 client may meet: gRPC status code and exact message.

Clients decide by the text as much as by the code (Go's clientv3 maps messages back to errors), so
both are etcd's to the letter (release 3.6, api/v3rpc/rpctypes).
"""

from __future__ import annotations

import enum
from typing import Final

import attrs


class Code(enum.IntEnum):
    """gRPC status codes, numbered as the gRPC specification does."""

    OK = 0
    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@attrs.frozen(slots=True)
class Status:
    """A gRPC status other than OK: what ``apply`` returns as a value when it refuses.

    Args:
        code: the gRPC status code.
        message: the exact text that clients match on.
    """

    code: Code
    message: str


class EtcdError(Exception):
    """A call ends with this status. Raised by services and by the client, never by ``apply``."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


EMPTY_KEY: Final = Status(Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
KEY_NOT_FOUND: Final = Status(Code.INVALID_ARGUMENT, "etcdserver: key not found")
VALUE_PROVIDED: Final = Status(Code.INVALID_ARGUMENT, "etcdserver: value is provided")
LEASE_PROVIDED: Final = Status(Code.INVALID_ARGUMENT, "etcdserver: lease is provided")
TOO_MANY_OPS: Final = Status(
    Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request"
)
DUPLICATE_KEY: Final = Status(
    Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"
)
INVALID_CLIENT_API_VERSION: Final = Status(
    Code.INVALID_ARGUMENT, "etcdserver: invalid client api version"
)
INVALID_SORT_OPTION: Final = Status(Code.INVALID_ARGUMENT, "etcdserver: invalid sort option")
COMPACTED: Final = Status(
    Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"
)
FUTURE_REVISION: Final = Status(
    Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"
)
NO_SPACE: Final = Status(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
LEASE_NOT_FOUND: Final = Status(Code.NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXISTS: Final = Status(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
LEASE_TTL_TOO_LARGE: Final = Status(Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
WATCH_CANCELED: Final = Status(Code.CANCELED, "etcdserver: watch canceled")
MEMBER_ID_ALREADY_EXIST: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: member ID already exist"
)
PEER_URLS_ALREADY_EXISTS: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists"
)
RE_CONFIGURATION_FAILED_DUE_TO_NOT_ENOUGH_STARTED_MEMBERS: Final = Status(
    Code.FAILED_PRECONDITION,
    "etcdserver: re-configuration failed due to not enough started members",
)
GIVEN_MEMBER_URLS_ARE_INVALID: Final = Status(
    Code.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid"
)
MEMBER_NOT_FOUND: Final = Status(Code.NOT_FOUND, "etcdserver: member not found")
CAN_ONLY_PROMOTE_A_LEARNER_MEMBER: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member"
)
CAN_ONLY_PROMOTE_A_LEARNER_MEMBER_WHICH_IS_IN_SYNC_WITH_LEADER: Final = Status(
    Code.FAILED_PRECONDITION,
    "etcdserver: can only promote a learner member which is in sync with leader",
)
TOO_MANY_LEARNER_MEMBERS_IN_CLUSTER: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: too many learner members in cluster"
)
CLUSTER_ID_MISMATCH: Final = Status(Code.FAILED_PRECONDITION, "etcdserver: cluster ID mismatch")
REQUEST_TOO_LARGE: Final = Status(Code.INVALID_ARGUMENT, "etcdserver: request is too large")
TOO_MANY_REQUESTS: Final = Status(Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
ROOT_USER_DOES_NOT_EXIST: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: root user does not exist"
)
ROOT_USER_DOES_NOT_HAVE_ROOT_ROLE: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: root user does not have root role"
)
USER_NAME_ALREADY_EXISTS: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: user name already exists"
)
USER_NAME_IS_EMPTY: Final = Status(Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
USER_NAME_NOT_FOUND: Final = Status(Code.FAILED_PRECONDITION, "etcdserver: user name not found")
ROLE_NAME_ALREADY_EXISTS: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: role name already exists"
)
ROLE_NAME_NOT_FOUND: Final = Status(Code.FAILED_PRECONDITION, "etcdserver: role name not found")
ROLE_NAME_IS_EMPTY: Final = Status(Code.INVALID_ARGUMENT, "etcdserver: role name is empty")
AUTHENTICATION_FAILED_INVALID_USER_ID_OR_PASSWORD: Final = Status(
    Code.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password"
)
PERMISSION_NOT_GIVEN: Final = Status(Code.INVALID_ARGUMENT, "etcdserver: permission not given")
PERMISSION_DENIED: Final = Status(Code.PERMISSION_DENIED, "etcdserver: permission denied")
ROLE_IS_NOT_GRANTED_TO_THE_USER: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: role is not granted to the user"
)
PERMISSION_IS_NOT_GRANTED_TO_THE_ROLE: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: permission is not granted to the role"
)
AUTHENTICATION_IS_NOT_ENABLED: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled"
)
INVALID_AUTH_TOKEN: Final = Status(Code.UNAUTHENTICATED, "etcdserver: invalid auth token")
INVALID_AUTH_MANAGEMENT: Final = Status(
    Code.INVALID_ARGUMENT, "etcdserver: invalid auth management"
)
REVISION_OF_AUTH_STORE_IS_OLD: Final = Status(
    Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old"
)
NO_LEADER: Final = Status(Code.UNAVAILABLE, "etcdserver: no leader")
NOT_LEADER: Final = Status(Code.FAILED_PRECONDITION, "etcdserver: not leader")
LEADER_CHANGED: Final = Status(Code.UNAVAILABLE, "etcdserver: leader changed")
NOT_CAPABLE: Final = Status(Code.FAILED_PRECONDITION, "etcdserver: not capable")
SERVER_STOPPED: Final = Status(Code.UNAVAILABLE, "etcdserver: server stopped")
TIMEOUT: Final = Status(Code.UNAVAILABLE, "etcdserver: request timed out")
TIMEOUT_LEADER_FAILURE: Final = Status(
    Code.UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure"
)
TIMEOUT_CONNECTION_LOST: Final = Status(
    Code.UNAVAILABLE, "etcdserver: request timed out, possibly due to connection lost"
)
TIMEOUT_WAIT_APPLIED: Final = Status(
    Code.UNAVAILABLE, "etcdserver: request timed out, waiting for the applied index took too long"
)
TIMEOUT_LEADER_TRANSFER: Final = Status(
    Code.UNKNOWN, "etcdserver: request timed out, leader transfer took too long"
)
UNHEALTHY_CLUSTER: Final = Status(Code.UNAVAILABLE, "etcdserver: unhealthy cluster")
CORRUPT: Final = Status(Code.DATA_LOSS, "etcdserver: corrupt cluster")
RPC_NOT_SUPPORTED_FOR_LEARNER: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"
)
BAD_LEADER_TRANSFEREE: Final = Status(Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
WRONG_DOWNGRADE_TARGET_VERSION_FORMAT: Final = Status(
    Code.INVALID_ARGUMENT, "etcdserver: wrong downgrade target version format"
)
INVALID_DOWNGRADE_TARGET_VERSION: Final = Status(
    Code.INVALID_ARGUMENT, "etcdserver: invalid downgrade target version"
)
CLUSTER_VERSION_NOT_FOUND_DURING_DOWNGRADE: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: cluster version not found during downgrade"
)
CLUSTER_HAS_A_DOWNGRADE_JOB_IN_PROGRESS: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: cluster has a downgrade job in progress"
)
NO_INFLIGHT_DOWNGRADE_JOB: Final = Status(
    Code.FAILED_PRECONDITION, "etcdserver: no inflight downgrade job"
)
REQUEST_CANCELED: Final = Status(Code.CANCELED, "etcdserver: request canceled")
CONTEXT_DEADLINE_EXCEEDED: Final = Status(
    Code.DEADLINE_EXCEEDED, "etcdserver: context deadline exceeded"
)
