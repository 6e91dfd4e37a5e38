"""Counts which request options and which errors a run has met, and which it must meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.differential.operations import CLOSE, METHODS, Answer, Operation

HITS_MIN: Final = 20

NOT_SENT: Final = (
    "Cluster.MemberAdd",
    "Cluster.MemberRemove",
    "Cluster.MemberUpdate",
    "Cluster.MemberPromote",
    "Maintenance.MoveLeader",
    "Maintenance.Downgrade",
    "Maintenance.Snapshot",
)
"""Methods that change members or leadership are not served; a snapshot is each server's own."""

REQUIRED_ERRORS: Final = (
    "INVALID_ARGUMENT: etcdserver: key is not provided",
    "INVALID_ARGUMENT: etcdserver: key not found",
    "INVALID_ARGUMENT: etcdserver: value is provided",
    "INVALID_ARGUMENT: etcdserver: lease is provided",
    "INVALID_ARGUMENT: etcdserver: too many operations in txn request",
    "INVALID_ARGUMENT: etcdserver: duplicate key given in txn request",
    "INVALID_ARGUMENT: etcdserver: request is too large",
    "OUT_OF_RANGE: etcdserver: mvcc: required revision has been compacted",
    "OUT_OF_RANGE: etcdserver: mvcc: required revision is a future revision",
    "OUT_OF_RANGE: etcdserver: too large lease TTL",
    "RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded",
    "RESOURCE_EXHAUSTED: grpc: received message larger than max (2097160 vs. 2097152)",
    "NOT_FOUND: etcdserver: requested lease not found",
    "FAILED_PRECONDITION: etcdserver: lease already exists",
    "DATA_LOSS: etcdserver: corrupt cluster",
    "watch canceled: mvcc: duplicate watch ID provided on the WatchStream",
    "watch canceled: mvcc: watcher range is empty",
)
"""Every status and text that a healthy cluster of 3.4 can answer to what is sent here."""

_AUTH: Final = "the Auth service is not there yet"
_MEMBERS: Final = "changes members, which would end the comparison: own tests meet it"
_LEADERSHIP: Final = "moves leadership: tests with etcdctl meet it"
_DOWNGRADE: Final = "Downgrade is not there yet"
_FAULT: Final = "needs a fault: tests of chaos and of the server meet it"
_NEWER: Final = "etcd 3.4 does not have it: tests of kvstore alone meet it"

NOT_REACHED: Final[dict[str, str]] = {
    "etcdserver: invalid sort option": f"{_NEWER}; here as expected difference",
    "etcdserver: invalid client api version": _NEWER,
    "etcdserver: watch canceled": "etcd sends it only when a server ends streams by itself",
    "etcdserver: too many requests": "needs 5,000 entries that are committed and not applied",
    "etcdserver: request canceled": "the client that canceled does not see it",
    "etcdserver: context deadline exceeded": "the client's own deadline ends the call first",
    "etcdserver: member ID already exist": _MEMBERS,
    "etcdserver: Peer URLs already exists": _MEMBERS,
    "etcdserver: re-configuration failed due to not enough started members": _MEMBERS,
    "etcdserver: given member URLs are invalid": _MEMBERS,
    "etcdserver: member not found": _MEMBERS,
    "etcdserver: can only promote a learner member": _MEMBERS,
    "etcdserver: can only promote a learner member which is in sync with leader": _MEMBERS,
    "etcdserver: too many learner members in cluster": _MEMBERS,
    "etcdserver: rpc not supported for learner": _MEMBERS,
    "etcdserver: cluster ID mismatch": _MEMBERS,
    "etcdserver: root user does not exist": _AUTH,
    "etcdserver: root user does not have root role": _AUTH,
    "etcdserver: user name already exists": _AUTH,
    "etcdserver: user name is empty": _AUTH,
    "etcdserver: user name not found": _AUTH,
    "etcdserver: role name already exists": _AUTH,
    "etcdserver: role name not found": _AUTH,
    "etcdserver: role name is empty": _AUTH,
    "etcdserver: authentication failed, invalid user ID or password": _AUTH,
    "etcdserver: permission not given": _AUTH,
    "etcdserver: permission denied": _AUTH,
    "etcdserver: role is not granted to the user": _AUTH,
    "etcdserver: permission is not granted to the role": _AUTH,
    "etcdserver: authentication is not enabled": _AUTH,
    "etcdserver: invalid auth token": _AUTH,
    "etcdserver: invalid auth management": _AUTH,
    "etcdserver: revision of auth store is old": _AUTH,
    "etcdserver: not leader": _LEADERSHIP,
    "etcdserver: bad leader transferee": _LEADERSHIP,
    "etcdserver: request timed out, leader transfer took too long": _FAULT,
    "etcdserver: no leader": _FAULT,
    "etcdserver: leader changed": _FAULT,
    "etcdserver: server stopped": _FAULT,
    "etcdserver: request timed out": _FAULT,
    "etcdserver: request timed out, possibly due to previous leader failure": _FAULT,
    "etcdserver: request timed out, possibly due to connection lost": _FAULT,
    "etcdserver: request timed out, waiting for the applied index took too long": _FAULT,
    "etcdserver: unhealthy cluster": _FAULT,
    "etcdserver: not capable": "only while members of several releases run together",
    "etcdserver: wrong downgrade target version format": _DOWNGRADE,
    "etcdserver: invalid downgrade target version": _DOWNGRADE,
    "etcdserver: cluster version not found during downgrade": _DOWNGRADE,
    "etcdserver: cluster has a downgrade job in progress": _DOWNGRADE,
    "etcdserver: no inflight downgrade job": _DOWNGRADE,
}
"""Every other error of etcd, with the reason why no sequence here can meet it."""


