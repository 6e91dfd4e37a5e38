"""All bugs that are replayed, in the order of their table in ``docs/REPLAYED_BUGS.md``."""

from __future__ import annotations

from tests.replayed import leases, membership, reads, replication, storage, stores, watches

BUGS = tuple(
    bug
    for module in (replication, membership, reads, storage, stores, watches, leases)
    for bug in module.TABLE.bugs
)
