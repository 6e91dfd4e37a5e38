"""Field by field: where two answers to one operation differ.

Some fields cannot be equal between two systems (who answered, how much disk it uses). They are
brought to one form first; ``NORMALISED`` lists them with the reason, and nothing else is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.differential.operations import Answer

IDENTITY_FIELDS: Final = ("cluster_id", "member_id", "raft_term")
TTL_TOLERANCE_S: Final = 600
"""Remaining time of a lease: the two systems reach one operation at different moments."""


@attrs.frozen(slots=True)
class Difference:
    """One field that is not the same; ``path`` is like ``kvs[2].version``."""

    path: str
    expected: Any
    actual: Any

    def text(self) -> str:
        """One line for a report."""
        return f"{self.path or 'answer'}: expected {self.expected!r}, got {self.actual!r}"


def _headers(message: Message) -> None:
    """Ids and terms become 1 where they are set, in the outer header and in those of inner ops."""
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        if field.name == "header":
            for name in IDENTITY_FIELDS:
                if getattr(value, name):
                    setattr(value, name, 1)
        elif field.is_repeated:
            if field.message_type.name == "ResponseOp":
                for item in value:
                    _headers(item)
        else:
            _headers(value)


def _status(message: Any) -> None:
    for name in ("version", "dbSize", "leader", "raftIndex", "raftTerm", "raftAppliedIndex"):
        value = getattr(message, name)
        setattr(message, name, type(value)("1") if value else type(value)())
    message.dbSizeInUse = 1 if message.dbSizeInUse else 0
    message.storageVersion = ""
    message.dbSizeQuota = 0
    message.ClearField("downgradeInfo")


def _hash(message: Any) -> None:
    message.hash = 1 if message.hash else 0


def _hash_kv(message: Any) -> None:
    _hash(message)
    message.hash_revision = 0


def _members(message: Any) -> None:
    del message.members[1:]
    for member in message.members:
        member.ID = 1 if member.ID else 0
        member.name = "name" if member.name else ""
        for urls in (member.peerURLs, member.clientURLs):
            urls[:] = ["url" for url in urls if url.startswith("http://127.0.0.1:")]


def _leases(message: Any) -> None:
    ids = sorted(status.ID for status in message.leases)
    for status, lease in zip(message.leases, ids, strict=True):
        status.ID = lease


def _time_to_live(message: Any) -> None:
    if message.grantedTTL and 0 <= message.grantedTTL - message.TTL <= TTL_TOLERANCE_S:
        message.TTL = message.grantedTTL
    message.keys.sort()


def _alarms(message: Any) -> None:
    alarms = sorted(message.alarms, key=lambda alarm: (alarm.memberID, alarm.alarm))
    copies = [type(alarm).FromString(alarm.SerializeToString()) for alarm in alarms]
    del message.alarms[:]
    message.alarms.extend(copies)


NORMALISED: Final[dict[str, tuple[Callable[[Any], None], str]]] = {
    "StatusResponse": (_status, "versions, sizes and Raft indexes are each system's own"),
    "HashResponse": (_hash, "hashes the bytes of one storage format"),
    "HashKVResponse": (_hash_kv, "clients compare it across members of one cluster only"),
    "MemberListResponse": (_members, "one member against three; names and addresses differ"),
    "LeaseLeasesResponse": (_leases, "etcd orders by remaining time, in no fixed order for equals"),
    "LeaseTimeToLiveResponse": (_time_to_live, "time passes; attached keys come from a hash map"),
    "AlarmResponse": (_alarms, "etcd lists alarms from a hash map"),
}


def normalised(message: Message) -> Message:
    """A copy with the fields of ``NORMALISED`` and all identities in one form."""
    copy = type(message).FromString(message.SerializeToString())
    _headers(copy)
    special = NORMALISED.get(copy.DESCRIPTOR.name)
    if special is not None:
        special[0](copy)
    return copy


def _fields(path: str, expected: Message, actual: Message) -> list[Difference]:
    found: list[Difference] = []
    for field in expected.DESCRIPTOR.fields:
        where = f"{path}.{field.name}" if path else field.name
        left, right = getattr(expected, field.name), getattr(actual, field.name)
        if field.is_repeated:
            if len(left) != len(right):
                found.append(Difference(f"len({where})", len(left), len(right)))
            for number, (one, other) in enumerate(zip(left, right, strict=False)):
                found += _values(f"{where}[{number}]", one, other)
        elif field.has_presence and expected.HasField(field.name) != actual.HasField(field.name):
            found.append(
                Difference(
                    f"{where} is there",
                    expected.HasField(field.name),
                    actual.HasField(field.name),
                )
            )
        else:
            found += _values(where, left, right)
    return found


def _values(path: str, expected: Any, actual: Any) -> list[Difference]:
    if isinstance(expected, Message):
        return _fields(path, expected, actual)
    return [] if expected == actual else [Difference(path, expected, actual)]


def message_differences(expected: Message, actual: Message) -> list[Difference]:
    """Every field in which two messages of one type differ, after normalisation."""
    left, right = normalised(expected), normalised(actual)
    return [] if left == right else _fields("", left, right)


def answer_differences(expected: Answer, actual: Answer) -> list[Difference]:
    """Where two answers differ: status, text, or any field of the message."""
    found = []
    if expected.code != actual.code:
        found.append(Difference("status code", expected.code, actual.code))
    if expected.details != actual.details:
        found.append(Difference("status text", expected.details, actual.details))
    if (expected.message is None) != (actual.message is None):
        found.append(
            Difference("message is there", *(a.message is not None for a in (expected, actual)))
        )
    elif expected.message is not None:
        found += message_differences(expected.message, actual.message)
    return found
