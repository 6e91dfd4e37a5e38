"""Leases: never too early, at last gone, never back, and all their keys at once.

The server alone measures a lease's time. What clients can know of it: a grant or renewal that was
acknowledged took effect after it was sent, so the lease lives at least until the *sending* plus its
time to live. What they can see of its end is the deletion of its keys, through a watch on a link
without faults: it happened before it was *told*. A deletion that was told before the lease could
have ended is therefore too early, whatever the delays; a renewal acknowledged that was sent after
it was told is a revival.

In the other direction only a bound can be asked for, since a new leader begins each lease anew: a
key must be gone ``LATE_S`` after its time was up, and after everything was mended.

``grant`` and ``keepalive`` have ``{"lease", "ttl"}`` in ``input`` (``ttl`` in seconds) and
``{"ttl"}`` in ``output``, 0 for a lease that is gone; ``put`` attaches: ``{"lease"}``; ``revoke``
has ``{"lease"}``; ``read`` has in ``output`` ``{"keys": [...]}``, all keys that are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from chaos.checkers.assumptions import HEAL
from chaos.history.format import History, Operation, Outcome
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "lease"
LATE_S: Final = 15.0
"""How long after its time a lease may still be there: elections, and a server under load."""

NS: Final = 1_000_000_000


@attrs.define(slots=True)
class _Lease:
    """What is known of one lease; times in ns."""

    renewals: list[Operation] = attrs.field(factory=list)
    possible: list[Operation] = attrs.field(factory=list)
    revoked_from: int | None = None
    keys: dict[str, Operation] = attrs.field(factory=dict)
    deleted: dict[str, tuple[int, int]] = attrs.field(factory=dict)  # key: (told at, revision)


def check_leases(history: History) -> CheckResult:
    """See the module; ``unknown`` if no watch told deletions."""
    findings = Findings()
    leases = _gather(history)
    if not history.watchers:
        findings.note(Kind.UNDECIDED, "nobody watched the keys")
        return findings.result(CHECKER, Verdict.UNKNOWN)
    for identity, lease in sorted(leases.items()):
        _check_early(identity, lease, findings)
        _check_together(identity, lease, findings)
    _check_gone(history, leases, findings)
    return findings.result(CHECKER, Verdict.OK if leases else Verdict.UNKNOWN)


def _gather(history: History) -> Mapping[int, _Lease]:
    leases: dict[int, _Lease] = {}
    owner: dict[str, _Lease] = {}
    for operation in history.operations:
        if not isinstance(operation.input, dict) or "lease" not in operation.input:
            continue
        lease = leases.setdefault(operation.input["lease"], _Lease())
        if operation.f in ("grant", "keepalive"):
            alive = operation.outcome is Outcome.OK and operation.output["ttl"] > 0
            if alive:
                lease.renewals.append(operation)
            if alive or operation.outcome is Outcome.UNKNOWN:
                lease.possible.append(operation)
        elif operation.f == "revoke" and operation.outcome is not Outcome.FAIL:
            lease.revoked_from = min(lease.revoked_from or operation.start, operation.start)
        elif operation.f == "put" and operation.outcome is not Outcome.FAIL:
            lease.keys[operation.key] = operation
            owner[operation.key] = lease
    for watcher in history.watchers.values():
        for notice in watcher.notices:
            for event in notice.events:
                if event.value is None and event.key in owner:
                    owner[event.key].deleted.setdefault(event.key, (notice.t, event.revision))
    return leases


def _check_early(identity: int, lease: _Lease, findings: Findings) -> None:
    for key, (told, revision) in lease.deleted.items():
        if lease.revoked_from is not None and lease.revoked_from <= told:
            continue
        for renewal in lease.renewals:
            ttl_s = renewal.output["ttl"]
            lives_until = renewal.start + int(ttl_s * NS)
            if renewal.start > told:
                findings.add(
                    Kind.LEASE_REVIVED,
                    f"{key} of lease {identity:x} was deleted at revision {revision}, and "
                    f"{renewal.f} {renewal.id}, sent {(renewal.start - told) / NS:.3f} s after "
                    f"that was told, was answered with {ttl_s} s to live",
                    (renewal.id,),
                    revision,
                )
                break
            if told < lives_until:
                findings.add(
                    Kind.LEASE_EARLY,
                    f"{key} of lease {identity:x} was deleted at revision {revision}, "
                    f"{(lives_until - told) / NS:.3f} s before the {ttl_s} s were over that "
                    f"{renewal.f} {renewal.id} had been granted",
                    (renewal.id,),
                    revision,
                )
                break


def _check_together(identity: int, lease: _Lease, findings: Findings) -> None:
    """Every key that was attached before the end goes in the same revision."""
    revisions = {revision for _, revision in lease.deleted.values()}
    if len(revisions) > 1:
        findings.add(
            Kind.LEASE_PARTIAL,
            f"the keys of lease {identity:x} were deleted at revisions "
            f"{', '.join(map(str, sorted(revisions)))}",
            tuple(put.id for put in lease.keys.values()),
            min(revisions),
        )


def _check_gone(history: History, leases: Mapping[int, _Lease], findings: Findings) -> None:
    """No read finds a key whose time was up long ago."""
    healed = max((fault.t for fault in history.faults if fault.kind == HEAL), default=0)
    led = max((status.t for status in history.statuses if status.role == "leader"), default=0)
    owner = {key: (number, lease) for number, lease in leases.items() for key in lease.keys}
    for read in history.operations:
        if read.f != "read" or read.outcome is not Outcome.OK or "keys" not in (read.output or {}):
            continue
        for key in read.output["keys"]:
            number, lease = owner.get(key, (0, None))
            if lease is None:
                continue
            if key in lease.deleted and read.revision >= lease.deleted[key][1]:
                findings.add(
                    Kind.LEASE_REVIVED,
                    f"{key} of lease {number:x} was deleted at revision {lease.deleted[key][1]}, "
                    f"and read {read.id} at revision {read.revision} has it",
                    (read.id,),
                    read.revision,
                )
                continue
            ttl_s = max(((op.output or op.input)["ttl"] for op in lease.possible), default=0)
            last = max([healed, led, *(op.end or op.start for op in lease.possible)])
            over = (read.start - last) / NS - ttl_s
            if lease.possible and over > LATE_S:
                findings.add(
                    Kind.LEASE_LATE,
                    f"read {read.id} of {read.node} has {key} of lease {number:x}, whose "
                    f"{ttl_s} s were over {over:.1f} s before",
                    (lease.possible[-1].id, read.id),
                    read.revision,
                )
