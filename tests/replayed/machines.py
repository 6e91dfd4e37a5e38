"""One member's store with a log of its own, which can be killed at any moment and comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consensus.types import Entry, Position
from kvstore.machine import KVStateMachine
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command, LeaseExpire


class StoreMember:
    """A ``KVStateMachine`` and the log that its engine would keep. See ``Stage.store``.

    Args:
        directory: of the machine.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log: list[Entry] = []
        self.machine = KVStateMachine(directory)
        self.lives = True
        self.term = 1

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self.machine.store.current_revision

    def apply(self, command: Command) -> Any:
        """Append a command and apply it; return its answer."""
        entry = Entry(self.term, len(self.log) + 1, 0, command.SerializeToString())
        self.log.append(entry)
        return self.machine.apply(entry)

    def put(self, key: bytes, value: bytes = b"v", lease: int = 0) -> Any:
        """Put a key."""
        return self.apply(Command(put=pb.PutRequest(key=key, value=value, lease=lease)))

    def delete(self, key: bytes) -> Any:
        """Delete a key."""
        return self.apply(Command(delete_range=pb.DeleteRangeRequest(key=key)))

    def txn(self, *operations: pb.RequestOp) -> Any:
        """Do all of these as one revision."""
        return self.apply(Command(txn=pb.TxnRequest(success=operations)))

    def compact(self, revision: int) -> Any:
        """Forget history before a revision; what that removes is not removed yet."""
        return self.apply(Command(compaction=pb.CompactionRequest(revision=revision)))

    def sweep(self) -> None:
        """Let what compaction removes be removed."""
        while self.machine.compacting:
            self.machine.tick()

    def grant(self, lease: int, ttl_s: int = 60) -> Any:
        """Grant a lease."""
        return self.apply(Command(lease_grant=pb.LeaseGrantRequest(ID=lease, TTL=ttl_s)))

    def expire(self, lease: int, decided_in_term: int) -> Any:
        """Apply what a leader decided in a term about a lease."""
        return self.apply(Command(lease_expire=LeaseExpire(ids=[lease], term=decided_in_term)))

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        """Return the value of a key."""
        found = self.machine.query(pb.RangeRequest(key=key, revision=revision))
        return found.kvs[0].value if found.kvs else None

    def kill(self) -> None:
        """Lose what is not committed. Does nothing to one that is dead."""
        if self.lives:
            self.lives = False
            self.machine.store.backend.close()

    def restart(self) -> None:
        """Open what the kill left, and apply from the log what is missing there."""
        self.machine = KVStateMachine(self.directory)
        self.lives = True
        position = self.machine.position()
        for entry in self.log[position.index :]:
            self.machine.apply(entry)

    def snapshot(self) -> bytes:
        """The whole state, as another member gets it."""
        frozen = self.machine.snapshot()
        try:
            return b"".join(frozen.chunks())
        finally:
            frozen.release()

    def restore(self, data: bytes) -> None:
        """Take the state of another member."""
        for _ in self.machine.restore_steps([data], Position(len(self.log), self.term, 0)):
            pass


class Stage:
    """What one story is played with: a directory of its own, and the stores in it.

    Args:
        directory: where; made when a store needs it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stores: list[StoreMember] = []

    def store(self, name: str = "store") -> StoreMember:
        """Start a member's store."""
        member = StoreMember(self._directory / name)
        self._stores.append(member)
        return member

    def clear(self) -> None:
        """End every store."""
        for member in self._stores:
            member.kill()


def put_op(key: bytes, value: bytes = b"v") -> pb.RequestOp:
    """A put inside a txn."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))


def range_op(key: bytes, revision: int = 0) -> pb.RequestOp:
    """A range inside a txn."""
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, revision=revision))
