"""Leases, the replicated part: which exist, with what TTL, and which keys hang on each.

Everything here follows from the log alone. How much of a lease's time is left is the leader's
business (``kvstore.lease.expiry``): it proposes a ``LeaseExpire`` when a lease has run out, and
tells nobody of renewals.

Table ``leases``: id -> granted TTL. Table ``lease_keys``: id and a hash of the key -> key, since
keys may be longer than an LMDB key.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Protocol

from kvstore.errors import LEASE_EXISTS, LEASE_NOT_FOUND, LEASE_TTL_TOO_LARGE, Status
from kvstore.mvcc.absence import prove_absent, prove_beginning
from kvstore.mvcc.records import Damaged, lease_key_name, seal, unseal
from kvstore.mvcc.store import Store

LEASE_TTL_MAX_S: Final = 9_000_000_000
"""Longest TTL that etcd grants, in seconds."""

_ID: Final = struct.Struct(">q")
_TTL: Final = struct.Struct(">q")
_ID_BYTES: Final = 8


class LeaseListener(Protocol):
    """Who keeps the time of leases. Called from inside ``apply``: be short."""

    def granted(self, id: int, ttl_s: int) -> None:
        """A lease exists now."""

    def revoked(self, id: int) -> None:
        """A lease is gone."""

    def reset(self) -> None:
        """All state was replaced: ask ``machine.leases()`` anew."""


class Lessor:
    """The leases of one store.

    Args:
        store: where they are stored.
        min_ttl_s: shorter TTLs are raised to this many seconds.
    """

    def __init__(self, store: Store, min_ttl_s: int) -> None:
        self._store = store
        self._min_ttl_s = min_ttl_s
        self.listener: LeaseListener | None = None

    def ttl_s(self, id: int) -> int | None:
        """Return the granted TTL of a lease in seconds, or None where there is none.

        Raises:
            Damaged: its record is.
        """
        name = _ID.pack(id)
        sealed = self._store.backend.txn.get(name, db=self._store.backend.leases)
        if sealed is None:
            prove_absent(self._store.backend.txn, self._store.backend.leases, "lease", name)
            return None
        ttl: int = _TTL.unpack(unseal("lease", name, sealed))[0]
        return ttl

    def exists(self, id: int) -> bool:
        """Whether there is such a lease."""
        return self.ttl_s(id) is not None

    def leases(self) -> Iterator[tuple[int, int]]:
        """Yield (id, granted TTL in seconds) of every lease, in no particular order.

        Raises:
            Damaged: a record is.
        """
        with self._store.backend.txn.cursor(db=self._store.backend.leases) as cursor:
            for name, sealed in cursor:
                ttl_s = unseal("lease", name, sealed)  # first: then the name is right, too
                yield _ID.unpack(name)[0], _TTL.unpack(ttl_s)[0]

    def keys(self, id: int) -> list[bytes]:
        """Return the keys that hang on a lease, sorted.

        Raises:
            Damaged: a record is.
        """
        prefix = _ID.pack(id)
        found = []
        table = self._store.backend.lease_keys
        prove_beginning(self._store.backend.txn, table, "lease key", prefix)
        with self._store.backend.txn.cursor(db=table) as cursor:
            if cursor.set_range(prefix):
                for name, sealed in cursor.iternext():
                    if name[:_ID_BYTES] != prefix:
                        break
                    found.append(unseal("lease key", name, sealed))
        return sorted(found)

    def grant(self, id: int, ttl_s: int) -> int | Status:
        """Create a lease; return the TTL it got, in seconds. The proposer chose the id."""
        if id == 0:
            return LEASE_NOT_FOUND
        if ttl_s > LEASE_TTL_MAX_S:
            return LEASE_TTL_TOO_LARGE
        if self.exists(id):
            return LEASE_EXISTS
        granted = max(ttl_s, self._min_ttl_s)
        name = _ID.pack(id)
        self._store.backend.txn.put(
            name, seal(name, _TTL.pack(granted)), db=self._store.backend.leases
        )
        if self.listener is not None:
            self.listener.granted(id, granted)
        return granted

    def remove(self, id: int) -> None:
        """Forget a lease. Its keys were deleted before, which took them off it."""
        self._store.backend.txn.delete(_ID.pack(id), db=self._store.backend.leases)
        if self.listener is not None:
            self.listener.revoked(id)

    def attach(self, id: int, key: bytes) -> None:
        """Hang a key on an existing lease."""
        name = lease_key_name(id, key)
        self._store.backend.txn.put(name, seal(name, key), db=self._store.backend.lease_keys)

    def detach(self, id: int, key: bytes) -> None:
        """Take a key off its lease.

        Raises:
            Damaged: it was not on it.
        """
        name = lease_key_name(id, key)
        if not self._store.backend.txn.delete(name, db=self._store.backend.lease_keys):
            raise Damaged("lease key", name, "missing")
