"""The one table from what the framework reports to what an etcd client is told.

A client must be able to tell "certainly not applied" from "nobody knows". etcd has no status for
that alone, so each outcome gets the text that etcd's clients already treat rightly: they retry a
read on any UNAVAILABLE, and never re-send a write on one of these.
"""

from __future__ import annotations

from typing import Final

from consensus.errors import (
    DataDamaged,
    Halted,
    NotLeader,
    OutcomeUnknown,
    ProposalDropped,
    QueueFull,
    ReadFailed,
    Stopped,
    Unsupported,
)
from kvstore.errors import (
    LEADER_CHANGED,
    NO_LEADER,
    SERVER_STOPPED,
    TIMEOUT,
    TOO_MANY_REQUESTS,
    Code,
    Status,
)

OUTCOMES: Final[tuple[tuple[type[Exception], Status], ...]] = (
    (QueueFull, TOO_MANY_REQUESTS),
    (NotLeader, NO_LEADER),
    (ProposalDropped, LEADER_CHANGED),
    (OutcomeUnknown, TIMEOUT),
    (ReadFailed, TIMEOUT),
    (Halted, SERVER_STOPPED),
    (Stopped, SERVER_STOPPED),
    (DataDamaged, SERVER_STOPPED),
)
"""First match wins: subclasses stand before their bases."""


def status_of(error: BaseException) -> Status | None:
    """Return the status for a failure of the framework, or None where ``error`` is a bug."""
    if isinstance(error, Unsupported):
        return Status(Code.UNIMPLEMENTED, f"etcdserver: {error}")
    for kind, status in OUTCOMES:
        if isinstance(error, kind):
            return status
    return None
