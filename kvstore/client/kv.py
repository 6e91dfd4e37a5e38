"""Keys and values: put, get, range, delete, transactions, compaction."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from kvstore.client import rpcs
from kvstore.client.connection import Connection
from kvstore.client.records import (
    DeleteResult,
    Header,
    KeyValue,
    PutResult,
    RangeResult,
    Text,
    key_range,
    to_bytes,
)
from kvstore.client.txn import Comparison, Op, Txn, TxnResult
from kvstore.pb import etcdserverpb_pb2 as pb


class SortTarget(enum.Enum):
    """What a range is sorted by."""

    KEY = pb.RangeRequest.KEY
    VERSION = pb.RangeRequest.VERSION
    CREATE = pb.RangeRequest.CREATE
    MOD = pb.RangeRequest.MOD
    VALUE = pb.RangeRequest.VALUE


class SortOrder(enum.Enum):
    """Which way a range is sorted. NONE means by key, or ascending if a target is given."""

    NONE = pb.RangeRequest.NONE
    ASCEND = pb.RangeRequest.ASCEND
    DESCEND = pb.RangeRequest.DESCEND


class KVCalls:
    """The calls of the KV service. All raise the errors of ``Connection.call``."""

    connection: Connection

    async def put(
        self,
        key: Text,
        value: Text = b"",
        *,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
        timeout_s: float | None = None,
    ) -> PutResult:
        """Store ``value`` at ``key``.

        Args:
            lease: ID of the lease that the key shall live with; 0 detaches it from any.
            prev_kv: return the key as it was before.
            ignore_value: keep the value, change the lease only (the key must exist).
            ignore_lease: keep the lease, change the value only (the key must exist).

        >>> await client.put("/config/title", "tizi365")
        """
        request = pb.PutRequest(
            key=to_bytes(key),
            value=to_bytes(value),
            lease=lease,
            prev_kv=prev_kv,
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )
        return PutResult.of(await self.connection.call(rpcs.PUT, request, timeout_s=timeout_s))

    async def get(
        self,
        key: Text,
        *,
        revision: int = 0,
        serializable: bool = False,
        timeout_s: float | None = None,
    ) -> KeyValue | None:
        """Return ``key``, or None if it does not exist.

        Args:
            revision: read the store as it was then; 0 is now.
            serializable: answer from the asked member's own state, faster and perhaps stale.

        >>> kv = await client.get("/config/title")
        >>> kv.value
        b'tizi365'
        """
        found = await self.range(
            key, revision=revision, serializable=serializable, timeout_s=timeout_s
        )
        return found.kvs[0] if found.kvs else None

    async def get_prefix(
        self,
        prefix: Text,
        *,
        revision: int = 0,
        limit: int = 0,
        keys_only: bool = False,
        serializable: bool = False,
        timeout_s: float | None = None,
    ) -> tuple[KeyValue, ...]:
        """Return all keys that start with ``prefix``, in byte order. ``range`` has more options.

        >>> [kv.key for kv in await client.get_prefix("/config/")]
        [b'/config/title']
        """
        found = await self.range(
            prefix,
            prefix=True,
            revision=revision,
            limit=limit,
            keys_only=keys_only,
            serializable=serializable,
            timeout_s=timeout_s,
        )
        return found.kvs

    async def range(
        self,
        key: Text,
        range_end: Text | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        revision: int = 0,
        limit: int = 0,
        sort_by: SortTarget = SortTarget.KEY,
        order: SortOrder = SortOrder.NONE,
        serializable: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
        timeout_s: float | None = None,
    ) -> RangeResult:
        """Read the keys of ``[key, range_end)``, or with ``prefix``, or ``from_key`` on.

        Filters and order apply before ``limit`` (0 is no limit); ``count`` ignores both.
        """
        start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
        request = pb.RangeRequest(
            key=start,
            range_end=end,
            limit=limit,
            revision=revision,
            sort_order=order.value,
            sort_target=sort_by.value,
            serializable=serializable,
            keys_only=keys_only,
            count_only=count_only,
            min_mod_revision=min_mod_revision,
            max_mod_revision=max_mod_revision,
            min_create_revision=min_create_revision,
            max_create_revision=max_create_revision,
        )
        return RangeResult.of(await self.connection.call(rpcs.RANGE, request, timeout_s=timeout_s))

    async def delete(
        self,
        key: Text,
        range_end: Text | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        prev_kv: bool = False,
        timeout_s: float | None = None,
    ) -> DeleteResult:
        """Delete ``key``, or a range. ``deleted`` tells how many keys there were.

        >>> (await client.delete("/config/title")).deleted
        1
        """
        start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
        request = pb.DeleteRangeRequest(key=start, range_end=end, prev_kv=prev_kv)
        return DeleteResult.of(
            await self.connection.call(rpcs.DELETE_RANGE, request, timeout_s=timeout_s)
        )

    async def delete_prefix(
        self, prefix: Text, *, prev_kv: bool = False, timeout_s: float | None = None
    ) -> DeleteResult:
        """Delete all keys that start with ``prefix``, in one revision."""
        return await self.delete(prefix, prefix=True, prev_kv=prev_kv, timeout_s=timeout_s)

    async def txn(
        self,
        when: Sequence[Comparison] = (),
        then: Sequence[Op] = (),
        otherwise: Sequence[Op] = (),
        *,
        repeatable: bool | None = None,
        timeout_s: float | None = None,
    ) -> TxnResult:
        """Run a transaction (see ``kvstore.client.txn``).

        Args:
            repeatable: True if doing it twice is the same as once (as "create if absent" with a
                value of your own is); then it may be sent again where its outcome is unknown. By
                default only a transaction that reads is.

        >>> result = await client.txn(
        ...     when=[version("/lock") == 0], then=[Put("/lock", "me")], otherwise=[Get("/lock")]
        ... )
        >>> result.succeeded
        True
        """
        transaction = Txn(when, then, otherwise)
        message = await self.connection.call(
            rpcs.TXN,
            transaction.request(),
            timeout_s=timeout_s,
            repeatable=not transaction.writes() if repeatable is None else repeatable,
        )
        return TxnResult.of(message)

    async def compact(
        self, revision: int, *, physical: bool = False, timeout_s: float | None = None
    ) -> Header:
        """Forget the history before ``revision``.

        ``physical`` waits until the space is free as well.
        """
        request = pb.CompactionRequest(revision=revision, physical=physical)
        message = await self.connection.call(rpcs.COMPACT, request, timeout_s=timeout_s)
        return Header.of(message.header)