def _field_names(message: Message) -> Iterator[str]:
    """Every option set in ``message``: field names, enum values by name, nested ones too."""
    kind = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        yield f"{kind}.{field.name}"
        if field.type == FieldDescriptor.TYPE_ENUM:
            for number in values:
                known = field.enum_type.values_by_number.get(number)
                yield f"{kind}.{field.name}={known.name if known else 'unknown'}"
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in values:
                yield from _field_names(item)


def _range_form(request: Any) -> str:
    if not request.range_end:
        return "single key"
    if request.range_end == b"\x00":
        return "everything" if request.key == b"\x00" else "from key"
    return "interval" if request.key < request.range_end else "empty interval"


def required_options() -> list[str]:
    """Every field of every request that is sent, and every value of every enum in it."""
    names: set[str] = set()

    def visit(descriptor: Any) -> None:
        for field in descriptor.fields:
            name = f"{descriptor.name}.{field.name}"
            if name in names:
                continue
            names.add(name)
            if field.type == FieldDescriptor.TYPE_ENUM:
                # a zero is not on the wire unless repeated
                values = [
                    value for value in field.enum_type.values if value.number or field.is_repeated
                ]
                names.update(f"{name}={value.name}" for value in values)
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                visit(field.message_type)

    for method, row in METHODS.items():
        if method not in NOT_SENT:
            visit(row.request.DESCRIPTOR)
    return sorted(names)


class Coverage:
    """How often each method, option, form of range and error was met."""

    def __init__(self) -> None:
        self.methods: Counter[str] = Counter()
        self.options: Counter[str] = Counter()
        self.ranges: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def count(self, operation: Operation, answer: Answer) -> None:
        """Add one operation and the oracle's answer to it."""
        self.methods[operation.method] += 1
        if operation.method == CLOSE:
            return
        self.options.update(set(_field_names(operation.request)))
        if operation.method in ("KV.Range", "KV.DeleteRange"):
            form = _range_form(operation.request)
            self.ranges[f"{operation.method}: {form}"] += 1
        if answer.code != "OK":
            self.errors[f"{answer.code}: {answer.details}"] += 1
        elif getattr(answer.message, "cancel_reason", ""):
            self.errors[f"watch canceled: {answer.message.cancel_reason}"] += 1
        elif getattr(answer.message, "compact_revision", 0) and operation.method == "Watch.Watch":
            self.errors["watch canceled: compacted"] += 1
