"""The format for programs: the server's answers as Go's encoder writes them.

Fields with their zero value are left out, bytes are base64, numbers are numbers. Answers that
etcd's Go client wraps in structures of its own (leases, watches) have the names of those.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from kvstore.cli.kvctl.golang import duration
from kvstore.cli.kvctl.printers import Health, Printer, SnapshotStatus
from kvstore.pb import etcdserverpb_pb2 as pb


def encoded(value: Any) -> str:
    """Return JSON as Go writes it: compact, UTF-8, with ``<``, ``>`` and ``&`` escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def plain(message: Message) -> dict[str, Any]:
    """Return a message's fields that are not zero, in their order of declaration."""
    fields: dict[str, Any] = {}
    if isinstance(message, pb.ResponseOp):
        chosen = message.WhichOneof("response")
        name = "".join(part.capitalize() for part in str(chosen).split("_"))
        return {"Response": {name: plain(getattr(message, str(chosen)))}}
    present = {field.name: value for field, value in message.ListFields()}
    for field in message.DESCRIPTOR.fields:
        if field.name in present:
            value = present[field.name]
            fields[field.name] = (
                [_plain(each) for each in value] if field.is_repeated else _plain(value)
            )
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


class JsonPrinter(Printer):
    """One JSON value on a line for each answer."""

    name = "json"

    def _message(self, message: Message) -> None:
        self.write(encoded(plain(message)))

    def _with_header(self, header: pb.ResponseHeader, **fields: Any) -> None:
        self.write(encoded({**plain(header), **fields}))

    def get(self, answer: pb.RangeResponse, value_only: bool = False) -> None:
        """Print the answer."""
        self._message(answer)

    def put(self, answer: pb.PutResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def delete(self, answer: pb.DeleteRangeResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def txn(self, answer: pb.TxnResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def watch(self, answer: pb.WatchResponse) -> None:
        """Print the answer as Go's watch channel carries it."""
        self.write(
            encoded(
                {
                    "Header": plain(answer.header),
                    "Events": [plain(event) for event in answer.events],
                    "CompactRevision": answer.compact_revision,
                    "Canceled": answer.canceled,
                    "Created": answer.created,
                }
            )
        )

    def grant(self, answer: pb.LeaseGrantResponse) -> None:
        """Print the lease."""
        self._with_header(answer.header, ID=answer.ID, TTL=answer.TTL, Error=answer.error)

    def revoke(self, lease_id: int, answer: pb.LeaseRevokeResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def keep_alive(self, answer: pb.LeaseKeepAliveResponse) -> None:
        """Print the renewal."""
        self._with_header(answer.header, ID=answer.ID, TTL=answer.TTL)

    def time_to_live(self, answer: pb.LeaseTimeToLiveResponse, keys: bool) -> None:
        """Print what remains."""
        attached = [base64.b64encode(key).decode() for key in answer.keys] or None
        self._with_header(
            answer.header,
            id=answer.ID,
            ttl=answer.TTL,
            **{"granted-ttl": answer.grantedTTL, "keys": attached},
        )

    def leases(self, answer: pb.LeaseLeasesResponse) -> None:
        """Print the IDs."""
        self._with_header(answer.header, leases=[{"id": lease.ID} for lease in answer.leases])

    def member_list(self, answer: pb.MemberListResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def member_add(self, name: str, answer: pb.MemberAddResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def member_remove(self, member_id: int, answer: pb.MemberRemoveResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def member_update(self, member_id: int, answer: pb.MemberUpdateResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def member_promote(self, member_id: int, answer: pb.MemberPromoteResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def move_leader(self, leader: int, target: int, answer: pb.MoveLeaderResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def endpoint_health(self, all_health: Sequence[Health]) -> None:
        """Print a list."""
        self.write(
            encoded(
                [
                    {
                        "endpoint": health.endpoint,
                        "health": health.healthy,
                        "took": duration(health.took_s),
                        **({"error": health.error} if health.error else {}),
                    }
                    for health in all_health
                ]
            )
        )

    def endpoint_status(self, statuses: Sequence[tuple[str, pb.StatusResponse]]) -> None:
        """Print a list."""
        self.write(
            encoded([{"Endpoint": name, "Status": plain(status)} for name, status in statuses])
        )

    def endpoint_hashkv(self, hashes: Sequence[tuple[str, pb.HashKVResponse]]) -> None:
        """Print a list."""
        self.write(
            encoded([{"Endpoint": name, "HashKV": plain(answer)} for name, answer in hashes])
        )

    def alarm(self, answer: pb.AlarmResponse) -> None:
        """Print the answer."""
        self._message(answer)

    def snapshot_status(self, status: SnapshotStatus) -> None:
        """Print the status."""
        self.write(
            encoded(
                {
                    "hash": status.hash,
                    "revision": status.revision,
                    "totalKey": status.total_keys,
                    "totalSize": status.total_size_bytes,
                }
            )
        )
