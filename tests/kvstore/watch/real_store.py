"""The real store behind the fake's face: the same tests run on both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from consensus.types import Entry
from kvstore.machine import KVStateMachine
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2
from kvstore.pb.command_pb2 import Command


class RealStore:
    """A ``KVStateMachine`` that is driven by single commands, as ``FakeStore`` is."""

    def __init__(self, directory: Path) -> None:
        self.machine = KVStateMachine(directory)
        self.history_calls = 0
        self._index = 0

    @property
    def sink(self) -> Any:
        return self.machine.watch_sink

    @sink.setter
    def sink(self, sink: Any) -> None:
        self.machine.watch_sink = sink

    @property
    def current_revision(self) -> int:
        return self.machine.store.current_revision

    @property
    def compact_revision(self) -> int:
        return self.machine.store.compact_revision

    def get_at(self, key: bytes, revision: int) -> mvccpb_pb2.KeyValue | None:
        return self.machine.store.get_at(key, revision)

    def history(
        self, from_revision: int, key: bytes, range_end: bytes, max_revisions: int, to_revision: int
    ) -> tuple[Sequence[tuple[int, Sequence[mvccpb_pb2.Event]]], int]:
        self.history_calls += 1
        return self.machine.store.history(from_revision, key, range_end, max_revisions, to_revision)

    def apply(self, command: Command) -> Any:
        self._index += 1
        return self.machine.apply(Entry(1, self._index, 0, command.SerializeToString()))

    def txn(self, *changes: tuple[bytes, bytes | None]) -> int:
        request = pb.TxnRequest()
        for key, value in changes:
            if value is None:
                request.success.add().request_delete_range.key = key
            else:
                request.success.add().request_put.CopyFrom(pb.PutRequest(key=key, value=value))
        before = self.current_revision
        self.apply(Command(txn=request))
        assert self.current_revision == before + 1
        return self.current_revision

    def put(self, key: bytes, value: bytes = b"v") -> int:
        return self.txn((key, value))

    def delete(self, key: bytes) -> int:
        return self.txn((key, None))

    def compact(self, revision: int) -> None:
        self.apply(Command(compaction=pb.CompactionRequest(revision=revision)))
        while self.machine.compacting:
            self.machine.tick()
        assert self.compact_revision == revision

    def close(self) -> None:
        self.machine.close()
