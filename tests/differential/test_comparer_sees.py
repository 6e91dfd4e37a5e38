"""The comparer is only worth something if it sees: every field of every answer is altered once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2
from tests.differential.compare import (
    IDENTITY_FIELDS,
    answer_differences,
    message_differences,
)
from tests.differential.coverage import NOT_SENT
from tests.differential.driver import watcher_differences
from tests.differential.expected_differences import explain_watcher
from tests.differential.operations import METHODS, Answer
from tests.differential.watching import Watcher

DEPTH_MAX = 3
"""How deep nested txn answers are filled."""

INVISIBLE = {
    "StatusResponse": {
        "version",
        "dbSize",
        "leader",
        "raftIndex",
        "raftTerm",
        "raftAppliedIndex",
        "dbSizeInUse",
        "storageVersion",
        "dbSizeQuota",
        "downgradeInfo",
    },
    "HashResponse": {"hash"},
    "HashKVResponse": {"hash", "hash_revision"},
    "Member": {"ID", "name"},
}
"""Fields whose values are each system's own: what ``NORMALISED`` brings to one form."""

NOT_COUNTED = {"MemberListResponse": {"members"}}
"""One member answers for three: how many there are is not compared, what each looks like is."""


def filled(kind: type[Message], depth: int = 0) -> Message:
    """A message with every field set."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if field.containing_oneof is not None and field.name == "response_txn" and depth:
            continue
        fill(message, field, depth)
    return message


def fill(message: Message, field: FieldDescriptor, depth: int) -> None:
    """Set one field of ``message`` to something that is not its default."""
    value: Any
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if depth > DEPTH_MAX:
            return
        value = filled(field.message_type._concrete_class, depth + 1)
        if field.is_repeated:
            getattr(message, field.name).extend([value, value])
        else:
            getattr(message, field.name).CopyFrom(value)
        return
    value = {
        FieldDescriptor.TYPE_BOOL: True,
        FieldDescriptor.TYPE_STRING: "http://127.0.0.1:1" if "URL" in field.name else "text",
        FieldDescriptor.TYPE_BYTES: b"bytes",
    }.get(field.type, 10_000 if "TTL" in field.name else 1)
    if field.is_repeated:
        getattr(message, field.name).extend([value, value])
    else:
        setattr(message, field.name, value)


def altered(message: Message, path: str = "") -> Iterator[str]:
    """Alter one field after another in place; yields its path while it is altered."""
    hidden = INVISIBLE.get(message.DESCRIPTOR.name, set())
    for field in message.DESCRIPTOR.fields:
        if field.name in hidden or (field.containing_oneof and not message.HasField(field.name)):
            continue
        where = f"{path}.{field.name}" if path else field.name
        before = type(message).FromString(message.SerializeToString())
        if field.is_repeated:
            keep = 0 if field.name in NOT_COUNTED.get(message.DESCRIPTOR.name, ()) else 1
            del getattr(message, field.name)[keep:]
            yield f"{where}: cut to {keep}"
            message.CopyFrom(before)
            for item in getattr(message, field.name)[:1]:
                if isinstance(item, Message):
                    yield from altered(item, f"{where}[0]")
                    message.CopyFrom(before)
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            message.ClearField(field.name)
            yield f"{where}: gone"
            message.CopyFrom(before)
            yield from altered(getattr(message, field.name), where)
            message.CopyFrom(before)
            continue
        if field.name not in IDENTITY_FIELDS:
            alter(message, field)
            yield where
            message.CopyFrom(before)
        message.ClearField(field.name)
        yield f"{where}: not set"
        message.CopyFrom(before)


def alter(message: Any, field: FieldDescriptor) -> None:
    """Change one plain field to another value."""
    value = getattr(message, field.name)
    match field.type:
        case FieldDescriptor.TYPE_BOOL:
            setattr(message, field.name, not value)
        case FieldDescriptor.TYPE_STRING | FieldDescriptor.TYPE_BYTES:
            setattr(message, field.name, value + value)
        case FieldDescriptor.TYPE_ENUM:
            setattr(message, field.name, value + 1)
        case _:
            setattr(message, field.name, value + 1_000_000)


ANSWERED = sorted(set(METHODS) - set(NOT_SENT))


@pytest.mark.parametrize("method", ANSWERED)
def test_every_altered_field_is_seen(method: str) -> None:
    kind = METHODS[method].response
    expected, actual = filled(kind), filled(kind)
    assert message_differences(expected, actual) == []
    paths = []
    for path in altered(actual):
        assert message_differences(expected, actual), f"{method}: {path} is not seen"
        paths.append(path)
    assert message_differences(expected, actual) == []
    assert paths


def test_each_event_field_is_seen() -> None:
    expected, actual = filled(mvccpb_pb2.Event), filled(mvccpb_pb2.Event)
    seen = [path for path in altered(actual) if message_differences(expected, actual)]
    assert len(seen) >= 15


def test_status_and_text_are_seen() -> None:
    right = Answer("NOT_FOUND", "etcdserver: requested lease not found")
    assert answer_differences(right, right) == []
    for wrong in (
        attrs.evolve(right, code="UNKNOWN"),
        attrs.evolve(right, details="etcdserver: requested lease not found."),
        Answer("OK", "", pb.LeaseRevokeResponse()),
    ):
        assert answer_differences(right, wrong)


def test_order_of_keys_is_seen() -> None:
    one, other = mvccpb_pb2.KeyValue(key=b"a"), mvccpb_pb2.KeyValue(key=b"b")
    assert message_differences(
        pb.RangeResponse(kvs=[one, other]), pb.RangeResponse(kvs=[other, one])
    )


def test_an_error_in_the_other_systems_place_is_seen() -> None:
    answered = Answer("OK", "", pb.PutResponse())
    failed = Answer("UNAVAILABLE", "etcdserver: leader changed")
    assert answer_differences(answered, failed)
    assert answer_differences(failed, answered)


def watcher(*revisions: int, start: int = 1, fragment: bool = False) -> Watcher:
    """A watcher that was sent one put at each of these revisions, each in its own answer."""
    made = Watcher(pb.WatchCreateRequest(key=b"a", start_revision=start), start, doomed=False)
    for revision in revisions:
        answer = pb.WatchResponse(fragment=fragment)
        answer.header.revision = revision
        answer.events.add(kv=mvccpb_pb2.KeyValue(key=b"a", mod_revision=revision))
        made.take(answer)
    return made


def test_watchers_that_agree_do() -> None:
    assert watcher_differences(watcher(2, 3), watcher(2, 3)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        watcher(2),
        watcher(2, 3, 4),
        watcher(3, 2),
        watcher(2, 4),
        watcher(2, 2, 3),
        watcher(2, 3, fragment=True),
    ],
    ids=["lost", "extra", "swapped", "other revision", "split", "unasked fragment"],
)
def test_wrong_event_sequences_are_seen(wrong: Watcher) -> None:
    assert watcher_differences(watcher(2, 3), wrong)


def test_a_header_older_than_its_event_is_seen() -> None:
    stale = watcher(2)
    answer = pb.WatchResponse(events=[mvccpb_pb2.Event(kv=mvccpb_pb2.KeyValue(mod_revision=5))])
    answer.header.revision = 4
    stale.take(answer)
    assert watcher_differences(watcher(2, 5), stale)


def test_a_tombstone_is_forgiven_only_at_the_revision_that_was_asked_for() -> None:
    def deletion(revision: int) -> Watcher:
        made = watcher(start=5)
        answer = pb.WatchResponse()
        answer.header.revision = revision
        answer.events.add(type=1, kv=mvccpb_pb2.KeyValue(key=b"a", mod_revision=revision))
        made.take(answer)
        return made

    assert explain_watcher(watcher(start=5), deletion(5)) == "tombstone_at_compacted_revision"
    assert explain_watcher(watcher(start=5), deletion(6)) == ""
    assert explain_watcher(watcher(start=5), watcher(5, start=5)) == ""
