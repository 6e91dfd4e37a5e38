"""One log entry's effect: decode the command, dispatch it, answer or refuse.

Kept apart from the machine so that a second store can be brought up to date with the same entries
(see ``kvstore.defragment``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consensus.types import Entry
from kvstore.alarms import Alarms
from kvstore.errors import CORRUPT, LEADER_CHANGED, LEASE_NOT_FOUND, NO_SPACE, Status
from kvstore.lease.lessor import Lessor
from kvstore.mvcc.commands import Commands
from kvstore.mvcc.store import Store
from kvstore.pb.command_pb2 import Command, LeaseExpire, MemberAttributes
from kvstore.pb.etcdserverpb_pb2 import (
    AlarmRequest,
    AlarmResponse,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutRequest,
    PutResponse,
    TxnRequest,
    TxnResponse,
)
from kvstore.quota import txn_cost


class UnknownCommand(Exception):
    """The log holds a command that this release does not know. The node must stop before it."""


class Applier:
    """Applies entries to one store.

    Args:
        store: what they change.
        min_lease_ttl_s: shorter TTLs are raised to this; the same on every member.
    """

    def __init__(self, store: Store, min_lease_ttl_s: int) -> None:
        self.store = store
        self.lessor = Lessor(store, min_lease_ttl_s)
        self.alarms = Alarms(store)
        self.commands = Commands(store, self.lessor)
        self._handlers: dict[str | None, Callable[[Any, Entry], Any]] = {
            "put": self._put,
            "delete_range": self._delete_range,
            "txn": self._txn,
            "compaction": self._compact,
            "lease_grant": self._lease_grant,
            "lease_revoke": self._lease_revoke,
            "lease_expire": self._lease_expire,
            "alarm": self._alarm,
            "member_attributes": self._member_attributes,
        }

    def apply(self, entry: Entry) -> Any:
        """Apply one entry; return its response message or a ``Status``.

        Raises:
            UnknownCommand: this release does not know the command.
            StorageError: the disk failed, or something stored is damaged.
        """
        command = Command.FromString(entry.command)
        kind = command.WhichOneof("request")
        handler = self._handlers.get(kind)
        if handler is None:
            raise UnknownCommand(
                f"entry {entry.index} holds a command that this release of kvstore does "
                "not know. Start the release that the other members run"
            )
        return handler(getattr(command, kind or ""), entry)

    def _put(self, request: PutRequest, entry: Entry) -> PutResponse | Status:
        if self._stopped_writes:
            return self._refusal()
        return self.commands.put(request)

    def _delete_range(
        self, request: DeleteRangeRequest, entry: Entry
    ) -> DeleteRangeResponse | Status:
        if self.alarms.corrupt:
            return CORRUPT
        return self.commands.delete_range(request)

    def _txn(self, request: TxnRequest, entry: Entry) -> TxnResponse | Status:
        if self._stopped_writes and (self.alarms.corrupt or txn_cost(request) > 0):
            return self._refusal()
        return self.commands.txn(request)

    def _compact(self, request: CompactionRequest, entry: Entry) -> CompactionResponse | Status:
        if self.alarms.corrupt:
            return CORRUPT
        return self.commands.compact(request)

    @property
    def _stopped_writes(self) -> bool:
        return self.alarms.no_space or self.alarms.corrupt

    def _refusal(self) -> Status:
        return CORRUPT if self.alarms.corrupt else NO_SPACE

    def _lease_grant(self, request: LeaseGrantRequest, entry: Entry) -> LeaseGrantResponse | Status:
        if self._stopped_writes:
            return self._refusal()
        granted = self.lessor.grant(request.ID, request.TTL)
        if isinstance(granted, Status):
            return granted
        self.store.touch()
        response = LeaseGrantResponse(ID=request.ID, TTL=granted)
        response.header.revision = self.store.current_revision
        return response

    def _lease_revoke(
        self, request: LeaseRevokeRequest, entry: Entry
    ) -> LeaseRevokeResponse | Status:
        if self.alarms.corrupt:
            return CORRUPT
        if not self._revoke(request.ID):
            return LEASE_NOT_FOUND
        response = LeaseRevokeResponse()
        response.header.revision = self.store.current_revision
        return response

    def _revoke(self, id: int) -> bool:
        """Delete a lease's keys in one revision, in order, and the lease; False: no such lease."""
        if not self.lessor.exists(id):
            return False
        store = self.store
        store.begin_write()
        for key in self.lessor.keys(id):
            self.commands.delete_living(store.living(key, b""))
        store.end_write()
        self.lessor.remove(id)
        store.touch()
        return True

    def _lease_expire(self, request: LeaseExpire, entry: Entry) -> tuple[int, ...] | Status:
        """Revoke what the leader says has run out; return the ids that were there.

        Refused where the entry's term is not the one in which the leader decided.
        """
        if request.term != entry.term:
            return LEADER_CHANGED
        if self.alarms.corrupt:
            return CORRUPT
        return tuple(id for id in request.ids if self._revoke(id))

    def _alarm(self, request: AlarmRequest, entry: Entry) -> AlarmResponse:
        """Raise, disarm or list alarms. Like etcd's, the answer has no revision in its header."""
        response = AlarmResponse()
        if request.action == AlarmRequest.GET:
            response.alarms.extend(self.alarms.get(request.alarm))
        else:
            response.alarms.extend(self.alarms.change(request))
            self.store.touch()
        return response

    def _member_attributes(self, request: MemberAttributes, entry: Entry) -> MemberAttributes:
        self.store.set_member(request)
        return request
