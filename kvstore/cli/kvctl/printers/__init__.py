"""Output formats: what each command's answer looks like.

Printers take the server's own messages. A format that has no form for an answer refuses by name, as
etcdctl does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import attrs

from kvstore.cli.kvctl.failures import EXIT_BAD_FEATURE, Failure
from kvstore.pb import etcdserverpb_pb2 as pb


@attrs.frozen(slots=True)
class Health:
    """Whether one endpoint serves, how long it took, and what went wrong."""

    endpoint: str
    healthy: bool
    took_s: float
    error: str = ""


@attrs.frozen(slots=True)
class SnapshotStatus:
    """What a snapshot file holds."""

    hash: int
    revision: int
    total_keys: int
    total_size_bytes: int


class Printer:
    """The base of all formats: refuses everything. Each format says what it can."""

    name = ""

    def _refuse(self) -> NoReturn:
        raise Failure(f"{self.name} not supported as output format", EXIT_BAD_FEATURE)

    def write(self, *lines: bytes | str) -> None:
        """Write lines to standard output, and make them visible at once."""
        out = sys.stdout.buffer
        for line in lines:
            out.write((line.encode() if isinstance(line, str) else line) + b"\n")
        out.flush()

    def get(self, answer: pb.RangeResponse, value_only: bool = False) -> None:
        """Print what a range returned."""
        self._refuse()

    def put(self, answer: pb.PutResponse) -> None:
        """Print what a put returned."""
        self._refuse()

    def delete(self, answer: pb.DeleteRangeResponse) -> None:
        """Print what a delete returned."""
        self._refuse()

    def txn(self, answer: pb.TxnResponse) -> None:
        """Print what a transaction returned."""
        self._refuse()

    def watch(self, answer: pb.WatchResponse) -> None:
        """Print the events of a watch."""
        self._refuse()

    def grant(self, answer: pb.LeaseGrantResponse) -> None:
        """Print a new lease."""
        self._refuse()

    def revoke(self, lease_id: int, answer: pb.LeaseRevokeResponse) -> None:
        """Print that a lease was revoked."""
        self._refuse()

    def keep_alive(self, answer: pb.LeaseKeepAliveResponse) -> None:
        """Print that a lease was renewed."""
        self._refuse()

    def time_to_live(self, answer: pb.LeaseTimeToLiveResponse, keys: bool) -> None:
        """Print what remains of a lease."""
        self._refuse()

    def leases(self, answer: pb.LeaseLeasesResponse) -> None:
        """Print all leases."""
        self._refuse()

    def member_list(self, answer: pb.MemberListResponse) -> None:
        """Print the members."""
        self._refuse()

    def member_add(self, name: str, answer: pb.MemberAddResponse) -> None:
        """Print a new member, and what to start it with."""
        self._refuse()

    def member_remove(self, member_id: int, answer: pb.MemberRemoveResponse) -> None:
        """Print that a member was removed."""
        self._refuse()

    def member_update(self, member_id: int, answer: pb.MemberUpdateResponse) -> None:
        """Print that a member's peer URLs were changed."""
        self._refuse()

    def member_promote(self, member_id: int, answer: pb.MemberPromoteResponse) -> None:
        """Print that a learner votes now."""
        self._refuse()

    def move_leader(self, leader: int, target: int, answer: pb.MoveLeaderResponse) -> None:
        """Print who leads after whom."""
        self._refuse()

    def endpoint_health(self, all_health: Sequence[Health]) -> None:
        """Print the health of each endpoint."""
        self._refuse()

    def endpoint_status(self, statuses: Sequence[tuple[str, pb.StatusResponse]]) -> None:
        """Print the status of each endpoint."""
        self._refuse()

    def endpoint_hashkv(self, hashes: Sequence[tuple[str, pb.HashKVResponse]]) -> None:
        """Print the hash of each endpoint."""
        self._refuse()

    def alarm(self, answer: pb.AlarmResponse) -> None:
        """Print alarms."""
        self._refuse()

    def snapshot_status(self, status: SnapshotStatus) -> None:
        """Print what a snapshot holds."""
        self._refuse()


def printer_for(name: str, hexadecimal: bool) -> Printer:
    """Return the printer of a format. Fails if there is none of that name."""
    if name == "simple":
        from kvstore.cli.kvctl.printers.simple import SimplePrinter

        return SimplePrinter(hexadecimal)
    if name == "json":
        from kvstore.cli.kvctl.printers.json import JsonPrinter

        return JsonPrinter()
    if name == "fields":
        from kvstore.cli.kvctl.printers.fields import FieldsPrinter

        return FieldsPrinter()
    if name == "table":
        from kvstore.cli.kvctl.printers.table import TablePrinter

        return TablePrinter()
    raise Failure(
        f"unsupported output format {name!r}: simple, json, table or fields", EXIT_BAD_FEATURE
    )
