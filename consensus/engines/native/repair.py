"""What a member does about damage on its disk, as long as others have what it lost.

After Alagappan and others, "Protocol-Aware Recovery for Consensus-Based Storage" (FAST 2018). A
member whose log, snapshot or machine cannot be trusted must not go on as if nothing were wrong: it
may have acknowledged what it lost, and a majority that counts it might elect a leader without it.
Nor may it start as a new member under its old name: it would vote a second time in a term.

So it comes back with what is left, in a term above every promise that it ever made (the log notes
the term twice for this), and neither votes nor campaigns until a leader that was elected without
it has brought it up to date. ``Core.repairing`` says why that is safe. A group of one cannot do
this: nobody else has what was lost.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from consensus.errors import DataDamaged
from consensus.raft.configuration import Configuration
from consensus.raft.messages import EntryKind
from consensus.storage.recovery import LogDamaged, Recovered
from consensus.storage.wal import WriteAheadLog
from consensus.types import NodeId


def open_log(wal: WriteAheadLog, bootstrap: Configuration) -> tuple[Recovered, str]:
    """Open a log, or what is left of it where it is damaged; and say what is wrong.

    Raises:
        LogDamaged: it is damaged, and the others cannot help.
        StorageError: the file system failed.
    """
    try:
        return wal.open(), ""
    except LogDamaged as damage:
        if is_alone(damage.recovered, bootstrap):
            raise
        return wal.salvage(damage), str(damage)


def abstain(wal: WriteAheadLog, recovered: Recovered, node_id: NodeId) -> None:
    """Vote for nobody else in a term whose vote may be lost with the last batch of the log.

    The records of that batch cannot be told from a write that a crash cut short, but the term is
    noted beside them: whom this member voted for in it, if for anybody, it no longer knows.

    Raises:
        StorageError: the file system failed.
    """
    if recovered.noted_term > max(recovered.hard_state.term, recovered.last_term):
        known = recovered.hard_state
        recovered.hard_state = attrs.evolve(known, term=recovered.noted_term, voted_for=node_id)
        wal.append([recovered.hard_state])


def from_nothing(
    wal: WriteAheadLog, recovered: Recovered, bootstrap: Configuration, damage: DataDamaged
) -> Recovered:
    """Give up a log whose beginning neither the machine nor a snapshot reaches any more.

    Raises:
        DataDamaged: the others cannot help.
        StorageError: the file system failed.
    """
    if is_alone(recovered, bootstrap):
        raise damage
    return wal.distrust(Recovered(), max(recovered.hard_state.term, recovered.last_term))


def is_alone(recovered: Recovered, bootstrap: Configuration) -> bool:
    """Whether this is the only voter, as far as its log says."""
    configuration = bootstrap
    if recovered.base.configuration:
        configuration = Configuration.decode(recovered.base.configuration)
    for entry in recovered.entries:
        if entry.kind is EntryKind.CONFIGURATION:
            configuration = Configuration.decode(entry.data)
    return len(configuration.all_voters) == 1


def remedy_for(directory: Path, *, alone: bool) -> str:
    """Say what a person can do about damage that a member must not repair by itself."""
    if alone:
        return (
            "This is the only member, so nobody else has what was lost: restore "
            f"{directory} from a backup. (An empty directory starts an empty store.)"
        )
    return (
        "The other members have what was lost: while most of them run, remove this member from "
        f"the group, delete {directory}, add it again and start it. Do not start it "
        "with an empty directory under its old membership: it may have voted or acknowledged "
        "what it would then have forgotten"
    )
