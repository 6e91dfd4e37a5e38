"""A Python client for any etcd v3 server: kvstore, or etcd itself.

``AsyncClient`` for programs with an event loop, ``Client`` for those without; same names, same
arguments. Several endpoints with failover; no write is ever sent twice unless it certainly was not
sent before; watches that resume where they were; errors by name (``kvstore.client.errors``).

    >>> from kvstore.client import Client
    >>> with Client("127.0.0.1:2379") as client:
    ...     client.put("/config/title", "tizi365")
    ...     print(client.get("/config/title").value)
"""

from kvstore.client.aio import AsyncClient
from kvstore.client.connection import Connection
from kvstore.client.endpoints import Tls
from kvstore.client.errors import (
    Compacted,
    EndpointsUnavailable,
    LeaseLost,
    OutcomeUnknown,
    SnapshotDamaged,
    WatchCanceled,
)
from kvstore.client.kv import SortOrder, SortTarget
from kvstore.client.lease import Lease
from kvstore.client.recipes import Leadership, Lock
from kvstore.client.records import (
    Alarm,
    AlarmType,
    DeleteResult,
    Event,
    EventType,
    HashKV,
    Header,
    KeyValue,
    LeaseInfo,
    Member,
    MemberStatus,
    PutResult,
    RangeResult,
    SavedSnapshot,
    prefix_end,
)
from kvstore.client.sync import Client, SyncWatch
from kvstore.client.txn import (
    Delete,
    Get,
    Put,
    Txn,
    TxnResult,
    create_revision,
    lease,
    mod_revision,
    value,
    version,
)
from kvstore.client.watch import Watch, WatchBatch
from kvstore.errors import Code, EtcdError, Status

__all__ = [
    "Alarm",
    "AlarmType",
    "AsyncClient",
    "Client",
    "Code",
    "Compacted",
    "Connection",
    "Delete",
    "DeleteResult",
    "EndpointsUnavailable",
    "EtcdError",
    "Event",
    "EventType",
    "Get",
    "HashKV",
    "Header",
    "KeyValue",
    "Leadership",
    "Lease",
    "LeaseInfo",
    "LeaseLost",
    "Lock",
    "Member",
    "MemberStatus",
    "OutcomeUnknown",
    "Put",
    "PutResult",
    "RangeResult",
    "SavedSnapshot",
    "SnapshotDamaged",
    "SortOrder",
    "SortTarget",
    "Status",
    "SyncWatch",
    "Tls",
    "Txn",
    "TxnResult",
    "Watch",
    "WatchBatch",
    "WatchCanceled",
    "create_revision",
    "lease",
    "mod_revision",
    "prefix_end",
    "value",
    "version",
]
