"""What a call of the client can end with, by name.

Every error is an ``EtcdError`` and carries a gRPC status, so that one ``except`` catches them all.
A caller acts on the class:

- ``EndpointsUnavailable``: no endpoint could be reached. A write was certainly not sent.
- ``OutcomeUnknown``: a write was sent and its answer was lost. It may have been applied, or may
  be applied yet; only reading the state can tell. The client never sends such a write again.
- ``Compacted``: the history that was asked for is gone; ``compact_revision`` says how far.
- ``WatchCanceled``, ``LeaseLost``: the server ended the watch; the lease expired or was revoked.
- plain ``EtcdError``: the server answered with this status, and nothing was applied.

A damaged snapshot is about a file, not about a call: ``SnapshotDamaged`` stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvstore.errors import COMPACTED, LEASE_NOT_FOUND, Code, EtcdError, Status


class EndpointsUnavailable(EtcdError):
    """None of the endpoints answered. ``failures`` maps each endpoint to the reason."""

    def __init__(self, failures: Mapping[str, str]) -> None:
        reasons = "; ".join(f"{endpoint}: {reason}" for endpoint, reason in failures.items())
        which = "the endpoint did not answer" if len(failures) == 1 else "no endpoint answered"
        super().__init__(Status(Code.UNAVAILABLE, f"{which} ({reasons})"))
        self.failures = dict(failures)


class OutcomeUnknown(EtcdError):
    """A write was sent and its answer was lost: it may have been applied, or may be yet."""

    def __init__(self, status: Status) -> None:
        super().__init__(
            Status(status.code, f"{status.message}; the write may or may not have been applied")
        )


class Compacted(EtcdError):
    """The revision asked for has been compacted.

    ``compact_revision`` is the oldest revision that can still be read.
    """

    def __init__(self, compact_revision: int) -> None:
        super().__init__(
            Status(
                COMPACTED.code,
                f"{COMPACTED.message} (the oldest that can be read is {compact_revision})",
            )
        )
        self.compact_revision = compact_revision


class WatchCanceled(EtcdError):
    """The server refused or ended a watch for another reason than compaction."""

    def __init__(self, reason: str) -> None:
        super().__init__(Status(Code.CANCELED, f"watch canceled by the server: {reason}"))


class LeaseLost(EtcdError):
    """The lease expired or was revoked: what was attached to it is gone."""

    def __init__(self, lease_id: int) -> None:
        super().__init__(Status(LEASE_NOT_FOUND.code, f"lease {lease_id:016x} is lost"))
        self.lease_id = lease_id


class SnapshotDamaged(Exception):
    """A snapshot file or stream is incomplete, or its checksum does not fit."""
