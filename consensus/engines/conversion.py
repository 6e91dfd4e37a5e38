"""Taking over a member's log from one engine to another, while it is stopped.

Each member is converted by itself; the group is the same group afterwards, with the same promises:
what was committed stays so, votes are kept, and what was not committed yet is decided by the new
engine. For that the new log must mean to Raft what the old one meant, on every member alike.

PySyncObj's entry at place ``i`` carries a frame of any number of commands, perhaps none. It becomes
one entry for each command and a no-op after them, all of its term. So its last entry stands at
``i`` + (commands up to it): the same on every member, whether that got there by log or by snapshot,
and two logs compare (last term, last index) as before. Commands keep their numbers: a machine that
is on disk goes on from where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from consensus.engines.native.batches import encode_batch
from consensus.engines.native.bootstrap import Beginning, write_beginning
from consensus.engines.pysyncobj.export import ExportedLog, exported
from consensus.raft.configuration import Configuration
from consensus.raft.messages import EntryKind, LogEntry, SnapshotMeta
from consensus.storage.snapshots import StoredMeta
from consensus.types import NodeId


def pysyncobj_to_native(
    source: Path,
    target: Path,
    cluster: str,
    node_id: NodeId,
    members: Mapping[NodeId, str],
    contexts: Mapping[NodeId, bytes],
) -> tuple[int, int]:
    """Write into the empty directory ``target`` what a stopped member has in ``source``.

    Args:
        source: PySyncObj's directory; not changed.
        target: where the native engine will find it.
        cluster: the cluster's name, as the native engine will be given it.
        node_id: this member.
        members: every member's peer address ("host:port"), as PySyncObj was given them.
        contexts: what the program on top keeps with them.

    Returns:
        index and term of the last entry of the new log.

    Raises:
        StorageError: something cannot be read or written; the text says what.
    """
    with exported(source) as log:
        snapshot = None
        if log.base_index:
            meta = SnapshotMeta(
                log.base_index + log.base.index,
                log.base_term,
                Configuration.founded(members, contexts),
            )
            snapshot = (StoredMeta(meta, log.base.index, log.base.clock_ms), log.chunks)
        by_address = {address: node for node, address in members.items()}
        voted_for = by_address.get(log.voted_for) if log.voted_for is not None else None
        beginning = Beginning(snapshot, _entries(log), log.term, voted_for)
        return write_beginning(target, cluster, node_id, beginning)


def _entries(log: ExportedLog) -> Iterator[LogEntry]:
    index = log.base_index + log.base.index
    for entry in log.entries:
        for proposal in entry.frame.proposals if entry.frame is not None else ():
            index += 1
            yield LogEntry(index, entry.term, EntryKind.COMMAND, encode_batch([proposal]))
        index += 1
        yield LogEntry(index, entry.term, EntryKind.NOOP, b"")
