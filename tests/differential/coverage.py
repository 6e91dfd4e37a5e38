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
