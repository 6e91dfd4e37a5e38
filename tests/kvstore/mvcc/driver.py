"""Driving a machine as the rpc layer and the node do: validate, then apply or query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consensus.types import Entry
from kvstore.errors import Status
from kvstore.machine import KVStateMachine
from kvstore.mvcc import validate
from kvstore.mvcc.commands import is_read_only
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command

FIELDS = {
    pb.PutRequest: "put",
    pb.DeleteRangeRequest: "delete_range",
    pb.TxnRequest: "txn",
    pb.CompactionRequest: "compaction",
    pb.LeaseGrantRequest: "lease_grant",
    pb.LeaseRevokeRequest: "lease_revoke",
    pb.AlarmRequest: "alarm",
}
VALIDATORS: dict[type, Any] = {
    pb.RangeRequest: validate.validate_range,
    pb.PutRequest: validate.validate_put,
    pb.DeleteRangeRequest: validate.validate_delete_range,
    pb.TxnRequest: validate.validate_txn,
}


class Driver:
    """One machine with a log of its own, of which each call is the next entry."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.options = options
        self.machine = KVStateMachine(directory, **options)
        self.index = self.machine.position().index

    def call(self, request: Any) -> Any:
        """Answer a request as a member would: a response or a Status."""
        refusal = VALIDATORS.get(type(request), lambda _: None)(request)
        if refusal is not None:
            return refusal
        if isinstance(request, pb.RangeRequest | pb.LeaseLeasesRequest) or (
            isinstance(request, pb.TxnRequest) and is_read_only(request)
        ):
            return self.machine.query(request)
        return self.apply(Command(**{FIELDS[type(request)]: request}))

    def apply(self, command: Command, term: int = 1) -> Any:
        """Apply a command as the next entry of the log."""
        self.index += 1
        return self.machine.apply(Entry(term, self.index, 0, command.SerializeToString()))

    def put(self, key: bytes, value: bytes = b"v", **fields: Any) -> Any:
        """Put one key."""
        return self.call(pb.PutRequest(key=key, value=value, **fields))

    def range(self, key: bytes, range_end: bytes = b"", **fields: Any) -> Any:
        """Range over keys."""
        return self.call(pb.RangeRequest(key=key, range_end=range_end, **fields))

    def delete(self, key: bytes, range_end: bytes = b"", **fields: Any) -> Any:
        """Delete keys."""
        return self.call(pb.DeleteRangeRequest(key=key, range_end=range_end, **fields))

    def compact(self, revision: int) -> Any:
        """Compact, and leave the physical removal pending."""
        return self.call(pb.CompactionRequest(revision=revision))

    def sweep(self) -> None:
        """Let the pending physical removal end."""
        while self.machine.compacting:
            self.machine.tick()

    def reopen(self) -> None:
        """Close the machine and open it again, as a restart does."""
        self.machine.close()
        self.machine = KVStateMachine(self.directory, **self.options)


def drain(steps: Any) -> Any:
    """Run a sliced call to its end; return its answer."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def keys_of(response: Any) -> list[bytes]:
    """The keys of a RangeResponse, which must not be a refusal."""
    assert not isinstance(response, Status), response
    return [pair.key for pair in response.kvs]
