from kvstore.pb import etcdserverpb_pb2 as _etcdserverpb_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Command(_message.Message):
    __slots__ = ("put", "delete_range", "txn", "compaction", "lease_grant", "lease_revoke", "lease_expire", "alarm", "member_attributes")
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_RANGE_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    COMPACTION_FIELD_NUMBER: _ClassVar[int]
    LEASE_GRANT_FIELD_NUMBER: _ClassVar[int]
    LEASE_REVOKE_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    put: _etcdserverpb_pb2.PutRequest
    delete_range: _etcdserverpb_pb2.DeleteRangeRequest
    txn: _etcdserverpb_pb2.TxnRequest
    compaction: _etcdserverpb_pb2.CompactionRequest
    lease_grant: _etcdserverpb_pb2.LeaseGrantRequest
    lease_revoke: _etcdserverpb_pb2.LeaseRevokeRequest
    lease_expire: LeaseExpire
    alarm: _etcdserverpb_pb2.AlarmRequest
    member_attributes: MemberAttributes
    def __init__(self, put: _Optional[_Union[_etcdserverpb_pb2.PutRequest, _Mapping]] = ..., delete_range: _Optional[_Union[_etcdserverpb_pb2.DeleteRangeRequest, _Mapping]] = ..., txn: _Optional[_Union[_etcdserverpb_pb2.TxnRequest, _Mapping]] = ..., compaction: _Optional[_Union[_etcdserverpb_pb2.CompactionRequest, _Mapping]] = ..., lease_grant: _Optional[_Union[_etcdserverpb_pb2.LeaseGrantRequest, _Mapping]] = ..., lease_revoke: _Optional[_Union[_etcdserverpb_pb2.LeaseRevokeRequest, _Mapping]] = ..., lease_expire: _Optional[_Union[LeaseExpire, _Mapping]] = ..., alarm: _Optional[_Union[_etcdserverpb_pb2.AlarmRequest, _Mapping]] = ..., member_attributes: _Optional[_Union[MemberAttributes, _Mapping]] = ...) -> None: ...

class LeaseExpire(_message.Message):
    __slots__ = ("ids", "term")
    IDS_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    term: int
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., term: _Optional[int] = ...) -> None: ...

class MemberAttributes(_message.Message):
    __slots__ = ("id", "name", "client_urls")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_URLS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    client_urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., client_urls: _Optional[_Iterable[str]] = ...) -> None: ...

class LeaderRequest(_message.Message):
    __slots__ = ("keep_alive", "lease_remaining")
    KEEP_ALIVE_FIELD_NUMBER: _ClassVar[int]
    LEASE_REMAINING_FIELD_NUMBER: _ClassVar[int]
    keep_alive: _etcdserverpb_pb2.LeaseKeepAliveRequest
    lease_remaining: LeaseRemaining
    def __init__(self, keep_alive: _Optional[_Union[_etcdserverpb_pb2.LeaseKeepAliveRequest, _Mapping]] = ..., lease_remaining: _Optional[_Union[LeaseRemaining, _Mapping]] = ...) -> None: ...

class LeaseRemaining(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class LeaderResponse(_message.Message):
    __slots__ = ("found", "remaining_ms", "granted_ttl_s")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    GRANTED_TTL_S_FIELD_NUMBER: _ClassVar[int]
    found: bool
    remaining_ms: int
    granted_ttl_s: int
    def __init__(self, found: _Optional[bool] = ..., remaining_ms: _Optional[int] = ..., granted_ttl_s: _Optional[int] = ...) -> None: ...
